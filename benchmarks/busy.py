"""Runs that start at once on one machine: what they take together, by their CPU threads.

    python -m benchmarks.busy
    python -m benchmarks.busy --at-once 4 --rounds 1    # some of it: shown, not kept

`shared` is the default: each run takes as many threads as there are cores that the others leave free. `all cores` is
what it would be without that. The sweep trains the same runs, each by itself, on workers with one thread.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import table
from benchmarks.measure import Benchmark, Contender, compare
from mnist_exp import system

AT_ONCE = (1, 2, 4, 8)
ROUNDS = 3
RUN = [sys.executable, "-m", "mnist_exp.train", "epochs=10"]


def together(folder: Path, commands: Sequence[Sequence[str]]) -> Contender:
    """Wall-clock seconds until the last of *commands*, which start in the same moment, has ended."""

    def measure() -> float:
        began = time.perf_counter()
        runs = [subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) for command in commands]
        if any(run.wait() for run in runs):
            raise RuntimeError("one of the runs failed")
        return time.perf_counter() - began

    return measure


def at_once(number: int, folder: Path, *typed: str) -> Contender:
    """Of *number* runs that differ in their seeds."""
    return together(folder, [[*RUN, f"seed={seed}", *typed] for seed in range(number)])


def sweep(number: int, folder: Path) -> Contender:
    """Of a sweep of the same runs."""
    seeds = ",".join(map(str, range(number)))
    return together(folder, [[*RUN, "-m", f"seed={seeds}", "threads=1", "hydra.launcher.pack=off"]])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser("busy")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--at-once", type=int, nargs="+", default=AT_ONCE, help="runs")
    typed = parser.parse_args()
    cases = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        at_once(1, folder)()  # the warm-up: leaves a store, and the template of the network's export
        for number in typed.at_once:
            contenders = {
                "shared": at_once(number, folder),
                "all cores": at_once(number, folder, f"threads={system.cores()}"),
                "a thread each": at_once(number, folder, "threads=1"),
                "a sweep": sweep(number, folder),
            }
            ratios = [("all cores", "shared"), ("shared", "a thread each"), ("shared", "a sweep")]
            cases.append(compare(f"{number} at once", contenders, typed.rounds, ratios, warmup=0))
    whole = typed.at_once == AT_ONCE and typed.rounds >= ROUNDS
    table.finish(Benchmark("busy", "Runs that start at once, epochs=10", "s", cases), kept=whole)


if __name__ == "__main__":
    main()
