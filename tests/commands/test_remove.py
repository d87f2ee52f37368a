"""What is deleted is what was asked for, here and in MLflow, and nothing without --yes."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trainings
from report_fixtures import make_run, make_sweep

from mnist_exp import remove
from mnist_exp.config import Config
from mnist_exp.disk import ledger, plan
from mnist_exp.disk.layout import RunFolder
from mnist_exp.errors import BusyError, ConfigError, ExperimentError
from mnist_exp.tracking.runs import publish
from mnist_exp.tracking.store import open_store

Tiny = Callable[..., Config]
DAY = 24 * 3600 * 1000


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A sweep of three settings, the second best with two seeds, and two single runs."""
    monkeypatch.chdir(tmp_path)
    points = [[f"hidden={width}", f"seed={seed}"] for width, seed in ((16, 0), (32, 0), (32, 1), (64, 0))]
    sweep = make_sweep(Path("outputs"), points)
    folders = {"sweep": sweep}
    for number, (name, accuracy) in enumerate({"worst": 0.90, "good": 0.95, "good too": 0.95, "best": 0.97}.items()):
        folders[name] = make_run(sweep / str(number), points[number], accuracy)
    now = time.time_ns() // 1_000_000
    for name, state in (("failed", "failed"), ("single", "finished")):
        folders[name] = make_run(Path("outputs/runs/2026-01-31") / name, ["hidden=8"], 0.5, state=state)
        entry = ledger.read(folders[name])
        entry.ended_ms = now
        entry.write(folders[name])
    for name in ("worst", "failed", "single"):
        (folders[name] / "checkpoints").mkdir()
        (folders[name] / "checkpoints/last-0003-abc.pt").write_bytes(b"x" * 1000)
    return folders


def left(runs: dict[str, Path]) -> set[str]:
    return {name for name, folder in runs.items() if folder.exists()}


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["--failed"], ["failed"]),
        (["--keep", "1"], ["worst", "good", "good too"]),
        (["--keep", "2"], ["worst"]),
        (["--older", "1"], ["sweep", "worst", "good", "good too", "best"]),
        (["--older", "1", "--keep", "2"], ["worst"]),
        (["last"], ["sweep", "worst", "good", "good too", "best"]),
        (["last", "--failed"], []),
        (["outputs/runs/2026-01-31/single"], ["single"]),
    ],
    ids=" ".join,
)
def test_what_every_option_applies_to_is_deleted(arguments: list[str], gone: list[str], runs: dict[str, Path]) -> None:
    remove.main(arguments)
    assert left(runs) == runs.keys()  # without --yes
    remove.main([*arguments, "--yes"])
    assert left(runs) == runs.keys() - set(gone)


def test_a_dry_run_is_what_it_does_anyway_and_excludes_yes(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    remove.main(["--failed"])
    out = capsys.readouterr().out
    remove.main(["--failed", "--dry-run"])
    assert capsys.readouterr().out == out
    with pytest.raises(SystemExit, match="2"):
        remove.main(["--failed", "--dry-run", "--yes"])
    assert "not allowed with argument" in capsys.readouterr().err
    assert left(runs) == runs.keys()


def test_only_finished_runs_lose_their_checkpoints(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    remove.main(["--checkpoints", "--yes"])
    assert left(runs) == runs.keys()
    assert {name for name in runs if (runs[name] / "checkpoints").exists()} == {"failed"}
    assert "Deletes outputs/runs/2026-01-31/single/checkpoints  hidden=8 (finished)" in capsys.readouterr().out


def test_what_is_being_trained_is_refused_by_name_and_passed_over_without(runs: dict[str, Path]) -> None:
    """A sweep's finished runs belong to it until it has ended; `--checkpoints` takes nothing that it needs."""
    with plan.hold(runs["sweep"]):
        for arguments in (["last", "--yes"], ["last", "--keep", "1"]):
            with pytest.raises(BusyError, match="is in use: its process trains"):
                remove.main(arguments)
        remove.main(["--keep", "1", "--yes"])
        assert left(runs) == set(runs)
        remove.main(["last", "--checkpoints", "--yes"])
        assert not (runs["worst"] / "checkpoints").exists()


def test_a_run_that_is_held_is_left_and_said(runs: dict[str, Path]) -> None:
    with ledger.hold(runs["failed"]):
        with pytest.raises(ExperimentError, match="is being trained by"):
            remove.main(["--failed", "--yes"])
        assert runs["failed"].exists()


@pytest.mark.parametrize("arguments", [[], ["--yes"], ["--keep", "0"]], ids=" ".join)
def test_without_a_choice_nothing_is_deleted(arguments: list[str], runs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError):
        remove.main([*arguments, "--yes"])
    assert left(runs) == runs.keys()


@pytest.mark.integration
def test_a_run_goes_from_mlflow_too_unless_it_is_in_another_store(
    tiny: Tiny, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("outputs/runs/2026-01-31/10-00-00-abcdef")
    trainings.run(tiny(tracking={"enabled": True}), folder)
    store = open_store(f"sqlite:///{scratch}/mlflow.db", "mnist_exp")
    publish(folder, store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{scratch}/other.db")
    with pytest.raises(ExperimentError, match="another store"):
        remove.main(["last", "--yes"])
    assert RunFolder(folder).ledger.exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    before: Any = store.client.search_runs([store.experiment_id])
    remove.main(["last", "--yes"])
    assert len(before) == 1
    assert store.client.search_runs([store.experiment_id]) == []
    assert not folder.exists()


@pytest.mark.integration
def test_what_a_folder_from_elsewhere_names_in_mlflow_stays_there(
    tiny: Tiny, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy names the entry of the original."""
    folder = Path("outputs/runs/2026-01-31/10-00-00-abcdef")
    trainings.run(tiny(tracking={"enabled": True}), folder)
    store = open_store(f"sqlite:///{scratch}/mlflow.db", "mnist_exp")
    publish(folder, store)
    shutil.copytree(folder, "theirs")
    remove.main(["theirs", "--yes"])
    assert not Path("theirs").exists()
    assert len(store.client.search_runs([store.experiment_id])) == 1
    assert "theirs is outside of outputs/: what MLflow has of it stays there." in capsys.readouterr().out
