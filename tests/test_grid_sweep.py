"""A whole grid under a launcher that knows nothing of sweeps, in this process."""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from conftest import TINY

from mnist_exp import ledger, single
from mnist_exp.sweep import grid

Command = Callable[..., tuple[int, str, str]]
AGAIN = ("-m", "hydra/launcher=basic", "hydra.sweeper.report=false")
HERE = (*AGAIN, *TINY, "epochs=1")


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


def test_without_a_page_the_tables_are_written_all_the_same(command: Command) -> None:
    code, _, err = command(*HERE, "hidden=8,16")
    assert code == 0, err
    assert {path.name for path in home().glob("*.*")} >= {"leaderboard.csv", "runs.csv"}
    assert not (home() / "report.html").exists()


def test_the_folders_of_runs_cannot_have_other_names(command: Command) -> None:
    code, _, err = command(*HERE, "hidden=8,16", "hydra.sweep.subdir=${hidden}")
    assert code == 2
    assert "hydra.sweep.subdir cannot be set" in err
    assert not Path("outputs").exists()


def test_a_damaged_run_is_named_and_costs_only_itself(command: Command) -> None:
    assert command(*HERE, "hidden=8,16,32")[0] == 0
    ledgers = [home() / str(number) / "ledger.json" for number in range(3)]
    ledgers[0].write_text("{")
    ledgers[2].unlink()
    code, out, err = command(*AGAIN, "resume=last")
    assert code == 1
    assert "1 damaged" in out
    assert "1 of 3 runs did not finish:\n  #0 hidden=8: " in err
    assert f"{ledgers[0]} is damaged" in err
    assert "Delete that file: resumed, the run goes on from its last epoch." in err
    assert ledger.read(ledgers[2].parent).state == "finished"  # it went on
    ledgers[0].unlink()
    assert command(*AGAIN, "resume=last")[0] == 0
    assert ledger.read(ledgers[0].parent).epoch == 1
