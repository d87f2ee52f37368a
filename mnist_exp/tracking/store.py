"""The MLflow store: where a bare `mlflow ui` looks for it, created once, opened by many processes.

The facts behind each step (races, kills, artifact locations) were measured with mlflow 3.17.
"""

import contextlib
import os
import re
import sqlite3
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, final

import filelock

from mnist_exp.config.secrets import without_login
from mnist_exp.config.stores import SQLITE, made
from mnist_exp.config.stores import database as file_of
from mnist_exp.disk.files import file_name
from mnist_exp.errors import ExperimentError


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
        ExperimentError: the database is damaged or of another mlflow, or the experiment stores artifacts through a
            server that this URI does not name.
        Exception: whatever mlflow raises when the store cannot be reached.
    """
    database = file_of(uri)
    if database and (not made(database) or _strays(database)):
        _create(database)
    import mlflow  # about a second, so only here
    from mlflow.exceptions import MlflowException

    if database:
        check_schema(database)
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri)
    opened = client.get_experiment_by_name(experiment)
    if opened is None:
        # Our own artifact folder: mlflow's default depends on where, and by what, the database was made.
        where = (database.parent / "mlruns" / file_name(experiment)).as_uri() if database else None
        try:
            client.create_experiment(experiment, artifact_location=where)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was quicker
                raise
        opened = client.get_experiment_by_name(experiment)
    if database and opened.artifact_location.startswith("mlflow-artifacts:"):
        raise ExperimentError(
            f"The experiment {experiment!r} in {database} was made by `mlflow ui` or a server, "
            "which alone can store its files.",
            "Choose another with tracking.experiment=<name>, or set MLFLOW_TRACKING_URI to the server.",
        )
    return Store(uri, client, opened.experiment_id)


def check_schema(database: Path) -> None:
    """Refuses a database with the schema of another mlflow; if it cannot be read, mlflow reports that itself.

    mlflow would migrate it in place, without a lock and without a backup, so the user must start that.

    Raises:
        ExperimentError: this mlflow has another schema, or the file is damaged.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.OperationalError, TypeError):  # locked, say, or without tables
        return
    except sqlite3.DatabaseError as error:
        raise ExperimentError(f"{database} is damaged: {error}.", "Move it away, then send everything anew.") from error
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils  # private, but what `mlflow db upgrade` asks

    revisions = [each.revision for each in ScriptDirectory.from_config(utils._get_alembic_config("")).walk_revisions()]
    if version == revisions[0]:
        return
    mend = f"Back it up, then: mlflow db upgrade {SQLITE}{database}"
    if version not in revisions:
        mend = "A newer mlflow has made it: install that one, or name another store."
    mlflow = metadata.version("mlflow")
    raise ExperimentError(f"{database} has schema {version}, but mlflow {mlflow} wants {revisions[0]}.", mend)


def _strays(database: Path) -> list[Path]:
    """Drafts that killed makers of *database* have left, and that of a living one."""
    return list(database.parent.glob(f".{database.name}.*.tmp*"))


def _create(database: Path) -> None:
    """Makes an empty store, whole or not at all, despite other makers and kills.

    mlflow creates its tables without a lock: two first users at once break each other, and a kill in the middle breaks
    the file for good. So: a lock, a file under another name, and a link at the end.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(database.with_name(f".{database.name}.lock")):
        for stray in _strays(database):
            stray.unlink()
        if made(database):
            return
        draft = database.with_name(f".{database.name}.{os.getpid()}.tmp")
        try:
            from mlflow.store.db import utils  # private, but what `mlflow db upgrade` runs

            engine = utils.create_sqlalchemy_engine_with_retry(f"{SQLITE}{draft}")
            utils._initialize_tables(engine)
            engine.dispose()
            if database.exists() and not made(database):
                database.unlink()
            with contextlib.suppress(FileExistsError):  # `mlflow ui` was quicker
                os.link(draft, database)  # atomic, and never replaces a file
        finally:
            draft.unlink(missing_ok=True)
