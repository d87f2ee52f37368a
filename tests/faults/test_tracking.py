"""A tracking store that is locked, dead, slow or loses replies: training goes on, nothing is lost or doubled."""

import contextlib
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trainings
from hooks import held
from kit import SMALL, command, end, locked, only_run, only_sweep, processes, sent_once, server, start, wait_for, whole
from nth import Nth
from services import Server, folder, free_port

from mnist_exp import sync
from mnist_exp.config import Config
from mnist_exp.config.stores import uri_for
from mnist_exp.disk import ledger
from mnist_exp.tracking.runs import publish
from mnist_exp.tracking.store import Store, open_store

Tiny = Callable[..., Config]
Injected = Callable[..., None]
TRACKED = [*SMALL, "tracking.figures=false", "tracking.patience=1"]
KEPT = "does not have everything yet; it is kept in the run folder"


def only_tracked(client: Any, experiment: str, epochs: int = 3) -> Any:
    """The only run in the store; asserts that it is finished and complete, with each epoch once."""
    (tracked,) = client.search_runs([experiment])
    assert tracked.info.status == "FINISHED"
    sent_once(client, tracked.info.run_id, epochs)
    assert tracked.data.params["hidden"] == "16"
    assert [each.dataset.name for each in tracked.inputs.dataset_inputs] == ["synthetic"]
    files = {file.path for file in client.list_artifacts(tracked.info.run_id)}
    assert {"config.yaml", "environment.txt", "metrics.jsonl", "weights.safetensors"} <= files
    return tracked


@pytest.fixture
def database(store_template: Path, scratch: Path) -> Path:
    shutil.copyfile(store_template, scratch / "mlflow.db")
    return scratch / "mlflow.db"


@pytest.mark.faults(18)
def test_a_locked_database_costs_no_training(database: Path, injected: Injected) -> None:
    with locked(database):  # permanently; the publisher retries for a minute
        code, _, err = command(*TRACKED)
    assert code == 0, err
    assert "database is locked" in err
    assert KEPT in err
    assert ledger.read(only_run()).state == "finished"
    code, _, err = command(module="sync")
    assert code == 0, err
    store = open_store(uri_for(None), "mnist_exp")
    only_tracked(store.client, store.experiment_id)
    assert command(module="sync")[1].endswith(": 0. There already: 1.\n")
    injected()


def waits(process: "subprocess.Popen[str]") -> None:
    """Returns when *process* prints that it waits for MLflow."""
    assert process.stderr
    said = iter(process.stderr.readline, "")
    assert any(line.startswith("Sending to MLflow: 0 of 2 runs …") for line in said)


def links() -> tuple[bool, bool]:
    """Whether the sweep's page links MLflow's pages of the best run, and of all runs."""
    page = (only_sweep() / "report.html").read_text()
    winner = page.partition(' class="first">')[2].partition("</tr>")[0]
    return re.search(r'<a href="http[^"]*/runs/[0-9a-f]{32}\?', winner) is not None, "all runs of the sweep" in page


@pytest.mark.faults(18)
def test_a_command_waits_for_a_database_that_is_locked_for_a_while(database: Path, injected: Injected) -> None:
    with locked(database):
        process = start("-m", "hidden=8,16", *TRACKED[:5], *TRACKED[6:-1], "tracking.patience=0")
        waits(process)
    code, out, err = end(process)
    assert code == 0, err
    assert "warning" not in err
    assert out.splitlines()[-1].startswith("  http://127.0.0.1:5000/#/experiments/")
    assert links() == (True, True)
    injected()


@pytest.mark.faults(18)
def test_ctrl_c_ends_the_wait_for_a_locked_database_and_nothing_else(database: Path, injected: Injected) -> None:
    with locked(database):
        process = start("-m", "hidden=8,16", *TRACKED[:5], *TRACKED[6:])
        waits(process)
        process.send_signal(signal.SIGINT)
        code, out, err = end(process)
    assert code == 0, err
    assert KEPT in err
    assert out.splitlines()[-1] == "Tracked in MLflow: not yet."
    assert links() == (False, False)
    wait_for(lambda: not processes())  # a helper of multiprocessing ends when it notices
    assert command(module="sync")[0] == 0
    assert command(module="report")[0] == 0
    assert links() == (True, True)
    injected()


