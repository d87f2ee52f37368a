"""Brings MLflow up to date with a run's folder; safe to repeat, to interrupt and to resume.

The folder is the truth. What was sent is noted in `mlflow.json`; rows carry the time at which they were
measured, and MLflow stores equal rows once however often they are sent.
"""

import json
import logging
import os
import platform
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

from mnist_exp.charts import run as figures
from mnist_exp.disk import journal, ledger, provenance
from mnist_exp.disk.files import atomic_write, read_json, tidy, write_json
from mnist_exp.disk.journal import Row
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ExperimentError, first_line
from mnist_exp.tracking import model, sweeps, views
from mnist_exp.tracking.store import Store

log = logging.getLogger(__name__)

STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "pruned": "KILLED",
    "killed": "KILLED",
}
# What MLflow takes (mlflow/utils/validation.py); a database may refuse what is longer.
LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 8000
PARAMS = 100  # in one call
ROWS = 100  # epochs in one call; MLflow takes 1000 metrics at once
FIRST = ("config.yaml", "code.diff", "environment.txt")
LAST = ("train.log", "ledger.json", "metrics.jsonl", "pack.json", "weights.safetensors")


def publish(folder: Path, store: Store, abandoned: bool = False, register: bool = True) -> bool:
    """Sends what *store* lacks of the run in *folder*.

    Args:
        abandoned: Whoever trained it is gone: a ledger that still says `running` means `killed`.
        register: Whether its model is registered if its ledger wants that.

    Returns:
        Whether the run has ended and the store has all of it.

    Raises:
        Exception: whatever mlflow raises; call again later, nothing is lost or sent twice.
    """
    if abandoned:
        ledger.reap(folder)
    try:
        entry = ledger.read(folder)
    except ExperimentError:
        return abandoned  # it ended before it began: there is nothing to show
    with filelock.FileLock(folder / ".mlflow.lock"):
        tidy(folder, "mlflow.json", "environment.txt")
        note = _note(folder, store, entry)
        run_id = note["run_id"]
        if not note.get("introduced"):
            _introduce(folder, store, entry, run_id)
            note["introduced"] = True
            write_json(folder / "mlflow.json", note)
        if entry.state != note["state"] and note["state"] != "running":  # it was resumed
            store.client.update_run(run_id, status="RUNNING")
            note |= {"state": "running", "figures": False}
        rows = journal.read(folder)
        while part := rows[note["rows"] : note["rows"] + ROWS]:
            store.client.log_batch(run_id, metrics=[m for row in part for m in _metrics(row)])
            note["rows"] += len(part)
            write_json(folder / "mlflow.json", note)
        if entry.state != "running" and (extras := _extras(folder, store, entry, note, rows)):
            note |= extras
            write_json(folder / "mlflow.json", note)
        if entry.state != note["state"]:
            if register and entry.register and not entry.sweep:
                note |= _register(store, entry, note)
            _finish(folder, store, entry, run_id)
            note["state"] = entry.state
            write_json(folder / "mlflow.json", note)
    return entry.state != "running"


def complete(folder: Path, entry: Ledger, store: Store) -> bool:
    """Whether a store has all of the run: this one, or another that it was sent to.

    What was sent to this one is looked for: somebody may have deleted it, and then it is sent anew.
    """
    from mlflow.exceptions import MlflowException

    try:
        note = read_json(folder / "mlflow.json")
    except (OSError, ValueError):
        return False
    if note["id"] != entry.id or note["state"] != entry.state:
        return False
    if note["store"] != store.name:
        return True
    if _unsent(folder, note):
        return False
    try:
        store.client.get_run(note["run_id"])
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        (folder / "mlflow.json").unlink()
        return False
    return True


def _note(folder: Path, store: Store, entry: Ledger) -> dict[str, Any]:
    """What was sent so far; opens a run in the store if it has none for this ledger."""
    path = folder / "mlflow.json"
    try:
        note: dict[str, Any] = read_json(path)
        if note["id"] == entry.id and note["experiment_id"] == store.experiment_id and note["store"] == store.name:
            return note
    except (OSError, ValueError, KeyError):
        pass
    # A crash may have come between opening the run and writing the note: look before opening another.
    found = store.client.search_runs([store.experiment_id], f"tags.`run.id` = '{entry.id}'", max_results=1)
    run_id = found[0].info.run_id if found else _open(folder, store, entry)
    note = {
        "id": entry.id,
        "store": store.name,
        "experiment_id": store.experiment_id,
        "run_id": run_id,
        "page": f"#/experiments/{store.experiment_id}/runs/{run_id}?workflowType=machine_learning",
        "introduced": False,
        "rows": 0,
        "state": "running",
        "figures": False,
    }
    write_json(path, note)
    return note


