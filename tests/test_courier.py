"""MLflow is told by a process of its own: training neither waits for it nor fails with it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_exp import ledger, run
from mnist_exp.config import Config, Tracking
from mnist_exp.tracking.courier import Courier
from mnist_exp.tracking.store import open_store, uri_for

Tiny = Callable[..., Config]
HERE = Path("run")


def stand_in(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """The child process does *code* instead: what the trainer's side makes of it is what is tested."""
    popen = subprocess.Popen

    def start(command: list[str], **settings: object) -> "subprocess.Popen[str]":
        return popen([sys.executable, "-c", code], **settings)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", start)


@pytest.mark.slow
def test_a_run_reaches_mlflow_through_the_courier(tiny: Tiny, store_template: Path) -> None:
    """The one test here with the real child process."""
    shutil.copyfile(store_template, "mlflow.db")
    config = tiny(tracking={"enabled": True, "figures": False})
    courier = Courier(config.tracking)
    courier.follow(HERE)
    run.run(config, HERE)
    courier.close(patience=100)
    assert courier.delivered
    store = open_store(uri_for(None), "mnist_exp")
    (found,) = store.client.search_runs([store.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.metrics["final/val_accuracy"] == ledger.read(HERE).summary["final/val_accuracy"]
    page = f"/#/experiments/{store.experiment_id}/runs/{found.info.run_id}?workflowType=machine_learning"
    assert courier.where_to_look(HERE) == f"Tracked in MLflow: mlflow ui, then http://127.0.0.1:5000{page}"


def test_what_was_never_started_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "import time; time.sleep(60)")
    courier = Courier(Tracking())
    courier.follow(HERE)
    began = time.monotonic()
    courier.close(patience=60)
    assert time.monotonic() - began < 10
    assert courier.process.returncode == -signal.SIGKILL


def test_a_slow_store_is_waited_for_no_longer_than_patience(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in(monkeypatch, "import time; time.sleep(60)")
    HERE.mkdir()
    ledger.Ledger(state="finished").write(HERE)
    courier = Courier(Tracking(experiment="mine"))
    courier.follow(HERE)
    began = time.monotonic()
    courier.close(patience=0.1)
    assert time.monotonic() - began < 10
    assert not courier.delivered
    assert f"MLflow ({uri_for(None)}) does not have everything yet; it is kept in the run folder." in caplog.text
    assert courier.process.wait(10) == -signal.SIGTERM


def test_a_dead_courier_does_not_hurt_training(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in(monkeypatch, "raise SystemExit(1)")
    courier = Courier(Tracking())
    courier.process.wait()
    courier.follow(HERE)
    assert run.run(tiny(), HERE).state == "finished"
    courier.close(patience=10)
    assert not courier.delivered
    assert "does not have everything yet" in caplog.text


def test_ctrl_c_in_the_terminal_is_not_for_the_courier(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "import sys; sys.stdin.read()")
    courier = Courier(Tracking())
    assert os.getpgid(courier.process.pid) != os.getpgid(0)
    courier.close(patience=10)


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("http://tracker:5000/", "Tracked in MLflow: http://tracker:5000/#/experiments/3/runs/abc"),
        (None, "Tracked in MLflow: mlflow ui, then http://127.0.0.1:5000/#/experiments/3/runs/abc"),
        (
            "sqlite:////srv/mlflow.db",
            "Tracked in MLflow: mlflow ui --backend-store-uri sqlite:////srv/mlflow.db, "
            "then http://127.0.0.1:5000/#/experiments/3/runs/abc",
        ),
    ],
    ids=["server", "here", "elsewhere"],
)
def test_the_line_that_opens_the_run(uri: str | None, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "")
    courier = Courier(Tracking(uri=uri))
    HERE.mkdir()
    assert courier.where_to_look(HERE) == "Tracked in MLflow: not yet."
    (HERE / "mlflow.json").write_text(json.dumps({"page": "#/experiments/3/runs/abc"}))
    assert courier.where_to_look(HERE) == line
    courier.close(patience=10)
