"""`mlflow.json`: what MLflow has of a run or of a sweep. The publisher writes it; everybody else only reads it."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from mnist_exp.disk import records
from mnist_exp.disk.files import read_json, write_json
from mnist_exp.disk.layout import Folder, State


@dataclass(kw_only=True)
class Tracked:
    """Where MLflow shows a run or a sweep."""

    experiment_id: str = ""
    """MLflow's id of its experiment."""
    run_id: str = ""
    """MLflow's id of the run; of a sweep: that of its parent run, if it has one."""
    page: str = ""
    """Address in MLflow, without the server's name."""
    registered: str = ""
    """URI of the version of a registered model that it, or the best run of the sweep, became."""


@final
@dataclass(kw_only=True)
class TrackedRun(Tracked):
    """How much of a run was sent, and where."""

    id: str = ""
    """The run's id in its ledger: the record does not count for another run in the same folder."""
    store: str = ""
    """URI of the store, without a password."""
    introduced: bool = False
    """Whether its params, its dataset and the files of its beginning were sent."""
    rows: int = 0
    """Epochs sent."""
    state: State = State.RUNNING
    """The state sent last."""
    figures: bool = False
    """Whether its learning curves were drawn."""
    model: str = ""
    """URI of the logged model."""
    pictures: dict[str, int] = field(default_factory=dict)
    """Pictures sent: name → time of writing, in nanoseconds."""

    def __post_init__(self) -> None:
        self.state = State(self.state)


def address(experiment_id: str, run_id: str) -> str:
    """Where MLflow shows a run, without the server's name."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def read(folder: Path) -> TrackedRun | None:
    """What MLflow has of the run in *folder*, and of a sweep where it shows it; None: nothing, or it is damaged."""
    try:
        return records.parse(TrackedRun, read_json(Folder(folder).tracked))
    except (OSError, ValueError, TypeError):
        return None


def write(folder: Path, record: Tracked) -> None:
    """Publishes *record* in *folder*, atomically, without the fields that have no value yet."""
    plain = {key: value for key, value in dataclasses.asdict(record).items() if value not in ("", {})}
    write_json(Folder(folder).tracked, plain)
