"""The sweep that every launcher has to get through: eight points, one of which is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from mnist_exp import journal, ledger
from mnist_exp.tracking.store import open_store

GRID = ("hidden=8,16,24,32", "lr=1e-3,3e-3")
SIZE = ("data=synthetic", "data.train_images=6000", "epochs=40", "threads=1", "tracking.patience=200")
EPOCHS, POINTS, VICTIM = 40, 8, 3


def command(*arguments: str) -> list[str]:
    """A sweep."""
    return [sys.executable, "-m", "mnist_exp.train", "-m", *arguments]


def run(folder: Path, *arguments: str, kill: bool = False) -> "subprocess.CompletedProcess[str]":
    """Runs a sweep in *folder*, which it may have to make; *kill*: one of its jobs is killed as soon as it trains."""
    folder.mkdir(exist_ok=True)
    killer = threading.Thread(target=kill_one, args=(folder,))
    if kill:
        killer.start()
    done = subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, check=False)
    if kill:
        killer.join()
    return done


def kill_one(folder: Path, seconds: float = 200) -> None:
    """Sends SIGKILL to the process of job `VICTIM` once it has finished some epochs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for path in folder.glob(f"outputs/sweeps/*/*/{VICTIM}/ledger.json"):
            entry = ledger.read(path.parent)
            if 3 <= entry.epoch < EPOCHS - 3:
                os.kill(entry.pid, signal.SIGKILL)
                return
        time.sleep(0.02)


def home(folder: Path) -> Path:
    """The only sweep in *folder*."""
    (found,) = (path.parent for path in folder.glob("outputs/sweeps/*/*/sweep.json"))
    return found


def states(folder: Path) -> list[str]:
    """What became of each point."""
    found = []
    for number in range(POINTS):
        found.append("never started")
        with contextlib.suppress(Exception):
            found[-1] = ledger.read(home(folder) / str(number)).state
    return found


def results(folder: Path) -> dict[int, float]:
    """The last test loss of each finished point: equal only where all arithmetic was."""
    entries = {number: ledger.read(home(folder) / str(number)) for number in range(POINTS)}
    return {n: entry.summary["final/test_loss"] for n, entry in entries.items() if entry.state == "finished"}


def epochs(folder: Path, number: int) -> list[int]:
    """The epochs in a point's journal."""
    return [row["epoch"] for row in journal.read(home(folder) / str(number))]


def tracked(folder: Path) -> Counter[str]:
    """How many runs have which status in the folder's own MLflow store; asserts that each epoch is there once."""
    store = open_store(f"sqlite:///{folder / 'mlflow.db'}", "mnist_exp")
    runs = store.client.search_runs([store.experiment_id])
    for found in runs:
        steps = [m.step for m in store.client.get_metric_history(found.info.run_id, "train/loss")]
        assert sorted(steps) == list(range(1, len(steps) + 1))
    return Counter(found.info.status for found in runs)
