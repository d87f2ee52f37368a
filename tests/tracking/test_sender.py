"""The publisher's process sends what it is told of, and gives up in time."""

import io
import json
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from mnist_exp.tracking import database, sender
from mnist_exp.tracking.publisher import AT_ONCE
from mnist_exp.tracking.store import Store


@pytest.mark.parametrize(("refusals", "code"), [(1, 0), (99, 1)], ids=["for a while", "for good"])
def test_a_store_that_refuses_is_tried_for_a_minute(
    refusals: int,
    code: int,
    mlflow_store: Callable[[str], Store],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From the first refusal on: that a busy machine has taken longer to come to it does not count."""
    now, tries = [0.0], []

    def opened(uri: str, experiment: str) -> Store:
        now[0] += 100
        tries.append(now[0])
        if len(tries) <= refusals:
            raise OSError("database is locked")
        return mlflow_store(experiment)

    monkeypatch.setattr(sender, "open_store", opened)
    monkeypatch.setattr(sender.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sender.time, "sleep", lambda seconds: None)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # the trainer has closed it
    at_once = SimpleNamespace(Event=threading.Event, Thread=lambda target, daemon: SimpleNamespace(start=target))
    monkeypatch.setattr(sender, "threading", at_once)
    assert sender.deliver("mine") == code
    assert len(tries) == 2
    assert ("did not take it: OSError: database is locked" in caplog.text) is bool(code)


def test_an_experiment_that_takes_no_runs_is_told_at_once_and_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def opened(uri: str, experiment: str) -> Store:
        raise database.deleted(uri, experiment, 7)

    monkeypatch.setattr(sender, "open_store", opened)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    working = sender.Sender("mine")
    assert working.attempt()
    assert working.attempt()
    (line,) = caplog.messages
    message, way_out = json.loads(line.removeprefix(AT_ONCE))
    assert message == "The experiment 'mine' in http://host was deleted."
    assert way_out.startswith("Bring it back: MLFLOW_TRACKING_URI=http://host mlflow experiments restore -x 7")
