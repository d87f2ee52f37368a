"""Runs as a table: one row each."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd

from mnist_exp.disk import ledger
from mnist_exp.disk.files import read_json
from mnist_exp.results import query as search
from mnist_exp.results import ranking
from mnist_exp.results.names import Selection
from mnist_exp.results.query import Stored
from mnist_exp.results.ranking import FIELDS

FINAL = tuple(f"final/{split}_{what}" for split in ("val", "test", "train") for what in ("accuracy", "loss"))
"""Metrics that a table always has, NaN where they were not measured."""


def frame(selection: Selection) -> pd.DataFrame:
    """`load` for a name that is resolved already."""
    points = selection.sweep.points if selection.sweep else [[]] * len(selection.folders)
    rows = [_from_folder(i, *pair) for i, pair in enumerate(zip(selection.folders, points, strict=True))]
    if selection.query:
        rows = [_from_store(i, run) for i, run in enumerate(search.runs(selection.query))]
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
    """The columns of `load`'s table that are settings; the others describe a run, or with a slash are metrics."""
    return [c for c in map(str, table) if c not in FIELDS and "/" not in c]


def ids(folder: Path) -> dict[str, str]:
    """What MLflow calls the run in *folder*, `run_id` and `experiment_id`; empty if it is not tracked, or not yet."""
    try:
        note = read_json(folder / "mlflow.json")
        return {"run_id": note["run_id"], "experiment_id": note["experiment_id"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {"run_id": "", "experiment_id": ""}


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    """Description first, then settings, then metrics, each in the order in which they turn up."""
    seen = list(dict.fromkeys(key for row in rows for key in row))
    metrics = list(dict.fromkeys([*FINAL, *(c for c in seen if "/" in c)]))
    return [*FIELDS, *(c for c in seen if c not in FIELDS and c not in metrics), *metrics]


def _from_folder(number: int, folder: Path, point: list[str]) -> dict[str, Any]:
    """The row of a run on this machine; *point* is what its sweep planned."""
    entry, state, reason = ledger.status(folder)
    row: dict[str, Any] = {"number": number, "folder": folder, "overrides": point, "state": state, "reason": reason}
    row |= {"name": " ".join(point), "epoch": 0, "seconds": 0.0, "cpu_seconds": 0.0}
    row |= {"commit": "", "sweep": "", "run_id": "", "experiment_id": "", "dataset": ""}
    row |= ranking.settings(entry, point)
    if entry is None:
        return row | {"name": row["name"] or (folder.name if state == "damaged" else "")}
    return (
        row
        | ids(folder)
        | entry.summary
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
    where = urlsplit(run.artifacts)
    folder = Path(unquote(where.path)) if where.scheme in ("", "file") else None
    state = run.tags.get("state") or {"RUNNING": "running", "FINISHED": "finished"}.get(run.status, "failed")
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
        "dataset": "",
    }


def _commit(tags: dict[str, str]) -> str:
    return tags.get("git.commit", "") + ("-dirty" if tags.get("git.dirty") == "true" else "")
