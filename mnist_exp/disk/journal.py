"""`metrics.jsonl`: one JSON object for each finished epoch, in order, each epoch once.

The file is what MLflow is told from (`tracking/publish.py`) and what reports read. It keeps the time of each
row, so that sending a row twice stores it once.
"""

import json
from pathlib import Path
from typing import Any, final

from mnist_exp.disk.files import atomic_write

Row = dict[str, Any]
"""{"epoch": int, "step": int, "time_ms": int, "metrics": {name: float}}"""


def read(folder: Path) -> list[Row]:
    """The rows of the run in *folder*, up to the first that is damaged, such as a last line torn by a crash."""
    try:
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    rows: list[Row] = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if (
            not isinstance(row, dict)
            or row.get("epoch") != len(rows) + 1
            or not row.keys() >= {"step", "time_ms", "metrics"}
        ):
            break
        rows.append(row)
    return rows


@final
class Journal:
    """Appends to `metrics.jsonl`.

    Args:
        folder: The run's folder.
        history: Rows that belong to the state that training goes on from; those that the file lacks are added.
        repeats: Whether the epochs that follow are the same ones again that an earlier attempt had: then its rows of
            them are kept.
    """

    def __init__(self, folder: Path, history: list[Row], repeats: bool = True) -> None:
        self.path = folder / "metrics.jsonl"
        found = read(folder)
        self.rows = found if repeats and len(found) >= len(history) else history
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)
        if not self.path.exists() or self.path.read_bytes() != text.encode():
            atomic_write(self.path, text.encode())

    def history(self, epoch: int) -> list[Row]:
        """The rows up to *epoch*."""
        return self.rows[:epoch]

    def row(self, epoch: int, step: int, time_ms: int, metrics: dict[str, float]) -> Row:
        """The row for *epoch*: the one that an earlier attempt wrote, else a new one (not yet written)."""
        if epoch <= len(self.rows):
            return self.rows[epoch - 1]
        return {"epoch": epoch, "step": step, "time_ms": time_ms, "metrics": metrics}

    def append(self, row: Row) -> None:
        """Adds *row* unless its epoch is there."""
        if row["epoch"] <= len(self.rows):
            return
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
