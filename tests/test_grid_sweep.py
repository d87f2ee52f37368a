"""A whole grid under a launcher that knows nothing of sweeps, in this process."""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from conftest import TINY

from mnist_exp import ledger, single
from mnist_exp.sweep import grid

Command = Callable[..., tuple[int, str, str]]
HERE = ("-m", *TINY, "epochs=1", "hydra/launcher=basic", "hydra.sweeper.report=false")


def home() -> Path:
    (found,) = (path.parent for path in Path("outputs/sweeps").glob("*/*/sweep.json"))
    return found


def test_mlflow_is_told_of_a_sweep_whose_jobs_tell_of_themselves(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Courier:
        def __init__(self, tracking: object) -> None:
            pass

        def follow(self, folder: Path) -> None:
            told.append(f"{folder.name} {ledger.read(folder).state}")

        def sweep(self, folder: Path) -> None:
            told.append("sweep")

        def close(self, patience: float) -> None:
            told.append("sent")

        def where_to_look(self, folder: Path) -> str:
            return f"Look at {folder.name}."

    monkeypatch.setattr(grid, "Courier", Courier)
    monkeypatch.setattr(single, "Courier", MagicMock(**{"return_value.where_to_look.return_value": "Look at the run."}))
    code, out, err = command(*HERE, "tracking=mlflow", "hidden=8,16")
    assert code == 0, err
    assert told == ["0 finished", "1 finished", "sweep", "sent"]
    assert f"Look at {home().name}." in out
