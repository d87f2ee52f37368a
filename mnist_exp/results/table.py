"""Runs as a table: one row each."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from mnist_exp.config.stores import path_of
from mnist_exp.disk import ledger, tracked
from mnist_exp.disk.layout import State
from mnist_exp.disk.tracked import TrackedRun
from mnist_exp.results import query, ranking
from mnist_exp.results.names import Selection
from mnist_exp.results.query import Stored
from mnist_exp.results.ranking import FIELDS

FINAL = tuple(f"final/{split}_{what}" for split in ("val", "test", "train") for what in ("accuracy", "loss"))
"""Metrics that a table always has; NaN if not measured."""
UNKNOWN: dict[str, Any] = {"epoch": 0, "seconds": 0.0, "cpu_seconds": 0.0} | dict.fromkeys(
    ("name", "commit", "sweep", "run_id", "experiment_id", "dataset"), ""
)
"""What a row has of a run of which nothing more is known."""


def frame(selection: Selection) -> pd.DataFrame:
    """`results.load` of a resolved name."""
    points = selection.sweep.points if selection.sweep else [[]] * len(selection.folders)
    without = selection.sweep.repeats if selection.sweep else []
    pairs = enumerate(zip(selection.folders, points, strict=True))
    rows = [_from_folder(i, *pair) for i, pair in pairs if i not in without]
    if selection.query:
        rows = [_from_store(i, run) for i, run in enumerate(query.runs(selection.query))]
    if selection.sweep:
        for row in rows:
            row["sweep"] = selection.sweep.id
    table = pd.DataFrame(rows, columns=_columns(rows), dtype=object)
    for metric in (c for c in map(str, table) if "/" in c):
        table[metric] = table[metric].astype(float)
    for time in ("started", "ended"):
        table[time] = pd.to_datetime(table[time], unit="ms", utc=True)
    # Incomplete columns stay objects: a missing value would turn whole numbers into floats.
    complete = table.columns[table.notna().all()]
    return table.astype({column: table[column].infer_objects().dtype for column in complete})


def settings(table: pd.DataFrame) -> list[str]:
    """The columns of the table that are settings; others describe a run, or are metrics (with a slash)."""
    return [c for c in map(str, table) if c not in FIELDS and "/" not in c]


def ids(folder: Path) -> dict[str, str]:
    """The `run_id` and `experiment_id` in MLflow of the run in *folder*; empty if it is not tracked, or not yet."""
    record = tracked.read(folder) or TrackedRun()
    return {"run_id": record.run_id, "experiment_id": record.experiment_id}


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    """Description, then settings, then metrics, each in the order of their first row."""
    seen = list(dict.fromkeys(key for row in rows for key in row))
    metrics = list(dict.fromkeys([*FINAL, *(c for c in seen if "/" in c)]))
    return [*FIELDS, *(c for c in seen if c not in FIELDS and c not in metrics), *metrics]


def _from_folder(number: int, folder: Path, point: list[str]) -> dict[str, Any]:
    """The row of a run on this machine; *point* are its overrides in the plan of its sweep."""
    entry, state, reason = ledger.status(folder)
    row = UNKNOWN | {"number": number, "folder": folder, "overrides": point, "reason": reason, "state": state.value}
    row |= ranking.settings(entry, point)
    if entry is None:
        return row | {"name": " ".join(point) or (folder.name if state == State.DAMAGED else "")}
    return (
        row
        | ids(folder)
        | {metric: number for metric, number in entry.summary.items() if "/" in metric}  # no name of another column
        | {
            "name": entry.name,
            "epoch": entry.epoch,
            "seconds": entry.seconds,
            "cpu_seconds": entry.summary.get("time/total_cpu", 0.0),
            "parameters": entry.parameters,
            "started": entry.started_ms,
            "ended": entry.ended_ms,
            "overrides": entry.overrides or point,
            "commit": _commit(entry.tags),
            "sweep": entry.sweep,
            "dataset": entry.dataset.get("digest", ""),
        }
    )


def _from_store(number: int, run: Stored) -> dict[str, Any]:
    """The row of a run that an MLflow store knows."""
    if fault := run.fault:
        about = {"number": number, "name": run.run_id, "state": State.DAMAGED.value, "reason": f"In MLflow {fault}."}
        return UNKNOWN | about | {"folder": None, "overrides": [], "run_id": run.run_id}
    folder = path_of(run.artifacts) if urlsplit(run.artifacts).scheme in ("", "file") else None
    ended = State.FINISHED if run.status == "FINISHED" else State.FAILED
    state = run.tags.get("state") or (State.RUNNING if run.status == "RUNNING" else ended).value
    row = {key: ranking.typed(value) for key, value in run.params.items()}
    row |= {key: value for key, value in run.metrics.items() if key.startswith(("final/", "best/"))}
    return row | {
        "number": number,
        "name": run.name,
        "state": state,
        "reason": run.tags.get("reason", ""),
        "epoch": max((run.steps[key] for key in run.steps if key.startswith("train/")), default=0),
        "seconds": run.metrics.get("time/total", 0.0),
        "cpu_seconds": run.metrics.get("time/total_cpu", 0.0),
        "parameters": int(run.metrics.get("model/parameters", 0)),
        "started": run.started_ms,
        "ended": run.ended_ms,
        "folder": folder if folder and folder.is_dir() else None,
        "overrides": run.tags.get("mlflow.note.content", "").split(),
        "commit": _commit(run.tags),
        "sweep": run.tags.get("sweep", ""),
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "dataset": run.digest,
    }


def _commit(tags: dict[str, str]) -> str:
    return tags.get("git.commit", "") + ("-dirty" if tags.get("git.dirty") == "true" else "")
