"""Sweeps and searches for the tests of every launcher: eight points, one of which is killed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hooks import held
from kit import wait_for
from samples import once

from mnist_exp.disk import journal, ledger
from mnist_exp.search import study as studies
from mnist_exp.tracking.store import open_store

GRID = ("hidden=8,16,24,32", "lr=1e-3,3e-3")
SIZE = ("data=synthetic", "data.train_images=6000", "epochs=40", "threads=1", "tracking.patience=200")
EPOCHS, POINTS, VICTIM = 40, 8, 3
# Rates from useless to good: some trials are pruned after 1 or 3 epochs, the best one is not.
SEARCH = ("search=asha", "n_trials=8", "hydra.sweeper.batch=4", "hidden=8", "lr=tag(log,interval(1e-6,1e-1))")
SEARCH += ("data=synthetic", "data.train_images=2000", "epochs=9", "threads=1", "tracking.patience=200")
LONG_SEARCH = (*SEARCH, "data.train_images=20000", "epochs=27")  # long enough to be killed

STATES = {"COMPLETE": ("finished", "FINISHED"), "PRUNED": ("pruned", "KILLED"), "FAIL": ("killed", "KILLED")}
"""A trial's state → its run's state in the ledger and in MLflow; a kill is the only failure here."""


def command(*arguments: str) -> list[str]:
    """The command line of a sweep."""
    return [sys.executable, "-m", "mnist_exp.train", *once("-m", *arguments)]


def run(folder: Path, *arguments: str, kill: bool = False) -> "subprocess.CompletedProcess[str]":
    """Runs a sweep in *folder*, which it creates if necessary; *kill*: kills one of its jobs during training."""
    folder.mkdir(exist_ok=True)
    with killing_one(folder) if kill else contextlib.nullcontext({}) as hold:
        environ = {**os.environ, **hold}
        return subprocess.run(command(*arguments), cwd=folder, env=environ, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def killing_one(folder: Path) -> Iterator[dict[str, str]]:
    """Sends SIGKILL to the process of job `VICTIM` after two epochs; yields the environment of the sweep."""

    def kill() -> None:
        wait_for(lambda: reached(folder, VICTIM) == 2, "the victim trains")
        os.kill(ledger.read(home(folder) / str(VICTIM)).pid, signal.SIGKILL)
        (folder / "held").unlink()

    killer = threading.Thread(target=kill)
    with held(folder / "held", str(VICTIM)) as hold:
        killer.start()
        yield hold
        killer.join()


def abandon(folder: Path, driver: "subprocess.Popen[str]") -> int:
    """Kills a job of a search after some epochs, then the driver; returns the number of the job."""
    while True:
        assert driver.poll() is None, "the search ended before a job could be killed"
        for path in folder.glob("outputs/sweeps/*/*/*/ledger.json"):
            entry = ledger.read(path.parent)
            if entry.state == "running" and entry.epoch > 3:
                os.kill(entry.pid, signal.SIGKILL)
                driver.kill()
                driver.communicate()
                return int(path.parent.name)
        time.sleep(0.02)


def home(folder: Path) -> Path:
    """The only sweep in *folder*."""
    (sweep,) = (path.parent for path in folder.glob("outputs/sweeps/*/*/sweep.json"))
    return sweep


def states(folder: Path) -> list[str]:
    """The state of each point, or `never started`."""
    outcomes = []
    for number in range(POINTS):
        outcomes.append("never started")
        with contextlib.suppress(Exception):
            outcomes[-1] = ledger.read(home(folder) / str(number)).state
    return outcomes


def results(folder: Path) -> dict[int, float]:
    """The last test loss of each finished point; it depends on every bit of the training."""
    entries = {number: ledger.read(home(folder) / str(number)) for number in range(POINTS)}
    return {n: entry.summary["final/test_loss"] for n, entry in entries.items() if entry.state == "finished"}


def reached(folder: Path, number: int = 0) -> int:
    """Trained epochs of a point."""
    with contextlib.suppress(Exception):
        return ledger.read(home(folder) / str(number)).epoch
    return 0


def epochs(folder: Path, number: int) -> list[int]:
    """The epochs in a point's journal."""
    return [row["epoch"] for row in journal.read(home(folder) / str(number))]


