"""What the page's figures draw: runs and their curves as numbers, once, for report/explore.js."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from mnist_exp.charts import style
from mnist_exp.charts import sweep as charts
from mnist_exp.charts.sweep import LEADING, finished, shares
from mnist_exp.config.secrets import hide
from mnist_exp.console import formats
from mnist_exp.report import board
from mnist_exp.report.board import Comparison
from mnist_exp.search.analysis import Analysis

EPOCHS = 40  # of a curve at most, at even distances and the last: 300 runs have 200 KB of them


def data(
    comparison: Comparison,
    runs: Mapping[Any, Mapping[str, Any]],
    histories: Mapping[Any, pd.DataFrame],
    searched: Analysis | None,
) -> dict[str, Any]:
    """What explore.js reads; accuracies in percent, what is unknown is null.

    `keys`: those in which the runs differ, by importance, see `_key`. `runs`: columns, one entry for each run.
    `curves`: for the position of a run its epochs and metrics.

    Args:
        runs: The runs that the page lists, by their index in the table; see `page`.
        histories: See `results.history`, by the same index.
        searched: None: the runs are not those of a search.
    """
    listed = list(runs)
    table, rows = comparison.table.loc[listed], comparison.rows
    split, keys = board.deciding_split(table), _keys(comparison, searched)
    time, clock = charts.clock(table)
    curves = {at: _curve(histories[index]) for at, index in enumerate(listed) if len(histories.get(index, ()))}
    facts = {
        "splits": board.measured(comparison.table),
        "split": split,
        "keys": [_key(table[key]) for key in keys],
        "clock": clock,
        "search": searched is not None,
        "settings": comparison.labels[: 1 + int(rows[listed].max())],  # the best ones are listed
        "leading": LEADING,
        "colours": style.COLOURS,
        "split_colours": style.SPLIT_COLOURS,
        "muted": style.MUTED,
        "split_names": formats.SPLIT_NAMES,
        "runs": {
            "setting": [int(rows[index]) for index in listed],
            "number": [run["number"] for run in runs.values()],
            "name": list(table["name"]),
            "state": list(table["state"]),
            "reason": list(table["reason"]),
            "command": [board.again(run) for run in table.to_dict("records")],
            "link": [run["link"] for run in runs.values()],
            "epoch": [int(epoch) for epoch in table["epoch"]],
            "time": [formats.seconds(time) for time in table["seconds"]],
            "seconds": _numbers(time, 1),
            "parameters": _numbers(table["parameters"], 1),
            **{each: _numbers(table[f"final/{each}_accuracy"], 100) for each in board.SPLITS},
        },
        "curves": {at: curve for at, curve in curves.items() if curve},
    }
    hidden: dict[str, Any] = _hidden(facts)
    return hidden


def embedded(facts: Mapping[str, Any]) -> Markup:
    """*facts* as JSON that a `<script>` element can hold: no text of theirs ends it."""
    return Markup(json.dumps(facts, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


def _keys(comparison: Comparison, searched: Analysis | None) -> list[str]:
    """The keys in which runs differ, the most important first: by Optuna's estimate, or the variance they explain."""
    table, split = comparison.table, board.deciding_split(comparison.table)
    several = [key for key in comparison.by if table[key].nunique() > 1]
    if "seed" in table and table["seed"].nunique() > 1:
        several.append("seed")
    known = dict(searched.importance) if searched else {}
    known = known or shares(finished(table, split), [key for key in several if key != "seed"], split)
    return sorted(several, key=lambda key: (key == "seed", -known.get(key, 0.0)))


def _key(column: "pd.Series[Any]") -> dict[str, Any]:
    """One key: its `name`, its `scale` (`linear`, `log` or `order`), and its `values`, of each run.

    They are texts where the scale is `order`, else numbers; `order` has each as text, once, unless there are many.
    """
    scale = style.scale(column)
    few, texts = len(scale.values) <= style.FEW, scale.kind == "order"
    order = [formats.whole(value) for value in scale.values] if few or texts else []
    known = column.astype(object).where(column.notna(), None)
    values = [value if value is None or not texts else formats.whole(value) for value in known]
    return {"name": str(column.name), "scale": scale.kind, "order": order, "values": values}


def _numbers(column: "pd.Series[Any]", unit: float) -> list[float | None]:
    """With six digits, in multiples of 1 / *unit*."""
    numbers = pd.to_numeric(column, errors="coerce")
    return [float(f"{unit * number:.6g}") if math.isfinite(number) else None for number in numbers]


def _curve(history: pd.DataFrame) -> dict[str, list[Any]]:
    """The epochs of one run, and what was measured after each; accuracies in percent."""
    at = np.unique(np.linspace(0, len(history) - 1, min(len(history), EPOCHS)).round().astype(int))
    thin = history.iloc[at]
    metrics = [f"{split}/{what}" for split in board.SPLITS for what in ("loss", "accuracy")]
    curve = {m: _numbers(thin[m], 100 if "accuracy" in m else 1) for m in metrics if m in thin}
    return {"epoch": [int(epoch) for epoch in thin["epoch"]]} | curve


def _hidden(facts: Any) -> Any:
    """*facts* without secrets in their texts, as tables show them; and with plain numbers."""
    if isinstance(facts, dict):
        return {key: _hidden(value) for key, value in facts.items()}
    if isinstance(facts, list):
        return [_hidden(value) for value in facts]
    if isinstance(facts, np.generic):
        return facts.item()
    return hide(facts) if isinstance(facts, str) else facts
