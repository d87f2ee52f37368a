"""The MLflow store is where a bare `mlflow ui` looks, and made once however many come first."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_exp.config.stores import uri_for
from mnist_exp.errors import ExperimentError
from mnist_exp.results import query
from mnist_exp.tracking import store
from mnist_exp.tracking.store import Store, open_store

OPEN = "from mnist_exp.config.stores import *; from mnist_exp.tracking.store import *; "
OPEN += "print(open_store(uri_for(None), 'first').experiment_id)"


@pytest.mark.parametrize(
    ("configured", "variable", "expected"),
    [
        (None, None, "sqlite:///{cwd}/mlflow.db"),
        (None, "http://tracker:5000", "http://tracker:5000"),
        ("http://other", "http://tracker:5000", "http://other"),
        ("sqlite:///runs.db", "http://tracker:5000", "sqlite:///{cwd}/runs.db"),
        ("sqlite:////tmp/runs.db", None, "sqlite:////tmp/runs.db"),
        ("postgresql://db/mlflow", None, "postgresql://db/mlflow"),
    ],
)
def test_where_the_store_is(
    configured: str | None, variable: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    assert uri_for(configured) == expected.format(cwd=Path.cwd())


def test_an_experiment_keeps_its_files_beside_its_database(mlflow_store: Callable[[str], Store]) -> None:
    opened = mlflow_store("mine")
    experiment = opened.client.get_experiment_by_name("mine")
    assert experiment.artifact_location == (Path.cwd() / "mlruns" / "mine").as_uri()
    assert mlflow_store("mine").experiment_id == opened.experiment_id
    assert mlflow_store("yours").experiment_id != opened.experiment_id


def test_an_experiment_that_mlflow_ui_has_made_is_refused(mlflow_store: Callable[[str], Store]) -> None:
    """Only its server could store files there."""
    client = mlflow_store("mine").client
    client.create_experiment("theirs", artifact_location="mlflow-artifacts:/7")
    with pytest.raises(ExperimentError, match=r"'theirs' in .* was made by `mlflow ui` or a server") as caught:
        mlflow_store("theirs")
    assert "tracking.experiment=<name>" in caught.value.help


def test_a_damaged_database_is_named_and_a_locked_one_is_left_to_whoever_tries(store_template: Path) -> None:
    path = Path("mlflow.db").absolute()
    path.write_bytes(store_template.read_bytes()[:5000])
    with pytest.raises(ExperimentError, match=f"{path} is damaged: database disk image is malformed"):
        store.open_store(f"sqlite:///{path}", "mine")
    shutil.copyfile(store_template, path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        store.check_schema(path)  # says nothing


def test_a_failed_creation_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils

    def fail(engine: object) -> None:
        raise RuntimeError("killed in the middle")

    monkeypatch.setattr(utils, "_initialize_tables", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        store._create(Path("mlflow.db"))
    assert [path.name for path in Path().glob("*mlflow.db*")] == [".mlflow.db.lock"]


def test_leftovers_of_a_killed_creation_are_cleared(store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils

    stray = Path(".mlflow.db.4711.tmp-journal")
    stray.write_bytes(b"half")
    monkeypatch.setattr(utils, "_initialize_tables", lambda engine: engine.connect().close())
    store._create(Path("mlflow.db"))
    assert not stray.exists()
    assert Path("mlflow.db").exists()


def test_a_store_that_came_meanwhile_is_kept(store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlflow ui` takes no lock of ours: what it has made in the meantime wins."""
    from mlflow.store.db import utils

    def meanwhile(engine: object) -> None:
        Path("mlflow.db").write_bytes(store_template.read_bytes())

    monkeypatch.setattr(utils, "_initialize_tables", meanwhile)
    store._create(Path("mlflow.db"))
    assert Path("mlflow.db").read_bytes() == store_template.read_bytes()
    assert not list(Path().glob(".mlflow.db.*.tmp*"))


@pytest.mark.slow  # five processes import mlflow
def test_five_first_users_at_once_share_one_store() -> None:
    command = [sys.executable, "-c", OPEN]
    users = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(5)]
    said = [user.communicate(timeout=200) for user in users]
    assert [user.returncode for user in users] == [0] * 5, said
    assert len({out for out, _ in said}) == 1
    with sqlite3.connect("mlflow.db") as database:
        (names,) = zip(*database.execute("select name from experiments order by name"), strict=True)
    database.close()
    assert names == ("Default", "first")


def test_an_empty_file_becomes_a_store(scratch: Path) -> None:
    """Such as one that a kill has left, or `touch`."""
    Path("mlflow.db").touch()
    assert query.experiments(uri_for(None)) == {}
    opened = open_store(uri_for(None), "x")
    assert query.experiments(uri_for(None))["x"] == opened.experiment_id


def test_an_id_may_have_quotes(mlflow_store: Callable[[str], Store]) -> None:
    """A sweep's is the name of its folder, and that of a run from elsewhere may be anything."""
    opened, id = mlflow_store("x"), "it's\" or `a\\"
    assert opened.run_id(id) == ""
    made = opened.client.create_run(opened.experiment_id, tags=store.source(id))
    assert opened.run_id(id) == made.info.run_id
