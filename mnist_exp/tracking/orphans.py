"""Runs that were killed together with everybody who would have told of it: MLflow would call them RUNNING for ever."""

import contextlib
import socket
from collections.abc import Collection
from pathlib import Path

from mnist_exp.config.secrets import without_login
from mnist_exp.disk import ledger
from mnist_exp.disk.files import read_json
from mnist_exp.errors import ExperimentError
from mnist_exp.tracking import publish, sweeps
from mnist_exp.tracking.store import Store, open_store


def reap(root: Path, uri: str, but: Collection[Path]) -> None:
    """Marks such runs below *root* as killed, and tells the store at *uri* if it knows them.

    Runs of other machines are left alone: whether somebody holds them cannot always be seen from here.

    Args:
        but: Sweeps that go on: their runs will be told of anyway.

    Raises:
        Exception: whatever mlflow raises; what could not be sent will be, the next time.
    """
    parents: dict[Path, Store] = {}
    for path in sorted(root.rglob("ledger.json")):
        folder = path.parent
        if folder.parent in but:
            continue
        with contextlib.suppress(ExperimentError):  # damaged
            entry = ledger.read(folder)
            if entry.state == "running" and entry.host == socket.gethostname():
                ledger.reap(folder)
                entry = ledger.read(folder)
            if entry.state == "killed" and (run_id := _told_running(folder, uri)):
                store = open_store(uri, entry.experiment)
                if store.client.get_run(run_id).info.lifecycle_stage == "deleted":
                    continue
                publish.publish(folder, store)
                if entry.nested:
                    parents[folder.parent] = store
    for sweep, store in parents.items():
        sweeps.publish(sweep, store, over=True)


def _told_running(folder: Path, uri: str) -> str:
    """The run's id in the store at *uri*, if the last that this has heard of it is that it trains."""
    try:
        note = read_json(folder / "mlflow.json")
    except (OSError, ValueError):
        return ""
    return str(note["run_id"]) if note["state"] == "running" and note["store"] == without_login(uri) else ""
