"""A store in an SQLite file: made once, and looked at without mlflow, whose import takes a second.

The facts behind each step (races, kills, artifact locations) were measured with mlflow 3.17.
"""

import contextlib
import glob
import os
import shlex
import sqlite3
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import filelock

from mnist_exp import system
from mnist_exp.config.secrets import without_login
from mnist_exp.config.stores import in_file, made, path_of
from mnist_exp.disk.files import file_name
from mnist_exp.errors import ExperimentError

ANEW = "Move it away, then send everything anew: python -m mnist_exp.sync"
OTHER = "choose another: tracking.experiment=<name>"
KEPT = (
    *(("runs", "artifact_uri"), ("logged_models", "artifact_location")),
    *(("model_versions", "source"), ("model_versions", "storage_location")),
)
"""Columns with addresses of files."""


def make(database: Path) -> None:
    """Makes an empty store, unless there is one: whole or not at all, despite other makers and kills.

    mlflow creates its tables without a lock: two first users at once break each other, and a kill in the middle breaks
    the file for good. So: a lock, a file under another name, and a link at the end.
    """
    if made(database) and not _strays(database):
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(database.with_name(f".{database.name}.lock")):
        for stray in _strays(database):
            system.unlink(stray)
        if made(database):
            return
        draft = database.with_name(f".{database.name}.{os.getpid()}.tmp")
        try:
            from mlflow.store.db import utils  # private, but what `mlflow db upgrade` runs

            engine = utils.create_sqlalchemy_engine(in_file(draft))
            utils._initialize_tables(engine)
            engine.dispose()
            if database.exists() and not made(database):  # `touch`, or a kill: nothing is lost
                system.replace(draft, database)
            else:
                with contextlib.suppress(FileExistsError):  # `mlflow ui` was quicker
                    os.link(draft, database)  # atomic, and never replaces a file
        finally:
            system.unlink(draft)


def _strays(database: Path) -> list[Path]:
    """Drafts that killed makers of *database* have left, and that of a living one."""
    return list(database.parent.glob(f".{glob.escape(database.name)}.*.tmp*"))


def check(database: Path, experiment: str) -> None:
    """Refuses a database that can take no runs of *experiment*; one that is locked is left to whoever tries.

    Raises:
        ExperimentError: it is damaged or cannot be written, or the experiment was deleted, or keeps its files on a
            server.
    """
    with _opened(database) as connection:
        row = _experiment(connection, experiment)
        if row and row[2] == "deleted":
            raise deleted(in_file(database), experiment, row[0])
        if row and row[1].startswith("mlflow-artifacts:"):
            raise ExperimentError(
                f"The experiment {experiment!r} in {database} was made by `mlflow ui` or a server, "
                "which alone can store its files.",
                f"Set MLFLOW_TRACKING_URI to the server, or {OTHER}",
            )
        connection.execute("BEGIN IMMEDIATE")  # what every write begins with
        connection.rollback()


def deleted(uri: str, experiment: str, id: int | str) -> ExperimentError:
    """The error for a deleted experiment in the store at *uri*: it takes no runs."""
    restore = f"MLFLOW_TRACKING_URI={shlex.quote(without_login(uri))} mlflow experiments restore -x {id}"
    return ExperimentError(
        f"The experiment {experiment!r} in {without_login(uri)} was deleted.", f"Bring it back: {restore}, or {OTHER}"
    )


def check_schema(database: Path) -> None:
    """Refuses a database with the schema of another mlflow; if it cannot be read, mlflow reports that itself.

    mlflow would migrate it in place, without a lock and without a backup, so the user must start that.

    Raises:
        ExperimentError: this mlflow has another schema, the file is damaged, or its maker was killed before its end.
    """
    tables, runs, version = set(), 0, ""
    with _opened(database) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "runs" in tables:
            (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
        if "alembic_version" in tables:
            version = connection.execute("SELECT max(version_num) FROM alembic_version").fetchone()[0] or ""
    if not tables:
        return
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils  # private, but what `mlflow db upgrade` asks

    revisions = [each.revision for each in ScriptDirectory.from_config(utils._get_alembic_config("")).walk_revisions()]
    if version == revisions[0]:
        return
    mend = f"Back it up, then: mlflow db upgrade {shlex.quote(in_file(database))}"
    if version and version not in revisions:
        mend = "A newer mlflow has made it: install that one, or name another store."
    elif not runs:  # an upgrade would fail in one of two cases: a table is there, and its version is not
        mend = f"It has no runs; if no program is making it just now: rm {shlex.quote(str(database))}"
    schema = f"has schema {version}" if version else "has no complete schema"
    mlflow = metadata.version("mlflow")
    raise ExperimentError(f"{database} {schema}, but mlflow {mlflow} wants {revisions[0]}.", mend)


def moved(database: Path, experiment: str) -> tuple[str, str]:
    """Where the files of *experiment* are kept, and where they belong, if its project was moved or copied; else empty.

    MLflow keeps absolute addresses: in a copy, files would go on being written into the original.
    """
    with _opened(database) as connection:
        if row := _experiment(connection, experiment):
            old = path_of(row[1])
            new = database.parent / "mlruns" / old.name
            named = old.parent.name == "mlruns" and old.name in (file_name(experiment), str(row[0]))
            left = not old.exists() or (old.parent.parent / database.name).exists()
            if named and left and old.resolve() != new.resolve() and urlsplit(row[1]).scheme in ("", "file"):
                return row[1], new.as_uri() if row[1].startswith("file:") else str(new)
    return "", ""


def settle(database: Path, experiment: str) -> None:
    """Makes the files of *experiment* belong to the folder that its project was `moved` to."""
    old, new = moved(database, experiment)
    if not old:
        return
    with _opened(database) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (new, old))
        if path_of(new).is_dir():  # its files came along
            for table, column in KEPT:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, len(old) + 1, f"{old}/"),
                )


def _experiment(connection: sqlite3.Connection, name: str) -> tuple[int, str, str] | None:
    """The experiment's id, where its files are kept, and whether it is `active` or `deleted`."""
    sql = "SELECT experiment_id, artifact_location, lifecycle_stage FROM experiments WHERE name = ?"
    row: tuple[int, str, str] | None = connection.execute(sql, (name,)).fetchone()
    return row


@contextlib.contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    """*database* for one question, which is dropped where it is locked or has no tables.

    Raises:
        ExperimentError: it is damaged, or cannot be written.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=0.5)) as connection:
            yield connection
    except sqlite3.OperationalError as error:
        if "readonly" in str(error) or "unable to open" in str(error):
            mend = f"Make it writable: chmod u+w {shlex.quote(str(database))}, or name another store."
            raise ExperimentError(f"{database} cannot be written: {error}.", mend) from error
    except sqlite3.DatabaseError as error:
        raise ExperimentError(f"{database} is damaged: {error}.", ANEW) from error
