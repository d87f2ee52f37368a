"""A whole grid under a launcher that knows nothing of sweeps, in this process."""

import errno
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import pytest
from samples import TINY

from mnist_exp.config import Tracking
from mnist_exp.disk import ledger
from mnist_exp.disk.files import write_json
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import Interrupted, SweepError
from mnist_exp.report import board
from mnist_exp.run import one
from mnist_exp.sweep import reporter
from mnist_exp.sweep.reporter import SweepReporter

Command = Callable[..., tuple[int, str, str]]
AGAIN = ("-m", "hydra/launcher=basic", "hydra.sweeper.report=false")
HERE = (*AGAIN, *TINY, "epochs=1")


def home() -> Path:
    (folder,) = (path.parent for path in Path("outputs/sweeps").glob("*/*/sweep.json"))
    return folder


class Publisher:
    """Notes what is to be reported, and when it is waited for; only then MLflow has it."""

    def __init__(self, reported: list[str]) -> None:
        self.reported = reported
        self.folders: list[Path] = []

    def follow(self, folder: Path) -> None:
        entry = ledger.find(folder)
        self.folders.append(folder)
        self.reported.append(f"{folder.name} {entry.state if entry else 'planned'}")

    def sweep(self, folder: Path) -> None:
        self.reported.append("sweep")
        self.folders.append(folder)

    def finish(self) -> None:
        self.reported.append("finished")

    def close(self, kind: type[BaseException] | None) -> None:
        self.reported.append(f"sent after {kind.__name__}" if kind else "sent")
        for folder in filter(Path.exists, self.folders):
            write_json(folder / "mlflow.json", {"run_id": f"run-{folder.name}", "experiment_id": "1", "page": "#/view"})

    def where_to_look(self, folder: Path) -> list[str]:
        return [f"Look at {folder.name}."]


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was reported of a sweep."""
    notes: list[str] = []
    monkeypatch.setattr(reporter, "Publisher", lambda tracking: Publisher(notes))
    return notes


@pytest.mark.integration
def test_a_sweep_is_reported_whose_jobs_report_themselves(
    command: Command, reported: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one, "Publisher", MagicMock(**{"return_value.where_to_look.return_value": ["Look"]}))
    code, out, err = command(*HERE, "tracking=mlflow", "hidden=8,16")
    assert code == 0, err
    assert reported == ["0 finished", "1 finished", "sweep", "finished", "sent"]
    assert f"Look at {home().name}." in out
    assert set(pd.read_csv(home() / "runs.csv")["run_id"]) == {"run-0", "run-1"}


@pytest.mark.integration
@pytest.mark.parametrize(("lr", "code"), [("1e-3", 0), ("1e30", 1)], ids=["all finished", "one failed"])
def test_the_page_links_to_what_is_reported_last(
    lr: str, code: int, command: Command, reported: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one, "Publisher", MagicMock(**{"return_value.where_to_look.return_value": ["Look"]}))
    typed = (*HERE, "hydra.sweeper.report=true", "tracking=mlflow", f"lr={lr},3e-3")
    left, out, err = command(*typed)
    assert left == code, err
    assert reported.count("sent") == 1
    lines = out.splitlines()
    at = [next(i for i, line in enumerate(lines) if line.startswith(text)) for text in ("Sweep ", "lr ", "Report:")]
    assert at == sorted(at)
    assert lines[-1] == f"Look at {home().name}."
    page = (home() / "report.html").read_text()
    assert '<a href="http://127.0.0.1:5000/#/experiments/1/runs/run-1?' in page
    assert '<a href="http://127.0.0.1:5000/#/view">all runs of the sweep</a>' in page
    assert set(pd.read_csv(home() / "runs.csv")["run_id"]) == {"run-0", "run-1"}


@pytest.mark.parametrize("live", [True, False])
def test_the_last_runs_are_reported_while_pictures_are_drawn(live: bool, reported: list[str]) -> None:
    plan = Plan(id="sweep", typed=[], keys=[], points=[["hidden=8"]])
    with SweepReporter(plan, Path("sweep"), Tracking(), live) as sweep:
        reported.append("trained")
        sweep.finish()
        reported.append("drawn")
        sweep.wait()
        reported.append("page")
    order = ["trained", "0 planned", "sweep"] if not live else ["0 planned", "sweep", "trained"]
    assert reported == [*order, "finished", "drawn", "sent", "page"]


@pytest.mark.parametrize(("error", "shown"), [(SweepError("One failed."), True), (Interrupted("Stopped."), False)])
def test_a_sweep_that_goes_wrong_is_reported_too(
    error: Exception, shown: bool, reported: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(type(error)),
        SweepReporter(Plan(id="sweep", typed=[], keys=[]), Path("sweep"), Tracking(), live=False),
    ):
        raise error
    assert reported == ["sweep", f"sent after {type(error).__name__}"]
    assert ("Look at sweep." in capsys.readouterr().out) is shown


def test_without_tracking_nothing_is_reported(reported: list[str]) -> None:
    with SweepReporter(Plan(id="sweep", typed=[], keys=[]), Path("sweep"), Tracking(enabled=False), live=True) as sweep:
        sweep.follow(Path("sweep/0"))
        sweep.finish()
        sweep.wait()
    assert not reported


@pytest.mark.integration
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


def test_a_table_of_points_that_is_not_named_is_asked_for(command: Command) -> None:
    code, _, err = command(*HERE, "search=points")
    assert code == 2
    assert "search=points needs a table." in err
    assert "Name it: points=FILE.csv or points=FILE.yaml" in err


@pytest.mark.integration
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


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "that/file")


@pytest.mark.integration
def test_a_report_on_a_full_disk_is_a_warning_and_the_exit_code_that_of_the_runs(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "save", full)
    code, out, err = command("-m", *TINY, "seed=0,1", "hydra/launcher=basic", "hydra.sweeper.report=false")
    assert code == 0
    assert "2 runs (2 finished)" in out
    assert "The report cannot be written: that/file: No space left on device. Make room, then: python -m" in err


@pytest.mark.integration
@pytest.mark.parametrize(("writes", "expected"), [(0, 2), (1, 1)], ids=["before", "after"])
def test_a_full_disk_under_the_plan_says_how_to_go_on(
    writes: int, expected: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, times = Plan.write, list[Path]()

    def some(plan: Plan, folder: Path) -> None:
        times.append(folder)
        full() if len(times) > writes else write(plan, folder)

    monkeypatch.setattr(Plan, "write", some)
    code, _, err = command("-m", *TINY, "search=random", "n_trials=2", "hydra.sweeper.report=false")
    assert code == expected
    assert "that/file" in err
    assert ("Go on with:\n    python -m mnist_exp.train -m resume=" in err) == (writes > 0)
