"""This checkout against an earlier commit: whole commands that take turns, and whether their losses are equal.

    python -m benchmarks.versus 0744662

The commit is checked out beside this one for the while. Both run in this environment, each job on one thread, on the
real MNIST in the user's cache: neither libraries nor images differ.
"""

import argparse
import contextlib
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import table
from benchmarks.measure import ROOT, Benchmark, Contender, compare, processor_seconds

ROUNDS = 5
PLAIN = ["threads=1", "tracking=off", "checkpoint.model=false"]
COMMANDS = {
    "start-up: --cfg job": ["--cfg", "job"],
    "a run: 784-128-10, 3 epochs": ["epochs=3", *PLAIN],
    "a run: small_cnn, 1 epoch": ["model=small_cnn", "hidden=null", "augment=shift", "epochs=1", *PLAIN],
    "a grid: 2 × 2, 2 epochs": ["-m", "hidden=64,128", "lr=1e-3,3e-3", "epochs=2", *PLAIN],
}
LOSSES = ("train/loss", "val/loss", "test/loss")


def contender(tree: Path, typed: Sequence[str], folder: Path) -> Contender:
    """Runs a command of the checkout *tree* in *folder*; costs processor seconds."""
    command = ["-m", "mnist_exp.train", *typed]
    return functools.partial(processor_seconds, command, folder, {"PYTHONPATH": str(tree)})


def losses(folder: Path) -> set[tuple[object, ...]]:
    """The losses of each epoch that was trained in *folder*, to the last bit; the same from each repetition."""
    rows = [json.loads(line) for path in folder.rglob("metrics.jsonl") for line in path.read_text().splitlines()]
    return {(row["epoch"], *(row["metrics"].get(name) for name in LOSSES)) for row in rows}


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """While it lasts, *commit* is checked out in the folder that it yields."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def main() -> None:
    """Prints the table; exits with 1 where a loss differs."""
    parser = argparse.ArgumentParser("versus")
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    typed = parser.parse_args()
    cases, differ = [], []
    with tempfile.TemporaryDirectory() as scratch, checked_out(typed.commit) as earlier:
        for number, (label, command) in enumerate(COMMANDS.items()):
            folders = {name: Path(scratch, f"{name}{number}") for name in ("now", "then")}
            for folder in folders.values():
                folder.mkdir()
            trees = {"now": ROOT, "then": earlier}
            sides = {name: contender(trees[name], command, folder) for name, folder in folders.items()}
            cases.append(compare(label, sides, typed.rounds, [("now", "then")]))
            if losses(folders["now"]) != losses(folders["then"]):
                differ.append(label)
    notes = [f"`then` is {typed.commit}", "losses differ: " + ", ".join(differ) if differ else "all losses are equal"]
    table.finish(Benchmark("versus", "Before and after", "s", cases, notes), kept=False)
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