@pytest.mark.faults(19)
def test_four_first_users_of_a_fresh_database(injected: Injected) -> None:
    four = [start(*TRACKED) for _ in range(4)]
    assert [end(process)[0] for process in four] == [0] * 4
    store = open_store(uri_for(None), "mnist_exp")
    tracked = store.client.search_runs([store.experiment_id])
    assert [r.info.status for r in tracked] == ["FINISHED"] * 4
    for each in tracked:
        sent_once(store.client, each.info.run_id, 3)
    injected(4)


@pytest.mark.faults(20)
@pytest.mark.parametrize("how", ["newer", "truncated", "not a database"])
def test_a_database_that_cannot_be_used_costs_no_training(how: str, database: Path, injected: Injected) -> None:
    if how == "newer":
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'f00f00f00f00'")
        connection.close()
    else:
        database.write_bytes(database.read_bytes()[:5000] if how == "truncated" else b"hello")
    before = database.read_bytes()
    code, out, err = command(*TRACKED)
    assert code == 0, err
    assert ("A newer mlflow has made it" if how == "newer" else f"{database} is damaged: ") in err
    assert KEPT in err
    assert ledger.read(only_run()).state == "finished"
    assert database.read_bytes() == before
    code, _, err = command(module="sync")
    assert code == 1
    assert ("A newer mlflow has made it" if how == "newer" else f"{database} is damaged: ") in err
    code, out, err = command(module="doctor")
    assert code == 1
    assert ("A newer mlflow has made it" if how == "newer" else "Move it away") in out + err
    database.unlink()
    assert command(module="sync")[0] == 0
    injected()


def older(database: Path) -> None:
    """Creates a store with a schema two revisions old."""
    import alembic.command
    import sqlalchemy
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    uri = f"sqlite:///{database}"
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    engine.dispose()
    revisions = _get_alembic_config(uri)
    known = list(ScriptDirectory.from_config(revisions).walk_revisions())
    alembic.command.upgrade(revisions, known[2].revision)


