"""How busy a search with pruning keeps eight slots of a Ray cluster, whose trials take very different times.

    python -m benchmarks.slots            # this checkout
    python -m benchmarks.slots 5fcc3a4    # and an earlier commit

The cluster is this machine, which is told that it has eight processors. The trials are tiny and sleep in each epoch: so
eight of them run at a time on two cores. Busy are the slots between start and end of each run, by the ledgers, of eight
times the time from the first start to the last end.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray is imported
import ray

from benchmarks import measure
from benchmarks.versus import checked_out
from mnist_exp.disk import ledger, plan

SLOTS = 8
SLEEPS = """
import time
from mnist_exp.engine.events import Callback

class Sleeps(Callback):
    def __init__(self, run, seconds):
        self.seconds = seconds

    def measure(self, event):
        time.sleep(self.seconds)
        return {}
"""
NAMED = "sleeps:\n  _target_: sleeps.Sleeps\n  seconds: 1.0\n"
HEAD = "| search | | runs | pruned | busy | seconds | whole command |\n| --- | --- |" + " ---: |" * 5
SEARCHES = {
    "random, halving": ["search=asha"],
    "TPE, halving, `hydra.sweeper.batch=8`": ["search=tpe", "hydra.sweeper.batch=8"],
}
SPACE = ["callbacks.sleeps.seconds=tag(log,interval(0.5,8))", "lr=tag(log,interval(1e-6,1e-1))"]
COMMON = ["--config-dir", "conf", "callbacks=sleeps", "cluster=ray", "epochs=9", "hidden=8", "data=synthetic", *SPACE]
COMMON += ["data.train_images=2000", "threads=1", "tracking=off", "hydra.sweeper.report=false"]


def busy(tree: Path, address: str, typed: list[str]) -> str:
    """Runs a search of the checkout *tree*; returns the cells of its row."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "sleeps.py").write_text(SLEEPS)
        (folder / "conf" / "callbacks").mkdir(parents=True)
        (folder / "conf" / "callbacks" / "sleeps.yaml").write_text(NAMED)
        command = [sys.executable, "-m", "mnist_exp.train", "-m", *COMMON, *typed, f"hydra.launcher.address={address}"]
        environ, began = measure.variables() | {"PYTHONPATH": f"{tree}:{folder}"}, time.perf_counter()
        subprocess.run(command, cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        (home,) = (path.parent for path in folder.glob("outputs/sweeps/*/*/sweep.json"))
        found = [ledger.find(home / str(number)) for number in range(len(plan.read(home).points))]
        entries = [entry for entry in found if entry]  # a repeated trial has none
    spans = [(entry.started_ms, entry.ended_ms or entry.started_ms) for entry in entries]
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    share, pruned = sum(end - start for start, end in spans) / SLOTS / wall, sum(e.state == "pruned" for e in entries)
    return f"{len(entries)} | {pruned} | {share:.0%} | {wall / 1000:.0f} | {seconds:.0f} |"


def main() -> None:
    """Prints a row for each search and checkout."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slots", description=__doc__)
    parser.add_argument("commit", nargs="?")
    parser.add_argument("--trials", type=int, default=64)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        trees = {"now": measure.ROOT}
        if options.commit:
            trees["then"] = stack.enter_context(checked_out(options.commit))
        quiet = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
        context = stack.enter_context(ray.init(num_cpus=SLOTS, _node_ip_address="127.0.0.1", **quiet))
        address = context.address_info["address"]
        print(HEAD)  # noqa: T201
        for search, typed in SEARCHES.items():
            for when, tree in trees.items():
                row = busy(tree, address, [*typed, f"n_trials={options.trials}"])
                print(f"| {search} | {when} | {row}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
