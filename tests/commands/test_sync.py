"""`python -m mnist_exp.sync`: what an outage left behind reaches MLflow, once."""

import contextlib
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import trainings

from mnist_exp import sync
from mnist_exp.config import Config
from mnist_exp.disk import journal, ledger
from mnist_exp.disk.files import read_json
from mnist_exp.tracking.runs import publish
from mnist_exp.tracking.store import Store, open_store

Sync = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty store, made once: it takes a second."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_store(f"sqlite:///{path}", "none")
    mlflow.set_tracking_uri(None)
    return str(path)


@pytest.fixture
def store(database: str, scratch: Path) -> Store:
    """The store that a plain `sync` in the working directory finds."""
    path = scratch / "mlflow.db"
    path.write_bytes(Path(database).read_bytes())
    return open_store(f"sqlite:///{path}", "mnist_exp")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sync:
    """`command("outputs")`: exit code, output and error output."""

    def call(*typed: str) -> tuple[int, str, str]:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # mlflow sets it itself
        monkeypatch.setattr(sys, "argv", ["mnist-exp-sync", *typed])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            sync.cli()
        assert isinstance(left.value.code, int)
        return (left.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def trained(scratch: Path, tiny: Callable[..., Config]) -> Path:
    """A finished run that was not published."""
    folder = scratch / "outputs" / "runs" / "day" / "run"
    trainings.run(tiny(tracking={"enabled": True}), folder, ["hidden=16"])
    return folder


@pytest.mark.integration
def test_a_run_of_an_outage_is_sent_once_the_store_is_back(
    trained: Path, command: Sync, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        code, out, err = command("--uri", f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}")
    assert code == 1
    assert "MLflow (http://127.0.0.1:" in err
    assert "it cannot be reached.\n  help: Nothing is lost" in err
    assert "secret" not in out + err
    assert not (trained / "mlflow.json").exists()

    code, out, err = command()
    assert not err
    assert code == 0
    assert "outputs/runs/day/run  hidden=16 lr=0.001 seed=0  finished" in out
    (stored,) = store.client.search_runs([store.experiment_id])
    assert stored.info.status == "FINISHED"
    assert len(store.client.get_metric_history(stored.info.run_id, "val/accuracy")) == 2

    code, out, _ = command()
    assert (code, out.splitlines()) == (0, [f"Sent to {store.name}: 0. There already: 1."])
    assert len(store.client.search_runs([store.experiment_id])) == 1


@pytest.mark.integration
def test_what_the_store_has_lost_is_sent_again(trained: Path, command: Sync, store: Store) -> None:
    command()
    first = read_json(trained / "mlflow.json")["run_id"]
    with sqlite3.connect("mlflow.db") as database:
        for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
            database.execute(f"DELETE FROM {table}")
    code, out, _ = command()
    assert (code, out.splitlines()[-1]) == (0, f"Sent to {store.name}: 1. There already: 0.")
    (stored,) = store.client.search_runs([store.experiment_id])
    assert stored.info.run_id != first
    assert read_json(trained / "mlflow.json")["run_id"] == stored.info.run_id


@pytest.mark.integration
def test_what_another_store_has_stays_there(trained: Path, command: Sync, store: Store, scratch: Path) -> None:
    command()
    elsewhere = scratch / "elsewhere.db"
    elsewhere.write_bytes((scratch / "mlflow.db").read_bytes())
    code, out, _ = command("--uri", f"sqlite:///{elsewhere}")
    assert (code, out.splitlines()[-1]) == (0, f"Sent to sqlite:///{elsewhere}: 0. There already: 1.")


@pytest.mark.integration
def test_what_another_store_was_sent_is_sent_to_a_second_one_if_that_is_named(
    trained: Path, command: Sync, store: Store, scratch: Path, database: str
) -> None:
    shutil.copyfile(database, scratch / "second.db")
    second = f"sqlite:///{scratch}/second.db"
    command("--uri", second)
    code, out, _ = command()
    assert (code, out.splitlines()) == (
        0,
        [
            f"Sent to {store.name}: 0. There already: 0.",
            "In another store: 1, such as outputs/runs/day/run; --uri sends them here, too.",
        ],
    )
    assert f"Sent to {store.name}: 1." in command("--uri", store.name)[1]
    assert f"Sent to {second}: 0. There already: 1." in command("--uri", second)[1]


@pytest.mark.integration
def test_rows_that_the_store_lacks_are_sent_whatever_the_record_says(
    trained: Path, command: Sync, store: Store
) -> None:
    """As after an outage in which the run went on and was stopped again, or a backup that was put back."""
    command()
    with contextlib.closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("DELETE FROM metrics WHERE step = 2")
    assert f"Sent to {store.name}: 1. There already: 0." in command()[1]
    (stored,) = store.client.search_runs([store.experiment_id])
    for key in ("train/loss", "val/accuracy"):
        assert [each.step for each in store.client.get_metric_history(stored.info.run_id, key)] == [1, 2]
    assert f"Sent to {store.name}: 0. There already: 1." in command()[1]


@pytest.mark.integration
def test_a_run_that_was_deleted_there_is_named_and_comes_back_when_it_goes_on(
    trained: Path, command: Sync, store: Store
) -> None:
    command()
    (stored,) = store.client.search_runs([store.experiment_id])
    store.client.delete_run(stored.info.run_id)
    code, out, _ = command()
    assert (code, out.splitlines()) == (
        0,
        [
            f"Sent to {store.name}: 0. There already: 0.",
            "Deleted there: 1. To bring them back:",
            f"  MLFLOW_TRACKING_URI={store.name} mlflow runs restore --run-id {stored.info.run_id}",
        ],
    )
    entry = ledger.read(trained)
    entry.state = "running"
    entry.write(trained)
    publish(trained, store)
    assert store.client.get_run(stored.info.run_id).info.lifecycle_stage == "active"


@pytest.mark.integration
def test_a_dead_run_is_sent_as_killed_and_a_living_one_is_left(trained: Path, command: Sync, store: Store) -> None:
    entry = ledger.read(trained)
    entry.state, entry.ended_ms = "running", None
    entry.write(trained)
    with ledger.hold(trained):
        code, out, _ = command()
        assert code == 0
        assert "is being trained" in out
        assert not store.client.search_runs([store.experiment_id])
    code, out, _ = command()
    assert (code, "killed" in out) == (0, True)
    (stored,) = store.client.search_runs([store.experiment_id])
    assert stored.info.status == "KILLED"
    assert stored.data.tags["reason"] == "Its process died without a word."


@pytest.mark.integration
def test_untracked_and_damaged_runs_are_passed_over(
    trained: Path, command: Sync, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    entry = ledger.read(trained)
    entry.experiment = ""
    entry.write(trained)
    damaged = trained.parent / "damaged"
    damaged.mkdir()
    (damaged / "ledger.json").write_text("{")
    code, out, _ = command()
    assert (code, out.splitlines()) == (0, [f"Sent to {store.name}: 0. There already: 0."])
    assert "damaged" in caplog.text


def test_usage_is_explained(command: Sync) -> None:
    code, _, err = command("nowhere")
    assert (code, "there is no folder nowhere" in err) == (2, True)
    code, out, _ = command("--help")
    assert code == 0
    assert "python -m mnist_exp.sync outputs/sweeps" in out


@pytest.mark.integration
def test_a_run_that_cannot_be_sent_does_not_hold_up_the_others(
    trained: Path, tiny: Callable[..., Config], command: Sync, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings.run(tiny(tracking={"enabled": True}), trained.with_name("second"))
    known = journal.read

    def read(folder: Path) -> list[journal.Row]:
        if folder.name == "run":
            raise ValueError("this one is not sent")
        return known(folder)

    monkeypatch.setattr(journal, "read", read)
    code, out, err = command()
    assert code == 1
    assert "Sent to" in out
    assert ": 1. There already: 0." in out
    assert (
        "1 could not be sent:\n  outputs/runs/day/run: ValueError: this one is not sent\n  help: Nothing is lost" in err
    )
    monkeypatch.undo()
    monkeypatch.chdir(trained.parents[3])
    runs = store.client.search_runs([store.experiment_id])
    assert sorted(each.info.status for each in runs) == ["FINISHED", "RUNNING"]


@pytest.mark.integration
def test_a_deleted_experiment_does_not_hold_up_the_others(
    trained: Path, tiny: Callable[..., Config], command: Sync, store: Store
) -> None:
    for name in ("gone", "kept"):
        trainings.run(tiny(tracking={"enabled": True, "experiment": name}), trained.with_name(name))
    gone = store.client.create_experiment("gone")
    store.client.delete_experiment(gone)
    code, out, err = command()
    assert code == 1
    assert ": 2. There already: 0." in out
    assert "Runs of 1 experiment could not be sent:\n  The experiment 'gone' in " in err
    assert f"mlflow experiments restore -x {gone}" in err
    store.client.restore_experiment(gone)
    code, out, err = command()
    assert code == 0, err
    assert ": 1. There already: 2." in out