@pytest.mark.faults(20)
def test_a_database_of_an_older_mlflow_is_upgraded_by_its_owner_only(injected: Injected) -> None:
    database = Path("mlflow.db").absolute()
    older(database)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO runs (run_uuid, experiment_id) VALUES ('abc', 0)"
        )  # an empty one need not be kept
    before = database.read_bytes()
    code, out, err = command(*TRACKED)  # no retries for a minute: they would not help
    assert code == 0, err
    assert KEPT in out + err
    assert ledger.read(only_run()).state == "finished"
    mend = f"Back it up, then: mlflow db upgrade sqlite:///{database}"
    assert mend in out + err
    for module in ("sync", "doctor"):
        code, out, err = command(module=module)
        assert code == 1
        assert f"{database} has schema " in out + err
        assert mend in out + err
    assert database.read_bytes() == before
    shutil.copyfile(database, "backup.db")
    upgrade = [sys.executable, "-m", *mend.partition(": ")[2].split()]
    done = subprocess.run(upgrade, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert command(module="sync")[0] == 0
    store = open_store(uri_for(None), "mnist_exp")
    only_tracked(store.client, store.experiment_id)
    injected()


@pytest.fixture
def served(store_template: Path) -> Iterator[Server]:
    """MLflow's server with its own database and address, not started yet."""
    with folder() as here:
        shutil.copyfile(store_template, here / "server.db")
        mlflow_server = Server(f"sqlite:///{here}/server.db", here, port=free_port())
        yield mlflow_server
        with contextlib.suppress(AttributeError, ProcessLookupError):
            mlflow_server.kill()


@pytest.mark.faults(21)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_server_that_leaves_during_a_run_and_comes_back(how: int, served: Server, injected: Injected) -> None:
    served.start()
    with held() as hold:
        process = start(*TRACKED, MLFLOW_TRACKING_URI=served.uri, **hold)
        wait_for(lambda: '"rows": 2' in "".join(note.read_text() for note in Path().rglob("mlflow.json")))
        served.signal(how)
    code, out, err = end(process)
    assert code == 0, err
    assert KEPT in out + err
    assert (out + err).count("warning") <= 2
    if how == signal.SIGKILL:
        served.process.wait()
        served.start()
    else:
        served.signal(signal.SIGCONT)
    code, out, err = command(module="sync", MLFLOW_TRACKING_URI=served.uri)
    assert code == 0, err
    store = open_store(served.uri, "mnist_exp")
    only_tracked(store.client, store.experiment_id)
    assert command(module="sync", MLFLOW_TRACKING_URI=served.uri)[1].endswith(": 0. There already: 1.\n")
    injected()


@pytest.mark.faults(21)
def test_a_server_that_starts_during_a_run_receives_all_of_it(served: Server, injected: Injected) -> None:
    with held() as hold:
        process = start(*TRACKED[:-1], "tracking.patience=60", MLFLOW_TRACKING_URI=served.uri, **hold)
        wait_for(lambda: list(Path().rglob("metrics.jsonl")))
        served.start()
    code, out, err = end(process)
    assert code == 0, err
    assert KEPT not in out + err
    store = open_store(served.uri, "mnist_exp")
    only_tracked(store.client, store.experiment_id)
    injected()


@pytest.mark.faults(21)
def test_a_dead_server_costs_no_training(injected: Injected) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        code, out, err = command(*TRACKED, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert code == 0, err
    assert KEPT in out + err
    assert (out + err).count("warning") <= 2  # not repeated
    assert command(module="sync")[0] == 0  # to another store
    store = open_store(uri_for(None), "mnist_exp")
    only_tracked(store.client, store.experiment_id)
    injected()


@pytest.mark.faults(22)
@pytest.mark.parametrize("mode", ["500", "html", "slow", "hang"])
def test_a_server_that_talks_nonsense_costs_no_training(mode: str, injected: Injected) -> None:
    with server(mode) as address:
        asked = {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}  # seconds, not five of them
        code, out, err = command(*TRACKED, **asked)
        assert code == 0, err
        assert KEPT in out + err
        code, _, err = command(module="sync", **asked)
        assert code == 1
        assert "Nothing is lost: repeat this" in err
    assert "<script>" not in out + err
    whole(only_run())
    injected()


class Forgetful:
    """A client that loses the reply to its *n*-th call; *done*: the call has taken effect."""

    def __init__(self, client: Any, n: int, done: bool) -> None:
        self.client, self.n, self.done, self.count = client, n, done, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.client, name)

        def call(*arguments: Any, **settings: Any) -> Any:
            self.count += 1
            if self.count != self.n:
                return real(*arguments, **settings)
            if self.done:
                real(*arguments, **settings)
            raise ConnectionError("the reply was lost")

        return call


@pytest.mark.faults(22)
@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_any_reply_may_be_lost(
    done: bool, mlflow_store: Callable[[str], Store], tiny: Tiny, injected: Injected
) -> None:
    trainings.run(tiny(tracking={"enabled": True, "figures": False}), Path("run"), extras=False)
    n = 0
    while True:
        n += 1
        store = mlflow_store(f"try-{n}")
        Path("run/mlflow.json").unlink(missing_ok=True)
        client = Forgetful(store.client, n, done)
        try:
            publish(Path("run"), Store(store.uri, client, store.experiment_id))
        except ConnectionError:
            publish(Path("run"), store)
        only_tracked(store.client, store.experiment_id, epochs=2)
        if client.count < n:
            break
    assert n > 5
    injected(n - 1)


@pytest.mark.faults(9)
def test_the_publisher_may_die_at_any_write(
    mlflow_store: Callable[[str], Store], tiny: Tiny, injected: Injected
) -> None:
    trainings.run(tiny(tracking={"enabled": True, "figures": False}), Path("run"), extras=False)
    n = 0
    while True:
        n += 1
        store = mlflow_store(f"try-{n}")
        (Path("run") / "mlflow.json").unlink(missing_ok=True)

        with Nth(Path("run").absolute(), n, 5) as nth, contextlib.suppress(OSError):
            publish(Path("run"), store)
        publish(Path("run"), store)
        only_tracked(store.client, store.experiment_id, epochs=2)
        assert not list(Path("run").glob(".*.tmp*"))
        if not nth.hit:
            break
    assert n > 5
    injected(n - 1)


LIMITS = {
    "a value of 20,000 characters": {"model": {"note": "x" * 20_000}},
    "150 settings": {"model": {f"key_{i}": i for i in range(150)}},
    "a key of 400 characters": {"model": {"k" * 400: 1}},
    "a key with odd characters": {"model": {"a%b(c)=<d>é": 1}},
    "a name of 1,000 characters": {"name": "n" * 1000},
    "a name of two lines": {"name": "one\ntwo\x00three"},
    "a tag of 10,000 characters": {"tags": {"why": "y" * 10_000}},
    "a tag with an odd key": {"tags": {"a%b\n" + "k" * 300: "<script>"}},
    "an empty tag": {"tags": {"empty": ""}},
}


@pytest.mark.faults(32)
@pytest.mark.parametrize("what", LIMITS)
def test_what_mlflow_would_refuse_is_cut_to_fit(
    what: str, mlflow_store: Callable[[str], Store], tiny: Tiny, injected: Injected
) -> None:
    settings = LIMITS[what]
    config = tiny(tracking={"enabled": True, "figures": False})
    trainings.run(config, Path("run"), ["hidden=16", "+x=" + "é" * 9000], extras=False)
    entry = ledger.read(Path("run"))
    entry.name = settings.get("name", entry.name)
    entry.tags |= settings.get("tags", {})
    entry.params |= {f"model.{key}": value for key, value in settings.get("model", {}).items()}
    entry.write(Path("run"))
    store = mlflow_store("mnist_exp")
    assert publish(Path("run"), store)
    tracked = only_tracked(store.client, store.experiment_id, epochs=2)
    assert tracked.data.params["hidden"] == "16"
    assert len(tracked.data.params) == len(entry.params)
    injected()


@pytest.mark.faults(35)
@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_project_goes_on_in_another_folder(
    how: str, scratch: Path, monkeypatch: pytest.MonkeyPatch, injected: Injected
) -> None:
    for name in ("old", "new"):
        if name == "new":
            shutil.copytree("../old", "../new") if how == "copied" else Path("../old").rename("../new")
        (scratch / name).mkdir(exist_ok=True)
        monkeypatch.chdir(scratch / name)
        code, _, err = command(*TRACKED)
        assert code == 0, err
    assert "This project was in another folder" in err
    stored = open_store(uri_for(None), "mnist_exp")
    addresses = [each.info.artifact_uri for each in stored.client.search_runs([stored.experiment_id])]
    assert len(addresses) == 2
    assert all(address.startswith((scratch / "new/mlruns").as_uri()) for address in addresses)
    assert command(module="sync")[1].endswith(": 0. There already: 2.\n")
    if how == "copied":
        assert len(list((scratch / "old/mlruns/mnist_exp").glob("*/artifacts"))) == 1
    injected()


@pytest.mark.faults(35)
def test_a_deleted_experiment_is_named_before_training_and_all_is_sent_when_it_is_back(
    database: Path, injected: Injected
) -> None:
    store = open_store(uri_for(None), "mnist_exp")
    store.client.delete_experiment(store.experiment_id)
    code, _, err = command(*TRACKED)
    assert code == 0, err
    assert err.startswith("warning: The experiment 'mnist_exp' in sqlite:///")
    assert f"mlflow experiments restore -x {store.experiment_id}, or choose another" in err.splitlines()[1]
    store.client.restore_experiment(store.experiment_id)
    assert command(module="sync")[0] == 0
    only_tracked(store.client, store.experiment_id)
    injected()


@pytest.mark.faults(36)
@pytest.mark.parametrize("typed", [(), ("hydra.job.chdir=true",)], ids=["", "chdir"])
def test_a_folder_of_any_name_has_its_database_in_it(
    typed: tuple[str, ...], scratch: Path, monkeypatch: pytest.MonkeyPatch, injected: Injected
) -> None:
    folder = scratch / "a?b%20c#d"
    folder.mkdir()
    monkeypatch.chdir(folder)
    code, out, err = command(*TRACKED, *typed)
    assert code == 0, err
    assert "\n  mlflow ui --backend-store-uri sqlite:///mlflow.db\n  http" in out
    assert [path.name for path in scratch.iterdir() if not path.name.startswith(".")] == [folder.name]
    assert list(scratch.rglob("mlflow.db")) == [folder / "mlflow.db"]
    assert command(module="sync")[1].endswith(": 0. There already: 1.\n")
    injected()


@pytest.mark.faults(39)
@pytest.mark.parametrize("lost", ["metrics WHERE step = 2", "metrics", "tags WHERE key = 'state'"])
def test_what_mlflow_has_lost_is_sent_once(
    lost: str, mlflow_store: Callable[[str], Store], tiny: Tiny, injected: Injected
) -> None:
    store, folder = mlflow_store("mnist_exp"), Path("outputs/runs/day/run")
    trainings.run(tiny(tracking={"enabled": True, "figures": False}), folder, extras=False)
    assert publish(folder, store)
    with contextlib.closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute(f"DELETE FROM {lost}")
    for sent in (1, 0):
        assert (result := sync.send([Path("outputs")], store.uri)).sent == sent
        assert (result.kept, result.refused) == (1 - sent, {})
    (stored,) = store.client.search_runs([store.experiment_id])
    sent_once(store.client, stored.info.run_id, ledger.read(folder).epochs)
    injected()
