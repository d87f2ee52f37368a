"""Brings MLflow up to date with a run's folder; safe to repeat, to interrupt and to resume.

The folder is authoritative. `mlflow.json` records what was sent (see `tracked`). Rows carry the time of their
measurement, and MLflow stores equal rows once, however often they are sent.
"""

import contextlib
import dataclasses
import enum
import json
import logging
import os
import platform
import posixpath
import re
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, final

import filelock

from mnist_exp import system
from mnist_exp.charts import run as figures
from mnist_exp.config import stores
from mnist_exp.config.secrets import without_login
from mnist_exp.disk import journal, ledger, provenance, tracked, trust
from mnist_exp.disk.files import atomic_write, tidy
from mnist_exp.disk.journal import Row
from mnist_exp.disk.layout import RunFolder, State
from mnist_exp.disk.ledger import Ledger
from mnist_exp.disk.tracked import TrackedRun
from mnist_exp.errors import ExperimentError, first_line
from mnist_exp.tracking import model, sweeps, views
from mnist_exp.tracking.store import Store, despite, open_store, source

log = logging.getLogger(__name__)

STATUS = {
    State.RUNNING: "RUNNING",
    State.FINISHED: "FINISHED",
    State.FAILED: "FAILED",
    State.PRUNED: "KILLED",
    State.KILLED: "KILLED",
}
# What MLflow takes (mlflow/utils/validation.py); a database may refuse what is longer.
LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 8000
PARAMS = 100  # in one call
ROWS = 80  # epochs in one call; MLflow takes 1000 metrics at once
ACCURACY, ERROR = "/accuracy", "/error"
FIRST = (RunFolder.config, RunFolder.difference, RunFolder.environment)
LAST = (RunFolder.log, RunFolder.ledger, RunFolder.journal, RunFolder.lanes, RunFolder.hits, RunFolder.weights)


def publish(folder: Path, store: Store, abandoned: bool = False) -> bool:
    """Sends what *store* lacks of the run in *folder*; of a foreign one no model, because loading that may run code.

    Args:
        abandoned: Its trainer has ended: a ledger that still says `running` means `killed`.

    Returns:
        Whether the run has ended and the store has all of it.

    Raises:
        Exception: whatever mlflow raises; a later call sends the rest, and nothing twice.
    """
    if abandoned:
        ledger.reap(folder)
    try:
        entry = ledger.read(folder)
    except ExperimentError:
        return abandoned  # it ended before its ledger was written: nothing to send
    own = trust.own(folder)
    with filelock.FileLock(RunFolder(folder).publishing):
        tidy(folder, *RunFolder.written_by_publisher)
        record = _tracked(folder, store, entry)
        if not record.introduced:
            _introduce(folder, store, entry, record.run_id)
            record.introduced = True
            tracked.write(folder, record)
        if entry.state != record.state and record.state != State.RUNNING:  # it was resumed
            store.client.update_run(record.run_id, status="RUNNING")
            record.state, record.figures = State.RUNNING, False
        rows = journal.read(folder)
        while part := rows[record.rows : record.rows + ROWS]:
            store.client.log_batch(record.run_id, metrics=[m for row in part for m in _metrics(row)])
            record.rows += len(part)
            tracked.write(folder, record)
        if entry.state != State.RUNNING and (extras := _extras(folder, store, entry, record, rows, own)):
            record = dataclasses.replace(record, **extras)
            tracked.write(folder, record)
        if entry.state != record.state:
            if entry.register and not entry.sweep and entry.state == State.FINISHED:
                if own:
                    record.registered = model.register(store, entry.register, record, entry.name) or record.registered
                else:
                    log.warning(model.FOREIGN, folder, entry.register)
            _finish(folder, store, entry, record.run_id)
            record.state = entry.state
            tracked.write(folder, record)
    return entry.state != State.RUNNING


@final
class Presence(enum.Enum):
    """How much of a run a store has."""

    LACKING = "It lacks something."
    WHOLE = "It has all of it."
    DELETED = "It had the run, and somebody has deleted it there."
    ELSEWHERE = "It has nothing, but another store was sent all of it."


def presence(folder: Path, entry: Ledger, store: Store) -> Presence:
    """How much of the run *store* has, by what it says itself: `mlflow.json` may claim more after an outage.

    If it lacks something, `mlflow.json` goes, so that the next `publish` sends everything.
    """
    record = _record(folder, store, entry) or TrackedRun()
    known = (record.id, record.store) == (entry.id, store.name)
    stored = _stored(store, record.run_id if known else store.run_id(entry.id))
    if stored and stored.info.lifecycle_stage == "deleted":
        return Presence.DELETED
    if record.id == entry.id:
        ended = stored and (stored.info.status, stored.data.tags.get("state")) == (STATUS[entry.state], entry.state)
        pictures = known and _unsent(folder, record)
        if ended and not pictures and _has_rows(store, stored.info.run_id, journal.read(folder)):
            return Presence.WHOLE
        file, delivered = stores.database(record.store), record.state == entry.state
        if delivered and not stored and not known and (not file or file.exists()):
            return Presence.ELSEWHERE
    system.unlink(RunFolder(folder).tracked)
    return Presence.LACKING


