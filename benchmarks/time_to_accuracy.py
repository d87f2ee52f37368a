"""Seconds from the start of a cold command to 97, 98 and 99 % test accuracy.

    python -m benchmarks.time_to_accuracy
    python -m benchmarks.time_to_accuracy "hidden=128" "hidden=512 schedule=onecycle lr=4e-3 epochs=5"

Each argument has the overrides of one `python -m mnist_exp.train`; the default is the fastest known command for each
target. Interpreter, imports, data and every evaluation on the way count. The test set stops nothing: the command runs
to its end.
"""

import sys
from pathlib import Path

from benchmarks import measure, suite, table
from benchmarks.measure import Benchmark, Case, Spread
from mnist_exp.disk import journal

TARGETS = (0.97, 0.98, 0.99)
FASTEST = (  # for 97, 98 and 99 %; chosen with data.val_size=10000
    "hidden=128 batch_size=128 lr=6e-3 schedule=onecycle epochs=2 data.val_size=0",
    "hidden=256 batch_size=128 lr=6e-3 schedule=onecycle epochs=5 data.val_size=0",
    "experiment=small_cnn epochs=2",
)


def reached(folder: Path, started_ms: int) -> dict[float, float]:
    """Seconds from *started_ms* until the newest run below *folder* first reached each target."""
    newest = max(folder.glob("outputs/runs/*/*/metrics.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    seconds: dict[float, float] = {}
    for row in journal.read(newest.parent):
        for target in TARGETS:
            if row["metrics"]["test/accuracy"] >= target:
                seconds.setdefault(target, (row["time_ms"] - started_ms) / 1000)
    return seconds


def run(folder: Path, configs: list[str], repeats: int = 3) -> Benchmark:
    """Runs each of *configs* (overrides with spaces between) *repeats* times, in turns, with seeds 0, 1, 2 ..."""
    seconds: dict[str, dict[float, list[float]]] = {typed: {} for typed in configs}
    for seed in range(repeats):
        for typed in configs:
            done = measure.command([*suite.OURS, *typed.split(), f"seed={seed}"], folder)
            for target, value in reached(folder, done.started_ms).items():
                seconds[typed].setdefault(target, []).append(value)
    cases = [
        Case(typed or "the default", {f"{target:.0%}": Spread(values) for target, values in sorted(reached_at.items())})
        for typed, reached_at in seconds.items()
    ]
    notes = [
        f"{typed or 'the default'}: {target:.0%} by {len(seconds[typed].get(target, []))} of {repeats} seeds"
        for typed in configs
        for target in TARGETS
        if len(seconds[typed].get(target, [])) < repeats
    ]
    return Benchmark("time_to_accuracy", "Time from a cold start to a test accuracy", "s", cases, notes)


def main() -> None:
    """Measures, prints and writes the given configs, by default the fastest."""
    with suite.scratch() as folder:
        table.keep(run(folder, sys.argv[1:] or list(FASTEST)))


if __name__ == "__main__":
    main()