def tracked(folder: Path) -> Counter[str]:
    """The number of runs by status in the folder's MLflow store; asserts that it has each epoch once."""
    store = open_store(f"sqlite:///{folder / 'mlflow.db'}", "mnist_exp")
    runs = store.client.search_runs([store.experiment_id])
    for run in runs:
        steps = [m.step for m in store.client.get_metric_history(run.info.run_id, "train/loss")]
        assert sorted(steps) == list(range(1, len(steps) + 1))
    return Counter(run.info.status for run in runs)


def ends(folder: Path) -> Counter[str]:
    """The number of trials by state of the only search in *folder*.

    Asserts that study, ledger, journal and MLflow agree on each trial, and on the epoch after which it was pruned.
    """
    studies.storage.cache_clear()
    store = open_store(f"sqlite:///{folder / 'mlflow.db'}", "mnist_exp")
    runs = {run.data.tags["run.id"]: run for run in store.client.search_runs([store.experiment_id])}
    trials = studies.join(home(folder)).trials
    for trial in trials:
        entry = ledger.read(home(folder) / str(trial.number))
        run = runs.pop(entry.id)
        assert (entry.state, run.info.status) == STATES[trial.state.name]
        assert (run.data.tags["state"], run.data.tags.get("reason", "")) == (entry.state, entry.reason)
        if entry.state == "pruned":
            assert entry.reason == f"Pruned after epoch {entry.epoch} of {entry.epochs}."
            assert entry.epoch < entry.epochs
        reached = list(range(1, entry.epoch + 1))
        assert epochs(folder, trial.number) == sorted(trial.intermediate_values) == reached
        steps = [m.step for m in store.client.get_metric_history(run.info.run_id, "train/loss")]
        assert sorted(steps) == reached
    assert not runs
    return Counter(trial.state.name for trial in trials)


def prunes(folder: Path, *arguments: str) -> None:
    """Runs a search; asserts the states of its trials, and that the display shows each pruned one."""
    done = run(folder, *SEARCH, *arguments)
    assert done.returncode == 0, done.stderr
    counts = ends(folder)
    assert set(counts) == {"COMPLETE", "PRUNED"}
    assert counts.total() == 8
    shown = re.findall(r"^\[\d/8\] lr=\S+  Pruned after epoch [13] of 9\.", done.stdout, re.M)
    assert len(shown) == counts["PRUNED"]


@contextlib.contextmanager
def beside_a_slow_trial(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """The driver of a search of four trials, two at a time, when three have ended: the first goes on until the end."""
    points = "epochs=3 lr=1e-3;epochs=1 lr=1e-3;epochs=1 lr=2e-3;epochs=1 lr=3e-3"
    typed = ("search=tpe", "pruner=none", "n_trials=4", "hydra.sweeper.batch=2", f'enqueue="{points}"')
    typed += ("epochs=1,3", "lr=interval(1e-3,3e-3)", "hidden=8", "data=synthetic", "threads=1", *arguments)
    with held(folder / "held") as hold:
        driver = subprocess.Popen(
            command(*typed),
            cwd=folder,
            env={**os.environ, **hold},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_for(
                lambda: driver.poll() is not None or states(folder)[1:4] == ["finished"] * 3, "the others have ended"
            )
            assert states(folder)[0] == "running", driver.communicate()[0]
            yield driver
        finally:
            driver.kill()


def killed_and_resumed(folder: Path, *arguments: str, resume: Sequence[str] = ()) -> None:
    """Kills worker and driver of a search, resumes it, and asserts that nothing is lost or repeated."""
    folder.mkdir(exist_ok=True)
    driver = subprocess.Popen(command(*LONG_SEARCH, *arguments), cwd=folder, stdout=subprocess.PIPE, text=True)
    killed = abandon(folder, driver)
    done = run(folder, "resume=last", *resume)
    assert done.returncode == 0, done.stderr
    counts = ends(folder)
    assert counts["COMPLETE"] + counts["PRUNED"] == counts.total() == 8
    assert ledger.read(home(folder) / str(killed)).state == "finished"
    drawn = [tuple(sorted(trial.params.items())) for trial in studies.join(home(folder)).trials]
    assert len(set(drawn)) == 8