def _stored(store: Store, run_id: str) -> Any:
    """MLflow's run with that id; None if it has none."""
    with despite("RESOURCE_DOES_NOT_EXIST"):
        return store.client.get_run(run_id) if run_id else None
    return None


def _has_rows(store: Store, run_id: str, rows: list[Row]) -> bool:
    """Whether MLflow has all *rows*, by one metric: all of a row are stored at once."""
    key = next(iter(rows[0]["metrics"]), "") if rows else ""
    had = {(each.step, each.timestamp) for each in store.client.get_metric_history(run_id, key)} if key else set()
    return {(row["epoch"], row["time_ms"]) for row in rows if key} <= had


def close_orphans(root: Path, uri: str, but: Collection[Path]) -> None:
    """Marks own runs below *root* that lost trainer and publisher as killed, also in the store at *uri* if it has them.

    MLflow would show them as RUNNING forever. Runs of other machines are skipped: their locks cannot always be seen
    from here.

    Args:
        but: Running sweeps: their runs are published anyway.

    Raises:
        Exception: whatever mlflow raises; the next call sends the rest.
    """
    parents: dict[Path, Store] = {}
    for path in sorted(root.rglob(RunFolder.ledger)):
        folder = path.parent
        if folder.parent in but or not trust.own(folder):
            continue
        with contextlib.suppress(ExperimentError):  # damaged
            entry = ledger.read(folder)
            if entry.state == State.RUNNING and entry.host == socket.gethostname():
                ledger.reap(folder)
                entry = ledger.read(folder)
            record = tracked.read(folder) or TrackedRun()
            if (entry.state, record.state, record.store) == (State.KILLED, State.RUNNING, without_login(uri)):
                store = open_store(uri, entry.experiment)
                if store.client.get_run(record.run_id).info.lifecycle_stage == "deleted":
                    continue
                publish(folder, store)
                if entry.nested:
                    parents[folder.parent] = store
    for sweep, store in parents.items():
        sweeps.publish(sweep, store, over=True)


def _record(folder: Path, store: Store, entry: Ledger) -> TrackedRun | None:
    """The record of what was sent; that of a foreign folder only if the run that it names in *store* is this one.

    It could name any run of the user's, and rows would go there.
    """
    record = tracked.read(folder)
    if record and record.store == store.name and not trust.own(folder):
        stored = _stored(store, record.run_id)
        if not stored or stored.data.tags.get("run.id") != source(entry.id)["run.id"]:
            return None
    return record


def _tracked(folder: Path, store: Store, entry: Ledger) -> TrackedRun:
    """The record of what was sent; opens a run in the store if it has none for this ledger.

    A run that was deleted there and has gone on since is brought back.
    """
    record, where = _record(folder, store, entry), (entry.id, store.name, store.experiment_id)
    if record and (record.id, record.store, record.experiment_id) == where:
        stored = _stored(store, record.run_id) if entry.state != record.state else None
        if stored and stored.info.lifecycle_stage == "deleted":
            store.client.restore_run(record.run_id)
        if stored or entry.state == record.state:
            return record
    # A crash may have come between opening the run and writing the record: search before opening another.
    run_id = store.run_id(entry.id) or _open(folder, store, entry)
    page = tracked.address(store.experiment_id, run_id)
    record = TrackedRun(id=entry.id, store=store.name, experiment_id=store.experiment_id, run_id=run_id, page=page)
    tracked.write(folder, record)
    return record


def _open(folder: Path, store: Store, entry: Ledger) -> str:
    """Opens a run with its name and tags; returns its id."""
    views.welcome(store)
    tags = {
        **entry.tags,
        **source(entry.id),
        "host": entry.host,
        "threads": str(entry.threads),
        "platform": platform.platform(),
        "mlflow.user": os.environ.get("USER", ""),
        "mlflow.note.content": " ".join(entry.overrides),
    }
    if commit := entry.tags.get("git.commit"):
        tags["mlflow.source.git.commit"] = commit
    if entry.sweep:
        tags["sweep"] = entry.sweep
        if entry.nested:
            tags["mlflow.parentRunId"] = sweeps.parent(folder.parent, store, entry)
    tags, name = fitting(tags, LONGEST_TAG), _text(entry.name, LONGEST_KEY)
    return str(store.client.create_run(store.experiment_id, entry.started_ms, tags, run_name=name).info.run_id)


