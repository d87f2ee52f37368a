"""The MLflow store is where a bare `mlflow ui` looks, and made once however many come first."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest
from sqlalchemy import make_url

from mnist_exp import config
from mnist_exp.config import stores
from mnist_exp.config.stores import uri_for
from mnist_exp.errors import ConfigError, ExperimentError
from mnist_exp.results import query
from mnist_exp.tracking import database
from mnist_exp.tracking.store import Store, open_store, source

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
        ("sqlite:///a%3Fb/runs.db?timeout=9", None, "sqlite:///{cwd}/a%3Fb/runs.db?timeout=9"),
        ("sqlite+pysqlite:///runs.db", None, "sqlite+pysqlite:///{cwd}/runs.db"),
        ("postgresql://db/mlflow", None, "postgresql://db/mlflow"),
    ],
)
def test_where_the_store_is(
    configured: str | None, variable: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    assert uri_for(configured) == expected.format(cwd=Path.cwd())


@pytest.mark.parametrize(
    "uri",
    ["mlruns", "file:///srv/mlruns", "localhost:5000", "s3://bucket", "http://", "http://a b:5000", "sqlite://"],
)
@pytest.mark.parametrize("key", ["MLFLOW_TRACKING_URI", "--uri"])
def test_what_is_no_address_of_a_store_is_refused(uri: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if key == "MLFLOW_TRACKING_URI":
        monkeypatch.setenv(key, uri)
        with pytest.raises(ConfigError, match=f"^{key} must be the address of an MLflow store, but got '{uri}'"):
            config.compose()  # before training
        assert config.compose(["tracking=off"])
    else:
        with pytest.raises(ConfigError, match=f"^{key} must be"):
            uri_for(uri, key)


def test_a_password_in_a_wrong_address_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        uri_for("ftp://me:hunter22@host/x")
    assert "hunter22" not in str(refused.value)


def test_a_folder_may_be_called_anything(store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "a?b%20c#d"
    Path(folder).mkdir()
    monkeypatch.chdir(folder)
    assert stores.database(uri_for(None)) == Path("mlflow.db").absolute()
    shutil.copyfile(store_template, "mlflow.db")
    opened = open_store(uri_for(None), "mine")
    run = opened.client.create_run(opened.experiment_id)
    opened.client.log_text(run.info.run_id, "text", "file.txt")
    assert len(list(Path("mlruns").rglob("file.txt"))) == 1
    assert [path.name for path in Path("..").iterdir()] == [folder]


def test_the_experiment_may_be_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.compose().tracking.experiment == "mnist_exp"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "digits")
    assert config.compose().tracking.experiment == "digits"
    assert config.compose(["tracking.experiment=mine"]).tracking.experiment == "mine"


@pytest.mark.integration
def test_a_deleted_experiment_is_named_with_the_ways_out(mlflow_store: Callable[[str], Store]) -> None:
    opened = mlflow_store("mine")
    opened.client.delete_experiment(opened.experiment_id)
    with pytest.raises(ExperimentError, match=r"'mine' in .* was deleted") as caught:
        mlflow_store("mine")
    assert f"mlflow experiments restore -x {opened.experiment_id}, or choose another" in caught.value.help


@pytest.mark.integration
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


@pytest.mark.integration
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
    made = opened.client.create_run(opened.experiment_id, tags=source(id))
    assert opened.run_id(id) == made.info.run_id


def test_a_database_on_windows_has_the_address_that_libraries_read() -> None:
    address = stores.in_file(PureWindowsPath(r"C:\my runs\mlflow.db"))
    assert address == "sqlite:///C:/my runs/mlflow.db"
    assert make_url(address).database == "C:/my runs/mlflow.db"
    assert PureWindowsPath(str(stores.database(address))) == PureWindowsPath(r"C:\my runs\mlflow.db")


def test_files_on_windows_have_the_address_that_libraries_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    experiment = SimpleNamespace(experiment_id="1", lifecycle_stage="active")
    client = SimpleNamespace(
        get_experiment_by_name=lambda name: experiment if made else None,
        create_experiment=lambda name, artifact_location: made.append(artifact_location),
    )
    monkeypatch.setattr(stores, "database", lambda uri: PureWindowsPath(r"C:\my runs\mlflow.db"))
    for looks in ("make", "check", "settle", "check_schema"):
        monkeypatch.setattr(database, looks, lambda *_: None)
    monkeypatch.setattr("mlflow.MlflowClient", lambda address: client)
    monkeypatch.setattr("mlflow.set_tracking_uri", lambda address: None)
    open_store("sqlite:///C:/my runs/mlflow.db", "mine")
    assert made == ["file:///C:/my%20runs/mlruns/mine"]
    monkeypatch.setattr("urllib.request.url2pathname", {"/C:/my%20runs/mlruns": "there"}.get)
    assert stores.path_of("file:///C:/my%20runs/mlruns") == Path("there"), "not cut by hand"
