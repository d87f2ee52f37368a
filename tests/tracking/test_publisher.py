"""The publisher is a process of its own: training neither waits for it nor fails with it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trainings
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from mnist_exp.config import Config, Tracking
from mnist_exp.config.stores import uri_for
from mnist_exp.console import terminal
from mnist_exp.disk import ledger, trust
from mnist_exp.errors import ExperimentError, Interrupted
from mnist_exp.tracking import publisher, store
from mnist_exp.tracking.publisher import AT_ONCE, Publisher
from mnist_exp.tracking.store import Store, open_store

Tiny = Callable[..., Config]
HERE = Path("run")
SEE = "Tracked in MLflow; to see it:"


def replace_child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """The child process runs *code* instead: these tests are about the trainer's side."""
    popen = subprocess.Popen

    def start(command: list[str], **settings: object) -> "subprocess.Popen[str]":
        return popen([sys.executable, "-c", code], **settings)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", start)


@pytest.mark.slow
def test_a_run_reaches_mlflow_through_the_publisher(tiny: Tiny, store_template: Path) -> None:
    """The one test here with the real child process, in a folder with a file that is called as a module."""
    Path("mlflow.py").write_text("raise SystemExit('the wrong one')")
    shutil.copyfile(store_template, "mlflow.db")
    config = tiny(tracking={"enabled": True, "figures": False})
    publisher = Publisher(config.tracking)
    publisher.follow(HERE)
    trainings.run(config, HERE)
    publisher.close()
    assert publisher.delivered
    store = open_store(uri_for(None), "mnist_exp")
    (stored,) = store.client.search_runs([store.experiment_id])
    assert stored.info.status == "FINISHED"
    assert stored.data.metrics["final/val_accuracy"] == ledger.read(HERE).summary["final/val_accuracy"]
    page = f"/#/experiments/{store.experiment_id}/runs/{stored.info.run_id}?workflowType=machine_learning"
    assert publisher.where_to_look(HERE) == [SEE, "mlflow ui", f"http://127.0.0.1:5000{page}"]


def test_what_was_never_started_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_child(monkeypatch, "import time; time.sleep(600)")
    publisher = Publisher(Tracking())
    publisher.follow(HERE)
    publisher.close()
    assert publisher.process.returncode == -signal.SIGKILL


@pytest.fixture
def trained() -> None:
    """A run that has ended."""
    HERE.mkdir()
    ledger.Ledger(state="finished").write(HERE)


Shown = Callable[[Callable[[], object]], list[str]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """`shown(act)`: what is said of the wait, from its beginning; *act* happens as soon as something is."""
    monkeypatch.setattr(publisher, "SILENT", 0)

    def watch(act: Callable[[], object]) -> list[str]:
        lines: list[str] = []

        @contextlib.contextmanager
        def changing() -> Iterator[Callable[[str], None]]:
            yield lambda line: (lines.append(line), act())

        monkeypatch.setattr(terminal, "changing", changing)
        return lines

    return watch


HANGS = "import time; time.sleep(600)"
OBEDIENT = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)"
REMOTE = "http://127.0.0.1:9"
KEPT = f"MLflow ({REMOTE}) does not have everything yet; it is kept in the run folder. Send it with: "


@pytest.mark.usefixtures("trained")
def test_a_remote_store_is_waited_for_no_longer_than_patience(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replace_child(monkeypatch, HANGS)
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        publisher = Publisher(Tracking(uri=uri, patience=0.1))
        publisher.follow(HERE)
        publisher.close()
    assert not publisher.delivered
    assert f"python -m mnist_exp.sync --uri {uri}" in caplog.text
    assert publisher.process.returncode == -signal.SIGTERM


@pytest.mark.usefixtures("trained")
def test_a_server_that_takes_no_connection_before_and_after_training_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, shown: Shown
) -> None:
    replace_child(monkeypatch, HANGS)
    waited = shown(lambda: None)
    publisher = Publisher(Tracking(uri=REMOTE, patience=600))
    publisher.follow(HERE)
    publisher.close()
    assert not waited
    assert f"{KEPT}python -m mnist_exp.sync --uri {REMOTE}" in caplog.text


