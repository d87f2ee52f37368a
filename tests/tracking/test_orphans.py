"""Runs that lost process, driver and publisher: the next sweep closes them in MLflow."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnist_exp.disk import ledger
from mnist_exp.disk.ledger import Ledger
from mnist_exp.disk.plan import Plan
from mnist_exp.tracking import runs as publishing
from mnist_exp.tracking import sender
from mnist_exp.tracking.runs import publish
from mnist_exp.tracking.store import Store

OLD = Path("outputs/sweeps/day/old")


@pytest.fixture
def shop(mlflow_store: Callable[[str], Store]) -> Store:
    return mlflow_store("mnist_exp")


def running(folder: Path, store: Store, **settings: Any) -> Path:
    """A run that MLflow knows as RUNNING, and that nobody trains."""
    folder.mkdir(parents=True)
    Ledger(experiment="mnist_exp", sweep=folder.parent.name, params={"val_size": 20}, **settings).write(folder)
    publish(folder, store)
    return folder


def plan(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Plan(id=folder.name, typed=["hidden=8"], keys=[], points=[["hidden=8"]]).write(folder)
    return folder


def start_a_sweep(monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the publisher of a new sweep, which has no runs yet."""
    line = json.dumps(["sweep", str(plan(Path("outputs/sweeps/day/new")).resolve())])
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{line}\n"))
    return sender.deliver("mnist_exp")


def status(folder: Path, store: Store) -> tuple[str, str]:
    """What the ledger says, and what MLflow says."""
    run_id = json.loads((folder / "mlflow.json").read_text())["run_id"]
    return ledger.read(folder).state, store.client.get_run(run_id).info.status


def test_the_next_sweep_closes_a_run_that_nobody_trains(shop: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    dead, alone = running(OLD / "0", shop), running(Path("outputs/runs/day/run"), shop)
    assert status(dead, shop) == ("running", "RUNNING")
    assert start_a_sweep(monkeypatch) == 0
    assert status(dead, shop) == status(alone, shop) == ("killed", "KILLED")
    assert ledger.read(dead).reason == "Its process died without a word."


@pytest.mark.integration
def test_the_parent_run_of_a_dead_sweep_ends_too(shop: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    running(plan(OLD) / "0", shop, nested=True)
    assert start_a_sweep(monkeypatch) == 0
    runs = shop.client.search_runs([shop.experiment_id])
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]


def test_what_trains_or_may_train_elsewhere_is_left_alone(shop: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held, elsewhere = running(OLD / "0", shop), running(OLD / "1", shop, host="another")
    with ledger.hold(held):
        assert start_a_sweep(monkeypatch) == 0
    assert status(held, shop) == status(elsewhere, shop) == ("running", "RUNNING")


@pytest.mark.integration
def test_what_lies_in_outputs_but_is_not_the_users_own_is_left_alone(
    shop: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights could be a link, and what that points to would be sent."""
    theirs = running(Path("outputs/theirs/x"), shop)
    (theirs / "secret").write_text("mine")
    (theirs / "weights.safetensors").symlink_to((theirs / "secret").absolute())
    assert start_a_sweep(monkeypatch) == 0
    assert status(theirs, shop) == ("running", "RUNNING")
    assert not list(Path("mlruns").rglob("weights.safetensors"))


def test_a_run_that_was_deleted_in_mlflow_is_not_missed(
    shop: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dead = running(OLD / "0", shop)
    shop.client.delete_run(json.loads((dead / "mlflow.json").read_text())["run_id"])
    assert start_a_sweep(monkeypatch) == 0
    assert ledger.read(dead).state == "killed"
    assert not caplog.text


def test_what_mlflow_does_not_take_is_no_fault_of_the_new_sweep(
    shop: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dead = running(OLD / "0", shop)

    def refused(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(publishing, "publish", refused)
    assert start_a_sweep(monkeypatch) == 0
    assert ledger.read(dead).state == "killed"
    assert "Not all runs that were killed earlier are in MLflow: RuntimeError: no. mnist_exp.sync sends" in caplog.text