def _open(folder: Path, store: Store, entry: Ledger) -> str:
    """A new run with its name and tags; returns its id."""
    views.welcome(store)
    tags = {
        **entry.tags,
        "run.id": entry.id,
        "host": entry.host,
        "threads": str(entry.threads),
        "platform": platform.platform(),
        "mlflow.source.name": "mnist_exp.train",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": os.environ.get("USER", ""),
        "mlflow.note.content": " ".join(entry.overrides),
    }
    if commit := entry.tags.get("git.commit"):
        tags["mlflow.source.git.commit"] = commit
    if entry.sweep:
        tags["sweep"] = entry.sweep
        if entry.nested:
            tags["mlflow.parentRunId"] = sweeps.parent(folder.parent, store, entry)
    run = store.client.create_run(
        store.experiment_id, entry.started_ms, fitting(tags, LONGEST_TAG), run_name=_text(entry.name, LONGEST_KEY)
    )
    run_id: str = run.info.run_id
    return run_id


def _introduce(folder: Path, store: Store, entry: Ledger, run_id: str) -> None:
    """What a run has from its beginning: params, dataset and files. May be repeated; what is there stays."""
    from mlflow.entities import Dataset, DatasetInput, Param

    there = store.client.get_run(run_id).data.params  # a second value for one would be refused
    params = [Param(key, value) for key, value in fitting(entry.params, LONGEST_PARAM).items() if key not in there]
    for start in range(0, len(params), PARAMS):
        store.client.log_batch(run_id, params=params[start : start + PARAMS])
    if entry.dataset:
        page = entry.dataset.get("source")
        source = ("http", json.dumps({"url": page})) if page else ("code", json.dumps({"tags": {}}))
        dataset = Dataset(entry.dataset["name"], entry.dataset["digest"], *source)
        store.client.log_inputs(run_id, [DatasetInput(dataset)])
    atomic_write(folder / "environment.txt", provenance.environment().encode())
    _files(folder, store, run_id, FIRST)


def fitting(pairs: Mapping[str, Any], longest: int) -> dict[str, str]:
    """Keys and values as MLflow takes them: what it refuses in a key becomes `_`, what is too long is cut."""
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
    from mlflow.entities import Metric

    return [Metric(key, value, row["time_ms"], row["epoch"]) for key, value in row["metrics"].items()]


def _register(store: Store, entry: Ledger, note: dict[str, Any]) -> dict[str, str]:
    """Makes a single run's model a version of the registered model that was asked for."""
    if entry.state != "finished":
        return {}
    if "model" not in note:
        log.warning("%s has no model.pt2: nothing was registered as %s.", entry.name, entry.register)
        return {}
    return {"registered": model.register(store, entry.register, note["model"], note["run_id"])}


def _extras(folder: Path, store: Store, entry: Ledger, note: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """Sends model and pictures, unless they were; a sweep makes those of its best run after all have ended."""
    sent: dict[str, Any] = {}
    if "model" not in note and (folder / "model.pt2").is_file():
        sent["model"] = model.logged(store, note["run_id"]) or model.log(folder / "model.pt2", store, note["run_id"])
    if entry.figures and rows and not note["figures"]:
        try:
            (folder / "figures").mkdir(exist_ok=True)
            figures.learning_curves(rows, entry.name).savefig(folder / "figures" / "learning_curves.png", dpi=110)
            sent["figures"] = True
        except Exception as error:  # a picture is no reason to keep back the rest
            log.warning("The learning curves of %s could not be drawn: %s", folder, first_line(error))
    if pictures := _unsent(folder, note):
        for name in pictures:
            store.client.log_artifact(note["run_id"], str(folder / name), str(Path(name).parent))
        sent["pictures"] = {**note.get("pictures", {}), **pictures}
    return sent


def _unsent(folder: Path, note: dict[str, Any]) -> dict[str, int]:
    """Pictures that are new or newer than what was sent, such as those of `evaluate`: name → when it was written."""
    found = {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.glob("figures/**/*.png"))}
    sent = note.get("pictures", {})
    return {name: written for name, written in found.items() if sent.get(name) != written}


def _finish(folder: Path, store: Store, entry: Ledger, run_id: str) -> None:
    """Summary and files, then the status: a run that says FINISHED has everything."""
    from mlflow.entities import Metric, RunTag

    assert entry.ended_ms is not None
    summary = [Metric(key, value, entry.ended_ms, 0) for key, value in entry.summary.items()]
    ending = [RunTag("state", entry.state), RunTag("reason", entry.reason)]
    store.client.log_batch(run_id, metrics=summary, tags=ending)
    _files(folder, store, run_id, LAST)
    store.client.set_terminated(run_id, STATUS[entry.state], end_time=entry.ended_ms)