@pytest.mark.usefixtures("trained")
def test_a_server_that_takes_a_connection_by_the_end_of_training_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replace_child(monkeypatch, OBEDIENT)
    with socket.socket() as later:
        later.bind(("127.0.0.1", 0))
        publisher = Publisher(Tracking(uri=f"http://127.0.0.1:{later.getsockname()[1]}", patience=600))
        publisher.follow(HERE)
        later.listen()
        Path("go").touch()
        publisher.close()
    assert publisher.delivered


@pytest.mark.usefixtures("trained")
def test_the_command_that_sends_the_rest_is_quoted_for_a_shell(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replace_child(monkeypatch, "raise SystemExit(1)")
    publisher = Publisher(Tracking(uri=f"{REMOTE}/$(id);b"))
    publisher.follow(HERE)
    publisher.close()
    assert f"mnist_exp.sync --uri '{REMOTE}/$(id);b'" in caplog.text


@pytest.mark.usefixtures("trained")
def test_a_store_on_this_machine_is_waited_for_however_slow_it_is(
    monkeypatch: pytest.MonkeyPatch, shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    replace_child(monkeypatch, OBEDIENT)
    lines = shown(Path("go").touch)
    publisher = Publisher(Tracking(patience=0))
    publisher.follow(HERE)
    publisher.close()
    assert publisher.delivered
    assert lines[0] == "Sending to MLflow … Ctrl-C leaves the rest to mnist_exp.sync"
    assert not caplog.text


def test_of_several_runs_it_says_how_many_are_sent(monkeypatch: pytest.MonkeyPatch, shown: Shown) -> None:
    """A run that was not begun does not count, nor one that was not delivered since its end."""
    replace_child(monkeypatch, OBEDIENT)
    lines = shown(Path("go").touch)
    publisher = Publisher(Tracking())
    for name, noted, delivered in (("0", 1, 2), ("1", 2, 1), ("2", 1, 0), ("3", 0, 0)):
        folder = Path(name)
        folder.mkdir()
        for file, when in (("ledger.json", noted), ("mlflow.json", delivered)):
            if when:
                (folder / file).touch()
                os.utime(folder / file, (when, when))
        publisher.follow(folder)
    publisher.close()
    assert lines[0].startswith("Sending to MLflow: 1 of 3 runs … ")


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("uri", [None, REMOTE], ids=["here", "remote"])
def test_ctrl_c_ends_the_wait_and_nothing_else(
    uri: str | None, monkeypatch: pytest.MonkeyPatch, shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    replace_child(monkeypatch, HANGS)
    shown(lambda: os.kill(os.getpid(), signal.SIGINT))
    with Publisher(Tracking(uri=uri, patience=600)) as publisher:
        publisher.follow(HERE)
    assert not publisher.delivered
    assert "Send it with: python -m mnist_exp.sync" in caplog.text
    assert publisher.process.returncode == -signal.SIGTERM


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("stop", [Interrupted("Stopped in epoch 1."), KeyboardInterrupt()], ids=["once", "twice"])
def test_who_stops_a_run_does_not_wait_long(stop: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_child(monkeypatch, HANGS)
    publisher = Publisher(Tracking(patience=0.1))
    publisher.follow(HERE)
    with pytest.raises(type(stop)), publisher:
        raise stop
    assert publisher.process.returncode == -signal.SIGTERM


@pytest.mark.usefixtures("trained")
def test_a_process_that_gives_up_says_why(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    replace_child(monkeypatch, "print('It is locked.'); raise SystemExit(1)")
    publisher = Publisher(Tracking())
    publisher.follow(HERE)
    publisher.close()
    assert not publisher.delivered
    assert [record.message.partition(" (")[0] for record in caplog.records] == ["It is locked.", "MLflow"]


def test_what_is_wrong_with_a_store_is_said_before_training(
    mlflow_store: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = mlflow_store("mine")
    opened.client.delete_experiment(opened.experiment_id)
    replace_child(monkeypatch, "")
    Publisher(Tracking(experiment="mine")).close()
    warning, way_out = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: The experiment 'mine' in sqlite:///")
    assert warning.endswith(" was deleted. Training goes on; mnist_exp.sync sends it later.")
    assert way_out.startswith("  help: Bring it back: MLFLOW_TRACKING_URI=sqlite:///")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("postgresql://me:geheim99@127.0.0.1:9/runs", "postgresql://127.0.0.1:9/runs cannot be reached: Connection"),
        ("http://me:geheim99@127.0.0.1:9", "http://127.0.0.1:9 cannot be reached: Connection refused."),
        ("http://127.0.0.1:99999", "http://127.0.0.1:99999 cannot be reached: Port out of range 0-65535."),
    ],
)
def test_a_server_that_takes_no_connection_is_named_before_training(
    uri: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_child(monkeypatch, "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    Publisher(Tracking()).close()
    warning, way_out = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: MLflow's server {reason}")
    assert warning.endswith(" Training goes on; mnist_exp.sync sends it later.")
    assert way_out.endswith("name another store: tracking.uri=… or MLFLOW_TRACKING_URI.")


def test_a_server_that_listens_or_is_behind_a_proxy_is_left_to_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        store.check_server(f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    store.check_server("http://127.0.0.1:9")


def test_a_name_that_is_looked_up_without_an_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    monkeypatch.setattr(store, "ANSWER", 0.01)
    monkeypatch.setattr(socket, "create_connection", lambda *_: held.wait() and socket.socket())
    with pytest.raises(ExperimentError, match="no answer in"):
        store.check_server("http://127.0.0.1:9")
    held.set()


def test_what_only_the_child_can_ask_of_a_store_is_said_while_it_trains(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as a deleted experiment on a server; once, however often it is heard."""
    monkeypatch.setattr(store, "check_server", lambda uri: None)
    line = AT_ONCE + json.dumps(["It was deleted.", "Bring it back: x"])
    replace_child(monkeypatch, f"print({line!r}); print({line!r})")
    publisher = Publisher(Tracking(uri=REMOTE))
    publisher.listener.join()
    assert capsys.readouterr().err.splitlines() == [
        "warning: It was deleted. Training goes on; mnist_exp.sync sends it later.",
        "  help: Bring it back: x",
    ]
    publisher.close()


def test_a_run_that_works_in_its_own_folder_is_tracked_where_it_was_started(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with hydra.job.chdir=true."""
    hydra = {"runtime": {"cwd": str(scratch)}, "job": {"chdir": True}}
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": hydra}))
    Path("outputs/runs/day/run").mkdir(parents=True)
    monkeypatch.chdir("outputs/runs/day/run")
    replace_child(monkeypatch, "")
    publisher = Publisher(Tracking())
    assert publisher.uri == f"sqlite:///{scratch}/mlflow.db"
    assert trust.own(Path())
    assert terminal.shown(Path()) == "outputs/runs/day/run"
    publisher.close()


def test_a_dead_publisher_does_not_hurt_training(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replace_child(monkeypatch, "raise SystemExit(1)")
    publisher = Publisher(Tracking())
    publisher.process.wait()
    publisher.follow(HERE)
    assert trainings.run(tiny(), HERE).state == "finished"
    publisher.close()
    assert not publisher.delivered
    assert "does not have everything yet" in caplog.text


def test_ctrl_c_in_the_terminal_is_not_for_the_publisher(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_child(monkeypatch, "import sys; sys.stdin.read()")
    publisher = Publisher(Tracking())
    assert os.getpgid(publisher.process.pid) != os.getpgid(0)
    publisher.close()


@pytest.mark.parametrize(
    ("uri", "lines"),
    [
        ("http://tracker:5000/", ["Tracked in MLflow:", "http://tracker:5000/#/experiments/3/runs/abc"]),
        (None, [SEE, "mlflow ui", "http://127.0.0.1:5000/#/experiments/3/runs/abc"]),
        (
            "sqlite:////srv/mlflow.db",
            [
                SEE,
                "mlflow ui --backend-store-uri sqlite:////srv/mlflow.db",
                "http://127.0.0.1:5000/#/experiments/3/runs/abc",
            ],
        ),
    ],
    ids=["server", "here", "elsewhere"],
)
def test_the_lines_that_open_the_run(uri: str | None, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    replace_child(monkeypatch, "")
    publisher = Publisher(Tracking(uri=uri))
    HERE.mkdir()
    assert publisher.where_to_look(HERE) == ["Tracked in MLflow: not yet."]
    (HERE / "mlflow.json").write_text(json.dumps({"page": "#/experiments/3/runs/abc"}))
    assert publisher.where_to_look(HERE) == lines
    publisher.close()
