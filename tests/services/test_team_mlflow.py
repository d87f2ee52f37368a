"""A team's MLflow: a server with PostgreSQL, concurrent jobs, and outages that cost no training."""

import contextlib
import logging
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import services
from kit import wait_for
from services import Server

from mnist_exp.disk import journal, ledger
from mnist_exp.tracking.store import Store, open_store

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("postgres"), pytest.mark.timeout(1200)]

SMALL = ["data=synthetic", "epochs=3", "threads=1", "tracking.patience=200"]  # a busy machine
OUTAGE = 20.0  # seconds, at least


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with services.postgres() as uri:
        yield uri


@pytest.fixture(scope="module")
def server(database: str) -> Iterator[Server]:
    with services.server(database) as running:
        yield running


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(folder, uri, *arguments)` runs the command line in *folder*, tracked at *uri*, until the test ends."""
    with contextlib.ExitStack() as processes:

        def call(folder: Path, uri: str, *arguments: str) -> "subprocess.Popen[str]":
            folder.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "mnist_exp.train", *arguments, f"tracking.uri={uri}"]
            pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command, cwd=folder, text=True, **pipe)  # type: ignore[call-overload]
            processes.enter_context(process)
            processes.callback(process.kill)
            return process  # type: ignore[no-any-return]

        yield call


def stored(uri: str, experiment: str) -> tuple[Store, list[object]]:
    """The store, and all runs of *experiment*."""
    store = open_store(uri, experiment)
    return store, list(store.client.search_runs([store.experiment_id], max_results=1000))


def assert_all_tracked_once(folder: Path, uri: str, experiment: str) -> None:
    """Asserts that MLflow has the metrics of all run folders under *folder*, each epoch once."""
    store, runs = stored(uri, experiment)
    by_id = {run.data.tags["run.id"]: run for run in runs}  # type: ignore[attr-defined]
    folders = [path.parent for path in folder.rglob("ledger.json")]
    assert len(runs) == len(by_id) == len(folders)
    for run_folder in folders:
        entry, rows = ledger.read(run_folder), journal.read(run_folder)
        run = by_id[entry.id]
        assert run.info.status == "FINISHED"  # type: ignore[attr-defined]
        for key in ("train/loss", "val/accuracy"):
            sent = store.client.get_metric_history(run.info.run_id, key)  # type: ignore[attr-defined]
            assert sorted((m.step, m.value) for m in sent) == [(r["epoch"], r["metrics"][key]) for r in rows]


def test_several_at_once(start: Start, server: Server, tmp_path: Path) -> None:
    """Concurrent single runs and a sweep, all of which create the experiment."""
    singles = [start(tmp_path / str(seed), server.uri, f"seed={seed}", *SMALL) for seed in range(3)]
    sweep = start(tmp_path / "sweep", server.uri, "-m", "seed=10,11,12", *SMALL, "hydra.sweeper.report=false")
    for process in (*singles, sweep):
        said, _ = process.communicate()
        assert process.returncode == 0, said
        assert f"Tracked in MLflow:\n  {server.uri}/#/experiments/" in said
    assert_all_tracked_once(tmp_path, server.uri, "mnist_exp")
    store, runs = stored(server.uri, "mnist_exp")
    kept = {f.path for f in store.client.list_artifacts(runs[0].info.run_id)}  # type: ignore[attr-defined]
    assert {"config.yaml", "metrics.jsonl", "weights.safetensors"} <= kept  # through the server
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.long
def test_killed_for_a_while(start: Start, server: Server, tmp_path: Path) -> None:
    """During a sweep of eight: no job waits for the server, nothing is lost or doubled."""
    size = ["data=synthetic", "data.train_images=20000", "epochs=45", "threads=1", "hydra.launcher.pack=off"]
    rates = "lr=1e-3,2e-3,3e-3,4e-3,5e-3,6e-3,7e-3,8e-3"
    began = time.monotonic()
    tracking = ["tracking.experiment=outage", "tracking.patience=200"]
    sweep = start(tmp_path, server.uri, "-m", rates, *size, *tracking, "hydra.sweeper.report=false")
    wait_for(lambda: list(tmp_path.glob("outputs/sweeps/*/*/0/mlflow.json")), "the first run is in MLflow")
    server.kill()
    down = time.time()

    def training() -> list[list[journal.Row]]:
        """The rows of the runs that have trained ten epochs or more since."""
        runs = [journal.read(path.parent) for path in tmp_path.rglob("ledger.json")]
        return [rows for rows in runs if sum(row["time_ms"] / 1000 > down for row in rows) >= 10]

    try:
        wait_for(lambda: time.time() > down + OUTAGE and len(training()) >= 2, "two jobs train meanwhile", 600)
    finally:
        up = time.time()  # the start of the server uses both cores, and is not part of the outage
        server.start()
    said, _ = sweep.communicate()
    took = time.monotonic() - began
    assert sweep.returncode == 0, said
    assert "does not have everything yet" not in said
    assert_all_tracked_once(tmp_path, server.uri, "outage")

    def during(row: journal.Row) -> bool:
        return bool(down < row["time_ms"] / 1000 < up)

    runs = [journal.read(path.parent) for path in tmp_path.rglob("ledger.json")]
    trained = [rows for rows in runs if sum(map(during, rows)) >= 10]
    assert len(trained) >= 2
    # A job that called the server would wait until the end. The time of an epoch depends more on the machine's other
    # guests (in the same outage one job took 1.32 times the usual and another 0.93): it is logged for docs/cluster.md,
    # not asserted.
    pauses = [b["time_ms"] - a["time_ms"] for rows in trained for a, b in pairwise(rows) if during(a) or during(b)]
    assert max(pauses) / 1000 < (up - down) / 2
    usual = statistics.median(r["metrics"]["time/epoch"] for rows in runs for r in rows if not during(r))
    slower = [statistics.median(r["metrics"]["time/epoch"] for r in rows if during(r)) / usual for rows in trained]
    log.info("%.0f s, %.0f of them without the server; median epochs of %d jobs", took, up - down, len(slower))
    log.info("meanwhile: %.2f to %.2f times the usual %.0f ms", min(slower), max(slower), 1000 * usual)


def test_a_server_that_hangs_holds_nobody_up_for_long(start: Start, server: Server, tmp_path: Path) -> None:
    """It accepts connections and does not answer: the run ends, and the rest can be sent later."""
    server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        run = start(tmp_path, server.uri, *SMALL[:3], "tracking.patience=3", "tracking.experiment=hung")
        said, _ = run.communicate()
        took = time.monotonic() - began
    finally:
        server.signal(signal.SIGCONT)
    assert run.returncode == 0, said
    assert took < 60
    assert f"Send it with: python -m mnist_exp.sync --uri {server.uri}" in said
    for _ in range(2):  # the second has nothing to send
        sync = [sys.executable, "-m", "mnist_exp.sync", "--uri", server.uri]
        subprocess.run(sync, cwd=tmp_path, check=True, capture_output=True)
    assert_all_tracked_once(tmp_path, server.uri, "hung")


def answer(uri: str, host: str) -> int:
    """The HTTP status of the server at *uri* for a request with the header *host*."""
    call = urllib.request.Request(f"{uri}/api/2.0/mlflow/experiments/search?max_results=1", headers={"Host": host})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(call, timeout=30)
    refused.value.close()
    return refused.value.code


def test_a_server_with_passwords(start: Start, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name and password come from the environment, and no file has them."""
    pytest.importorskip("flask_wtf", reason='Flask-WTF is not installed: pip install -e ".[server]"')
    name, password = "someone", "correct-horse-battery"
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "for this test")
    (tmp_path / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = EDIT\ndatabase_uri = sqlite:///{tmp_path}/auth.db\n"
        f"admin_username = {name}\nadmin_password = {password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(tmp_path / "auth.ini"))
    hosts = ("--allowed-hosts", "tracking.test,127.0.0.1:*")
    with services.server(database, "--app-name", "basic-auth", *hosts) as guarded:
        assert [answer(guarded.uri, host) for host in ("tracking.test", "elsewhere.test")] == [401, 403]
        arguments = [*SMALL[:3], "tracking.experiment=guarded", "tracking.patience=3"]
        refused, _ = (run := start(tmp_path / "refused", guarded.uri, *arguments)).communicate()
        assert run.returncode == 0
        assert "does not have everything yet" in refused
        arguments[-1] = SMALL[-1]
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        said, _ = (run := start(tmp_path / "taken", guarded.uri, *arguments)).communicate()
        assert run.returncode == 0, said
        assert "Tracked in MLflow:\n  http" in said
        assert_all_tracked_once(tmp_path / "taken", guarded.uri, "guarded")
    written = [p for p in (tmp_path / "taken").rglob("*") if p.is_file()]
    assert not [p for p in written if password.encode() in p.read_bytes()]
    assert password not in said
