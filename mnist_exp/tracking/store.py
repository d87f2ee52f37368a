"""The MLflow store and its experiment, opened by many processes."""

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

from mnist_exp.config import stores
from mnist_exp.config.secrets import without_login
from mnist_exp.disk.files import file_name
from mnist_exp.errors import ExperimentError
from mnist_exp.tracking import database

PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Where a server listens whose address does not say so."""
ANSWER = 3.0  # seconds in which a server takes a connection, as a rule in a hundredth of one


@final
@dataclass(frozen=True)
class Store:
    """An open store and the experiment in it."""

    uri: str
    client: Any
    experiment_id: str

    @property
    def name(self) -> str:
        """Its URI without a password, which may be shown and stored."""
        return without_login(self.uri)

    def run_id(self, id: str) -> str:
        """The id in MLflow of the run, or the parent run of the sweep, with this *id* on disk; empty if it has none."""
        runs = self.client.search_runs([self.experiment_id], f"tags.`run.id` = '{_unquoted(id)}'", max_results=1)
        return str(runs[0].info.run_id) if runs else ""


def source(id: str) -> dict[str, str]:
    """The tags of a run, or of the parent run of a sweep, with this *id* on disk: `Store.run_id` searches for it."""
    return {"run.id": _unquoted(id), "mlflow.source.name": "mnist_exp.train", "mlflow.source.type": "LOCAL"}


def _unquoted(id: str) -> str:
    """*id* without what would end the text that MLflow searches for: a sweep's is the name of its folder."""
    return re.sub(r"['\"`\\]", "_", id)


def open_store(uri: str, experiment: str) -> Store:
    """Opens the store at *uri* (absolute); creates database and experiment if needed.

    Raises:
        ExperimentError: the database is damaged or of another mlflow, or the experiment was deleted, or stores
            artifacts through a server that this URI does not name.
        Exception: whatever mlflow raises when the store cannot be reached.
    """
    file = stores.database(uri)
    if file:
        database.make(file)
        database.check(file, experiment)
        database.settle(file, experiment)
    import mlflow  # about a second, so only here

    if file:
        database.check_schema(file)
    address = _for_mlflow(uri)
    mlflow.set_tracking_uri(address)
    client = mlflow.MlflowClient(address)
    opened = client.get_experiment_by_name(experiment)
    if opened is None:
        # Our own artifact folder: mlflow's default depends on where, and by what, the database was made.
        where = (file.parent / "mlruns" / file_name(experiment)).as_uri() if file else None
        with despite("RESOURCE_ALREADY_EXISTS"):  # another process was quicker
            client.create_experiment(experiment, artifact_location=where)
        opened = client.get_experiment_by_name(experiment)
    elif opened.lifecycle_stage == "deleted":
        raise database.deleted(uri, experiment, opened.experiment_id)
    return Store(uri, client, opened.experiment_id)


@contextlib.contextmanager
def despite(code: str) -> Iterator[None]:
    """Passes over that error of MLflow: what is to be made is there already, or what is asked for is not."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != code:
            raise


def check_server(uri: str) -> None:
    """Refuses a store on a server that takes no connection; behind a proxy, or without a host, mlflow finds out.

    Raises:
        ExperimentError: it takes none, and why.
    """
    from urllib.request import getproxies, proxy_bypass  # torch has loaded it where it is trained

    parts = urlsplit(without_login(uri))
    scheme = parts.scheme.partition("+")[0]
    try:
        host, port = parts.hostname, parts.port or PORTS.get(scheme)
    except ValueError as error:
        raise _unreachable(uri, error, "Put the port right") from error
    if not host or not port or (scheme in getproxies() and not proxy_bypass(host)):
        return
    failure = [f"no answer in {ANSWER:.0f} s"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), ANSWER).close()
            failure.clear()
        except OSError as error:
            failure[:] = [error.strerror or str(error)]

    thread = threading.Thread(target=connect, daemon=True)  # a name may be looked up for minutes
    thread.start()
    thread.join(ANSWER)
    for why in failure:
        raise _unreachable(uri, why, "Start it")


def _unreachable(uri: str, why: object, mend: str) -> ExperimentError:
    return ExperimentError(
        f"MLflow's server {without_login(uri)} cannot be reached: {why}.",
        f"{mend}, or name another store: tracking.uri=… or MLFLOW_TRACKING_URI.",
    )


def delete_run(uri: str, run_id: str) -> None:
    """Deletes that run from the store at *uri*, unless it is deleted already; `mlflow gc` erases it.

    Raises:
        Exception: whatever mlflow raises when the store cannot be reached, or has no such run.
    """
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    if client.get_run(run_id).info.lifecycle_stage == "active":
        client.delete_run(run_id)


def _for_mlflow(uri: str) -> str:
    """*uri*, but relative where it has an escaped sign: mlflow makes a folder of the path as the URI writes it."""
    file = stores.database(uri)
    relative = stores.in_file(Path(os.path.relpath(file))) if file and "%" in uri else ""
    return relative if relative and "%" not in relative else uri
