"""Closes MLflow runs that lost both their trainer and their publisher: MLflow would show them as RUNNING forever."""

import contextlib
import socket
from collections.abc import Collection
from pathlib import Path

from mnist_exp.config.secrets import without_login
from mnist_exp.disk import ledger, tracked
from mnist_exp.disk.layout import RunFolder, State
from mnist_exp.disk.tracked import TrackedRun
from mnist_exp.errors import ExperimentError
from mnist_exp.tracking import publish, sweeps
from mnist_exp.tracking.store import Store, open_store


def reap(root: Path, uri: str, but: Collection[Path]) -> None:
    """Marks such runs below *root* as killed, also in the store at *uri* if it has them.

    Runs of other machines are skipped: their locks cannot always be seen from here.

    Args:
        but: Running sweeps: their runs are published anyway.

    Raises:
        Exception: whatever mlflow raises; the next call sends the rest.
    """
    parents: dict[Path, Store] = {}
    for path in sorted(root.rglob(RunFolder.ledger)):
        folder = path.parent
        if folder.parent in but:
            continue
        with contextlib.suppress(ExperimentError):  # damaged
            entry = ledger.read(folder)
            if entry.state == State.RUNNING and entry.host == socket.gethostname():
                ledger.reap(folder)
                entry = ledger.read(folder)
            record = tracked.run(folder) or TrackedRun()
            if (entry.state, record.state, record.store) == (State.KILLED, State.RUNNING, without_login(uri)):
                store = open_store(uri, entry.experiment)
                if store.client.get_run(record.run_id).info.lifecycle_stage == "deleted":
                    continue
                publish.publish(folder, store)
                if entry.nested:
                    parents[folder.parent] = store
    for sweep, store in parents.items():
        sweeps.publish(sweep, store, over=True)
