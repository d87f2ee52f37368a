"""`metrics.jsonl`: one JSON object per finished epoch, in order, each epoch once.

MLflow (`tracking/runs.py`) and reports take the metrics from it. Each row has its time, so MLflow stores a row once
even if it is sent twice.
"""

import json
from pathlib import Path
from typing import Any, final

from mnist_exp.disk.files import atomic_write, parse_json
from mnist_exp.disk.layout import RunFolder
from mnist_exp.disk.records import fits

Row = dict[str, Any]
"""{"epoch": int, "step": int, "time_ms": int, "metrics": {name: float}}"""
REST = {"step": int, "time_ms": int, "metrics": dict[str, float]}


def read(folder: Path) -> list[Row]:
    """The rows of the run in *folder*, up to the first that is damaged, such as a last line torn by a crash."""
    try:
        text = RunFolder(folder).journal.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    rows: list[Row] = []
    for line in text.splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            break
        if not is_row(row, len(rows) + 1):
            break
        rows.append(row)
    return rows


def is_row(row: Any, epoch: int) -> bool:
    """Whether *row*, from a file, is that of *epoch*."""
    return (
        isinstance(row, dict)
        and row.get("epoch") == epoch
        and all(fits(row.get(key), kind) for key, kind in REST.items())
        and row["metrics"].get("time/epoch", -1) >= 0
        and all(0 <= share <= 1 for name, share in row["metrics"].items() if name.endswith("/accuracy"))
    )


@final
class Journal:
    """Appends to `metrics.jsonl`.

    Args:
        folder: The run's folder.
        history: The rows of the checkpoint that training resumes from; missing ones are added to the file.
        repeats: Whether training repeats the epochs of an earlier attempt exactly: then the rows of that are kept.
    """

    def __init__(self, folder: Path, history: list[Row], repeats: bool = True) -> None:
        self.path = RunFolder(folder).journal
        stored = read(folder)
        self.rows = stored if repeats and len(stored) >= len(history) else history
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)
        if not self.path.exists() or self.path.read_bytes() != text.encode():
            atomic_write(self.path, text.encode())

    def row(self, epoch: int, step: int, time_ms: int, metrics: dict[str, float]) -> Row:
        """The row of *epoch*: that of an earlier attempt, else a new one (not yet written)."""
        if epoch <= len(self.rows):
            return self.rows[epoch - 1]
        return {"epoch": epoch, "step": step, "time_ms": time_ms, "metrics": metrics}

    def append(self, row: Row) -> None:
        """Adds *row* unless the file has its epoch."""
        if row["epoch"] <= len(self.rows):
            return
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
