"""A store in a file is made whole or not at all, and says what is wrong with it without mlflow."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnist_exp.config.stores import in_file
from mnist_exp.errors import ExperimentError
from mnist_exp.tracking import database, store


def test_a_damaged_database_is_named_and_a_locked_one_is_left_to_whoever_tries(store_template: Path) -> None:
    path = Path("mlflow.db").absolute()
    path.write_bytes(store_template.read_bytes()[:5000])
    with pytest.raises(ExperimentError, match=f"{path} is damaged: database disk image is malformed"):
        store.open_store(f"sqlite:///{path}", "mine")
    shutil.copyfile(store_template, path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        database.check_schema(path)  # says nothing


def test_a_failed_creation_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils

    def fail(engine: object) -> None:
        raise RuntimeError("killed in the middle")

    monkeypatch.setattr(utils, "_initialize_tables", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        database.make(Path("mlflow.db"))
    assert [path.name for path in Path().glob("*mlflow.db*")] == [".mlflow.db.lock"]


def test_leftovers_of_a_killed_creation_are_cleared(store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils

    stray = Path(".mlflow.db.4711.tmp-journal")
    stray.write_bytes(b"half")
    monkeypatch.setattr(utils, "_initialize_tables", lambda engine: engine.connect().close())
    database.make(Path("mlflow.db"))
    assert not stray.exists()
    assert Path("mlflow.db").exists()


def test_a_store_that_came_meanwhile_is_kept(store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlflow ui` takes no lock of ours: what it has made in the meantime wins."""
    from mlflow.store.db import utils

    def meanwhile(engine: Any) -> None:
        engine.connect().close()
        Path("mlflow.db").write_bytes(store_template.read_bytes())

    monkeypatch.setattr(utils, "_initialize_tables", meanwhile)
    database.make(Path("mlflow.db"))
    assert Path("mlflow.db").read_bytes() == store_template.read_bytes()
    assert not list(Path().glob(".mlflow.db.*.tmp*"))


@pytest.mark.parametrize("left", ["copied", "moved"])
def test_a_project_that_was_moved_keeps_its_files_where_it_is_now(
    left: str, store_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the runs that it brought along, too; a copy leaves the original as it was."""
    Path("old").mkdir()
    shutil.copyfile(store_template, "old/mlflow.db")
    before = store.open_store(in_file(Path("old/mlflow.db").absolute()), "mine")
    run_id = before.client.create_run(before.experiment_id).info.run_id
    before.client.log_text(run_id, "text", "file.txt")
    shutil.copytree("old", "new") if left == "copied" else Path("old").rename("new")
    file = Path("new/mlflow.db").absolute()
    old, new = database.moved(file, "mine")
    assert (old, new) == tuple((Path.cwd() / name / "mlruns/mine").as_uri() for name in ("old", "new"))
    after = store.open_store(in_file(file), "mine")
    assert database.moved(file, "mine") == ("", "")
    assert after.client.get_run(run_id).info.artifact_uri == f"{new}/{run_id}/artifacts"
    later = after.client.create_run(after.experiment_id).info.run_id
    after.client.log_text(later, "text", "file.txt")
    assert Path("new/mlruns/mine", later, "artifacts/file.txt").exists()
    assert Path("old").exists() is (left == "copied")
    if left == "copied":
        assert before.client.get_run(run_id).info.artifact_uri == f"{old}/{run_id}/artifacts"
        assert database.moved(Path("old/mlflow.db").absolute(), "mine") == ("", "")


@pytest.mark.parametrize("where", ["/srv/artifacts/mine", "s3://bucket/mlruns/mine", "file:///srv/files/mlruns/theirs"])
def test_files_that_were_put_elsewhere_on_purpose_stay_there(where: str, mlflow_store: Callable[[str], Any]) -> None:
    mlflow_store("other").client.create_experiment("mine", artifact_location=where)
    assert database.moved(Path("mlflow.db").absolute(), "mine") == ("", "")


@pytest.mark.integration
def test_a_database_without_anything_in_it_is_made_anew() -> None:
    Path("mlflow.db").touch()
    store.open_store(in_file(Path("mlflow.db").absolute()), "mine")
    assert sorted(path.name for path in Path().iterdir()) == [".mlflow.db.lock", "mlflow.db"]


@pytest.mark.parametrize("version", ["", "451aebb31d03"])
def test_a_store_whose_maker_was_killed_is_not_to_be_upgraded(version: str) -> None:
    """A table is there and its version is not, or the other way round: `mlflow db upgrade` fails in one case of two."""
    path = Path("mlflow.db").absolute()
    with contextlib.closing(sqlite3.connect(path)) as half, half:
        half.execute("CREATE TABLE runs (run_uuid TEXT)")
        half.execute("CREATE TABLE alembic_version (version_num TEXT)")
        if version:
            half.execute("INSERT INTO alembic_version VALUES (?)", (version,))
    with pytest.raises(ExperimentError, match="has schema" if version else "has no complete schema") as caught:
        database.check_schema(path)
    assert caught.value.help == f"It has no runs; if no program is making it just now: rm {path}"
    with contextlib.closing(sqlite3.connect(path)) as half, half:
        half.execute("INSERT INTO runs VALUES ('abc')")
    with pytest.raises(ExperimentError) as caught:
        database.check_schema(path)
    assert "mlflow db upgrade" in caught.value.help


def test_a_read_only_store_is_named(store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExperimentError, match="unable to open database file") as caught:
        database.check(Path("missing.db").absolute(), "mine")
    assert "chmod u+w" in caught.value.help