def _introduce(folder: Path, store: Store, entry: Ledger, run_id: str) -> None:
    """Sends params, dataset and the first files. May be repeated."""
    from mlflow.entities import Dataset, DatasetInput, Param

    sent = store.client.get_run(run_id).data.params  # MLflow refuses a second value
    params = [Param(key, value) for key, value in fitting(entry.params, LONGEST_PARAM).items() if key not in sent]
    for start in range(0, len(params), PARAMS):
        store.client.log_batch(run_id, params=params[start : start + PARAMS])
    if entry.dataset:
        page = entry.dataset.get("source")
        origin = ("http", json.dumps({"url": page})) if page else ("code", json.dumps({"tags": {}}))
        dataset = Dataset(entry.dataset["name"], entry.dataset["digest"], *origin)
        store.client.log_inputs(run_id, [DatasetInput(dataset)])
    atomic_write(RunFolder(folder).environment, provenance.environment().encode())
    _files(folder, store, run_id, FIRST)


def fitting(pairs: Mapping[str, Any], longest: int) -> dict[str, str]:
    """*pairs* as MLflow takes them: `_` for what it refuses in a key; keys and values cut at their longest."""
    fitted = {}
    for key, value in pairs.items():
        plain = re.sub(r"[^/\w.\- :]", "_", key)
        if posixpath.normpath(plain) != plain or plain.startswith(("/", ".")):  # it reads keys as paths
            plain = re.sub(r"^\.|/", "_", plain)
        fitted[plain[:LONGEST_KEY]] = _text(value, longest)
    return fitted


def _text(value: Any, longest: int) -> str:
    return str(value).replace("\0", "")[:longest]  # databases refuse the zero


def _files(folder: Path, store: Store, run_id: str, names: tuple[str, ...]) -> None:
    for name in names:
        if (folder / name).is_file():
            store.client.log_artifact(run_id, str(folder / name))


def _metrics(row: Row) -> list[Any]:
    """Those of the journal, and beside each accuracy the error rate: bars of 0.98 and 0.97 look alike.

    Those of validation come first: MLflow compares runs by the first one, unless asked for another.
    """
    from mlflow.entities import Metric

    values = dict(sorted(row["metrics"].items(), key=lambda item: not item[0].startswith("val/")))
    accuracies = {key: value for key, value in values.items() if key.endswith(ACCURACY)}
    values |= {key.removesuffix(ACCURACY) + ERROR: 1 - value for key, value in accuracies.items()}
    return [Metric(key, value, row["time_ms"], row["epoch"]) for key, value in values.items()]


def _extras(
    folder: Path, store: Store, entry: Ledger, record: TrackedRun, rows: list[Row], with_model: bool
) -> dict[str, Any]:
    """Sends new models and pictures; returns the fields of *record* that change.

    A sweep exports the model of its best run after that has ended.
    """
    sent: dict[str, Any] = {}
    files, run_id = RunFolder(folder), record.run_id
    if with_model and not record.model and files.model.is_file():
        data = trust.load(folder).data
        sent["model"] = model.logged(store, run_id) or model.log(files.model, data, store, run_id)
    if entry.figures and rows and not record.figures:
        try:
            files.figures.mkdir(exist_ok=True)
            figures.learning_curves(rows, entry.name).savefig(files.figures / "learning_curves.png", dpi=110)
            sent["figures"] = True
        except Exception as error:  # without the picture, the rest is still sent
            log.warning("The learning curves of %s could not be drawn: %s", folder, first_line(error))
    if pictures := _unsent(folder, record):
        for name in pictures:
            store.client.log_artifact(run_id, str(folder / name), str(Path(name).parent))
        sent["pictures"] = record.pictures | pictures
    return sent


def _unsent(folder: Path, record: TrackedRun) -> dict[str, int]:
    """New and changed pictures, such as those of `evaluate`: name → time of writing, in nanoseconds."""
    paths = sorted(folder.glob(f"{RunFolder.figures}/**/*.png"))
    written = {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in paths}
    return {name: time for name, time in written.items() if record.pictures.get(name) != time}


def _finish(folder: Path, store: Store, entry: Ledger, run_id: str) -> None:
    """Sends summary and files, then the status: a run with status FINISHED has everything."""
    from mlflow.entities import Metric, RunTag

    summary = [Metric(key, value, entry.until_ms, 0) for key, value in entry.summary.items()]
    ending = [RunTag("state", entry.state.value), RunTag("reason", entry.reason)]
    store.client.log_batch(run_id, metrics=summary, tags=ending)
    _files(folder, store, run_id, LAST)
    store.client.set_terminated(run_id, STATUS[entry.state], end_time=entry.until_ms)
