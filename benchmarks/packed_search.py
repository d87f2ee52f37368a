"""Searches whose trials train in packs against the same with each trial alone, to the same number of trials.

    python -m benchmarks.packed_search                  # the real MNIST: results/<machine>/packed_search.json
    python -m benchmarks.packed_search data=synthetic   # with other settings, or data.limit=11000: shown, not kept
    python -m benchmarks.packed_search --only search=random           # one of its searches: shown, not kept

Both have the sampler's seed, and run at the same time with a worker each, so that both have the same machine: on two
cores or more. The processor's seconds are those of all processes of the command, looked at twice a second.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import measure, suite, table
from benchmarks.measure import Benchmark, Case, Spread
from mnist_exp.disk import journal, plan

TRIALS = 24
COMMON = ["epochs=9", f"n_trials={TRIALS}", "tracking=off", "threads=1", "hydra.launcher.workers=1"]
COMMON += ["hydra.sweeper.report=false"]
SPACE = ["hidden=int(interval(16,128))", "lr=tag(log,interval(1e-4,1e-1))"]
SEARCHES = {
    "random, no pruning (batches of 16)": ["search=random"],
    "random, halving (batches of 16)": ["search=asha"],
    "TPE, halving (batches of 4)": ["search=tpe", "hydra.sweeper.batch=4"],
}
CONTENDERS: dict[str, list[str]] = {"packed": [], "each alone": ["hydra.launcher.pack=off"]}


class Cost(NamedTuple):
    """What a search took, and what it came to."""

    seconds: float
    processor: float
    """Seconds of all its processes."""
    epochs: int
    best: float
    """Validation accuracy in percent."""


def cost(typed: Sequence[str]) -> Cost:
    """Runs the search that is *typed*."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, busy, began = Path(scratch), dict[int, float](), time.perf_counter()
        command = [sys.executable, *suite.OURS, "-m", *typed]
        with subprocess.Popen(command, cwd=folder, env=measure.variables(), stdout=subprocess.DEVNULL) as process:
            top = psutil.Process(process.pid)
            while process.poll() is None:
                with contextlib.suppress(psutil.Error):
                    for each in (top, *top.children(recursive=True)):
                        with contextlib.suppress(psutil.Error):
                            times = each.cpu_times()
                            busy[each.pid] = max(busy.get(each.pid, 0.0), times.user + times.system)
                time.sleep(0.5)
        seconds = time.perf_counter() - began
        if process.returncode not in (0, 1):  # 1: some runs diverged
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}.")
        (home,) = (path.parent for path in folder.glob("outputs/sweeps/*/*/sweep.json"))
        rows = [row for number in range(len(plan.read(home).points)) for row in journal.read(home / str(number))]
    return Cost(seconds, sum(busy.values()), len(rows), 100 * max(row["metrics"]["val/accuracy"] for row in rows))


def measured(searches: Mapping[str, list[str]], repeats: int, further: Sequence[str]) -> Benchmark:
    """Lets packed and unpacked *searches* run beside each other."""
    cases, notes = [], [f"{TRIALS} trials of 9 epochs, hidden 16 to 128, lr 1e-4 to 0.1; one worker with one thread"]
    for search, typed in searches.items():
        costs: dict[str, list[Cost]] = {name: [] for name in CONTENDERS}
        for seed in range(repeats):
            common = [*typed, *COMMON, *SPACE, f"hydra.sweeper.seed={seed}", *further]
            with ThreadPoolExecutor() as pool:
                both = pool.map(cost, [[*common, *own] for own in CONTENDERS.values()])
                for name, each in zip(CONTENDERS, both, strict=True):
                    costs[name].append(each)
                    print(search, name, each, flush=True)  # noqa: T201
        spreads: dict[str, Spread] = {}
        ratios: dict[str, Spread] = {}
        for what in ("seconds", "processor"):
            values = {name: [getattr(each, what) for each in costs[name]] for name in CONTENDERS}
            spreads |= {f"{name}, {what}": Spread(values[name]) for name in CONTENDERS}
            pairs = zip(values["each alone"], values["packed"], strict=True)
            ratios[f"each alone / packed, {what}"] = Spread([alone / packed for alone, packed in pairs])
        cases.append(Case(search, spreads, ratios))
        for name in CONTENDERS:
            best = ", ".join(f"{each.best:.2f}" for each in costs[name])
            epochs = ", ".join(str(each.epochs) for each in costs[name])
            notes.append(f"{search}, {name}: best validation accuracy {best} %; epochs trained {epochs}")
    return Benchmark("packed_search", "A search whose trials train in packs", "s", cases, notes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packed_search", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="further settings of the searches")
    parser.add_argument("--only", choices=[typed[0] for typed in SEARCHES.values()], help="of its searches")
    options = parser.parse_args(arguments)
    searches = {label: typed for label, typed in SEARCHES.items() if options.only in (None, typed[0])}
    table.finish(measured(searches, options.repeats, options.overrides), not (options.overrides or options.only))


if __name__ == "__main__":
    main()
