"""The files of a run's folder and of a sweep's folder, and the states of a run."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final, overload


@final
class State(enum.StrEnum):
    """The state of a run. A ledger holds one from `running` on; the first two are observed without one."""

    PLANNED = "planned"
    """It has no ledger: it was never started."""
    DAMAGED = "damaged"
    """Its ledger cannot be read."""
    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    """A search stopped it early."""
    FAILED = "failed"
    KILLED = "killed"
    """Its process died or was asked to stop; it can be resumed."""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train: it is not run again."""
        return self in (State.FINISHED, State.PRUNED)

    @property
    def lost(self) -> bool:
        """Whether it will not finish by itself."""
        return self in (State.FAILED, State.KILLED, State.DAMAGED)


@final
class Entry:
    """A file or folder with a fixed name: the name on the class, its path on a folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, folder: None, owner: Any) -> str: ...
    @overload
    def __get__(self, folder: "Folder", owner: Any) -> Path: ...
    def __get__(self, folder: "Folder | None", owner: Any) -> str | Path:
        return self.name if folder is None else folder.path / self.name


@dataclass(frozen=True)
class Folder:
    """The folder of a run or of a sweep: what both have."""

    path: Path

    lock = Entry(".lock")
    """Held by the process that trains the run, or runs the sweep."""
    tracked = Entry("mlflow.json")
    """What MLflow has of it; see `tracked`."""
    publishing = Entry(".mlflow.lock")
    """Held by the process that publishes it."""
    figures = Entry("figures")


@final
@dataclass(frozen=True)
class RunFolder(Folder):
    """The folder of a run. `RunFolder.ledger` is a name, `RunFolder(path).ledger` is a path."""

    ledger = Entry("ledger.json")
    """State and results; see `ledger`."""
    config = Entry("config.yaml")
    journal = Entry("metrics.jsonl")
    """One row per epoch; see `journal`."""
    lanes = Entry("pack.json")
    """Its pack record; see `lanes`."""
    checkpoints = Entry("checkpoints")
    weights = Entry("weights.safetensors")
    """The trained network."""
    model = Entry("model.pt2")
    """The trained network, ready to serve."""
    hits = Entry("hits.safetensors")
    """Which images it gets right; see `hits`."""
    difference = Entry("code.diff")
    """Uncommitted changes of the code."""
    log = Entry("train.log")
    environment = Entry("environment.txt")
    """Installed packages."""

    written_by_trainer = tuple(e.name for e in (config, difference, lanes, ledger, journal, weights, model, hits))
    """Files that the holder of `lock` writes."""
    written_by_publisher = (Folder.tracked, environment.name)


@final
@dataclass(frozen=True)
class SweepFolder(Folder):
    """The folder of a sweep; see `RunFolder`."""

    plan = Entry("sweep.json")
    """Its points; see `plan`."""
    study = Entry("study.json")
    """The settings of a search."""
    trials = Entry("optuna.journal")
    """The trials of a search, unless another storage keeps them."""
    config = Entry("multirun.yaml")
    board = Entry("leaderboard.csv")
    contenders = Entry("contenders.csv")
    """The points of a search that may be the best, for `search=points`."""
    table = Entry("runs.csv")
    page = Entry("report.html")
    jobs = Entry("slurm.json")
    """The ids of its jobs in Slurm."""

    written = (plan.name, study.name, page.name, "*.csv")
    """Files, as patterns, that the holder of `lock` writes."""

    def run(self, number: int) -> RunFolder:
        """The folder of the run of that number."""
        return RunFolder(self.path / str(number))


def is_sweep(folder: Path) -> bool:
    """Whether *folder* is that of a sweep."""
    return SweepFolder(folder).plan.is_file()


def holds_runs(folder: Path) -> bool:
    """Whether *folder* is that of a sweep or a run, or has runs in it."""
    patterns = (SweepFolder.plan, RunFolder.ledger, f"*/{RunFolder.ledger}")
    return any(next(folder.glob(pattern), None) for pattern in patterns)
