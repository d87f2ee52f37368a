"""What lies where: the files of a run's folder and of a sweep's folder, and the states that a run can be in."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final, overload


@final
class State(enum.StrEnum):
    """How a run stands. The ledger stores those from `running` on; the first two are seen from outside."""

    PLANNED = "planned"
    """It has no ledger: it was never started."""
    DAMAGED = "damaged"
    """Its ledger cannot be read."""
    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    """A search has given it up early."""
    FAILED = "failed"
    KILLED = "killed"
    """Its process died or was told to stop; it can be resumed."""

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
    def __get__(self, folder: "RunFolder | SweepFolder", owner: Any) -> Path: ...
    def __get__(self, folder: "RunFolder | SweepFolder | None", owner: Any) -> str | Path:
        return self.name if folder is None else folder.path / self.name


@final
@dataclass(frozen=True)
class RunFolder:
    """The folder of a run. `RunFolder.ledger` is a name, `RunFolder(path).ledger` is a path."""

    path: Path

    ledger = Entry("ledger.json")
    """How the run stands; see `ledger`."""
    config = Entry("config.yaml")
    journal = Entry("metrics.jsonl")
    """A row for each epoch; see `journal`."""
    lanes = Entry("pack.json")
    """With which runs it trains together; see `lanes`."""
    checkpoints = Entry("checkpoints")
    weights = Entry("weights.safetensors")
    """The trained network."""
    model = Entry("model.pt2")
    """The trained network, ready to serve."""
    difference = Entry("code.diff")
    """What the code had beside its commit."""
    figures = Entry("figures")
    log = Entry("train.log")
    tracked = Entry("mlflow.json")
    """What MLflow has of it."""
    environment = Entry("environment.txt")


@final
@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep; see `RunFolder`."""

    path: Path

    plan = Entry("sweep.json")
    """What it consists of; see `plan`."""
    study = Entry("study.json")
    """How a search searches."""
    config = Entry("multirun.yaml")
    board = Entry("leaderboard.csv")
    table = Entry("runs.csv")
    page = Entry("report.html")
    figures = Entry("figures")
    jobs = Entry("slurm.json")
    """Which job has which id in Slurm."""
    tracked = Entry("mlflow.json")

    def run(self, number: int) -> RunFolder:
        """The folder of the run of that number."""
        return RunFolder(self.path / str(number))
