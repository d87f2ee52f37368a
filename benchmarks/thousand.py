"""Sweeps of tiny runs: start-up, overhead of each run, the driver's memory, files, and a report on them.

    python -m benchmarks.thousand                                   # 1,000 runs: results/<machine>/thousand.json
    python -m benchmarks.thousand 0744662                           # and an earlier commit's, in turns; keeps nothing
    python -m benchmarks.thousand --points 1 10 100 1000 10000      # how it grows, with docs/images/thousand.png

More than 1,000 runs are not made but copied in the database, for the report alone.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from matplotlib.figure import Figure

from benchmarks import measure, table, ten_thousand
from benchmarks.measure import ROOT, Benchmark, Case, Spread
from benchmarks.versus import checked_out
from mnist_exp.charts.style import COLOURS, Picture, drawn, plain_ticks

FULL = 1000  # points; without them nothing is kept
AROUND, MEMORY, FILES = "around a job, on a core", "memory of the driver, MiB", "files"
NOTE = (
    "hidden=8 on synthetic images, one epoch each; the whole command, MLflow included; seconds unless a unit is named"
)


def sweep(points: int, tree: Path = ROOT) -> dict[str, float]:
    """What a sweep of so many runs by the checkout *tree* costs, and a report on it."""
    arguments = [f"seed=range(0,{points})", "hidden=8", "data=synthetic", "epochs=1", "hydra.sweeper.report=false"]
    with tempfile.TemporaryDirectory() as scratch:
        folder, began = Path(scratch), time.monotonic()
        command = [sys.executable, "-m", "mnist_exp.train", "-m", *arguments]
        environ = measure.variables() | {"PYTHONPATH": str(tree)}
        driver = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.DEVNULL)
        process, peak, first = psutil.Process(driver.pid), 0, 0.0
        while driver.poll() is None:
            with contextlib.suppress(psutil.Error):
                peak = max(peak, process.memory_info().rss)
            if not first and any(folder.glob("outputs/sweeps/*/*/0/ledger.json")):
                first = time.monotonic() - began
            time.sleep(0.05)
        total = time.monotonic() - began
        ledgers = [json.loads(path.read_text()) for path in folder.glob("outputs/sweeps/*/*/*/ledger.json")]
        if driver.returncode or sum(entry["state"] == "finished" for entry in ledgers) < points:
            raise RuntimeError(f"{' '.join(command)} ended with {driver.returncode}.")
        files = sum(len(names) for _, _, names in os.walk(folder))
        report = ten_thousand.reports(folder, tree)
    training = sum(entry["seconds"] for entry in ledgers) / points
    return {
        "until the first job": first,
        "until the last": total,
        "training of a job": training,
        AROUND: (total - first) * measure.cores() / points - training,
        MEMORY: peak / 2**20,
        FILES: files,
        **report,
    }


def copies(points: int, tree: Path = ROOT) -> dict[str, float]:
    """What a report by the checkout *tree* on so many runs in the database costs."""
    with tempfile.TemporaryDirectory() as scratch:
        ten_thousand.fill(Path(scratch), points, tree)
        return ten_thousand.reports(Path(scratch), tree)


def measured(points: int, trees: dict[str, Path]) -> Case:
    """The costs of so many *points*, with their ratios to those of an earlier commit where *trees* has one."""
    found = {when: (sweep if points <= FULL else copies)(points, tree) for when, tree in trees.items()}
    now, then = found["now"], found.get("then", {})
    costs = now | {f"{what}, then": cost for what, cost in then.items()}
    ratios = {f"{what}, now / then": Spread([now[what] / cost]) for what, cost in then.items()}
    return Case(f"{points:,} points", {what: Spread([cost]) for what, cost in costs.items()}, ratios)


@drawn
def draw(cases: dict[int, Case]) -> Picture:
    """What grows with the number of points, beside a straight line through zero and the largest."""
    figure = Figure(figsize=(7, 5))
    for axes, what in zip(figure.subplots(2, 2).flat, (MEMORY, FILES, AROUND, ten_thousand.PAGE), strict=True):
        costs = {points: case.costs[what].median for points, case in cases.items() if what in case.costs}
        axes.plot(list(costs), list(costs.values()), marker="o", color=COLOURS[0])
        if what != AROUND:
            most = max(costs)
            axes.plot(list(costs), [costs[most] * points / most for points in costs], "--", color=COLOURS[1])
        axes.set(xscale="log", yscale="log", xlabel="runs", title=what if what in (MEMORY, FILES) else f"{what}, s")
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
    return Picture("thousand", "Growth", "Memory, files and seconds by the number of runs of a sweep", figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, writes and draws."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thousand", description=__doc__)
    parser.add_argument("commit", nargs="?")
    parser.add_argument("--points", type=int, nargs="+", default=[FULL])
    typed = parser.parse_args(arguments)
    with checked_out(typed.commit) if typed.commit else contextlib.nullcontext() as earlier:
        trees = {"now": ROOT} | ({"then": earlier} if earlier else {})
        cases = {points: measured(points, trees) for points in sorted(typed.points)}
    notes = [NOTE, *([f"`then` is {typed.commit}"] if earlier else [])]
    benchmark = Benchmark("thousand", "Sweeps of tiny runs", "s", list(cases.values()), notes)
    table.finish(benchmark, FULL in cases and not earlier, draw(cases) if len(cases) > 1 else None)


if __name__ == "__main__":
    main()
