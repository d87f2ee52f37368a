"""Pictures of a search: how it went, which keys mattered, and what each value came to. Accuracies in percent."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from mnist_exp.charts import style
from mnist_exp.charts.style import Picture, drawn
from mnist_exp.charts.sweep import dots
from mnist_exp.console.formats import percent
from mnist_exp.disk.layout import State
from mnist_exp.search.analysis import Analysis

Column: TypeAlias = "pd.Series[Any]"


def pictures(
    table: pd.DataFrame, by: Sequence[str], analysis: Analysis, split: str
) -> tuple[list[Picture], list[Picture]]:
    """How the search in *analysis* went, and the objective over each key *by* which the runs of *table* differ."""
    objectives = analysis.search.objectives or [f"final/{split}_accuracy"]
    objective, direction = objectives[0], analysis.search.directions[0]
    ended = table[table["state"].isin([state for state in State if state.done]) & table[objective].notna()]
    if analysis.search.replicates:
        ended = trials(ended, objectives, analysis.search.runs)
    if not (ended["state"] == State.FINISHED).any():
        return [], []
    drawings = [history(ended, objective, direction)]
    if analysis.importance:
        drawings.append(importance(analysis.importance, objective))
    if len(objectives) == 2:
        drawings.append(front(ended[ended["state"] == State.FINISHED], objectives, analysis.front))
    keys = [key for key in dict.fromkeys([*analysis.importance, *by]) if key in ended and ended[key].nunique() > 1]
    return drawings, [slice_of(ended, key, objective) for key in keys]


def trials(ended: pd.DataFrame, objectives: Sequence[str], runs: int) -> pd.DataFrame:
    """A row for each trial of so many *runs*, with the means of their objectives; it was pruned if one of them was."""
    by = ended.groupby(ended["number"] // runs)
    rows = by.first().assign(**{key: by[key].mean() for key in objectives}, number=by["number"].first() // runs)
    pruned = (ended["state"] == State.PRUNED).groupby(ended["number"] // runs).any()
    return rows.assign(state=pruned.map({True: State.PRUNED, False: State.FINISHED}))


@drawn
def history(ended: pd.DataFrame, objective: str, direction: str) -> Picture:
    """The objective of each run in the order of asking, and the best so far."""
    figure, axes = style.canvas()
    values, done = units(ended[objective]), ended["state"] == State.FINISHED
    bottom = _frame(axes, values, done, objective)
    _dots(axes, ended["number"], values, done, bottom)
    finished = values[done]
    best = finished.cummax() if direction == "maximize" else finished.cummin()
    axes.step(ended["number"][done], best, where="post", color=style.COLOURS[1], linewidth=1.4, label="best so far")
    axes.set(xlabel="run", ylabel=label(objective))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower left", ncols=3)
    pruned = len(ended) - int(done.sum())
    about = f"{len(ended)} runs in order, {pruned} of them pruned"
    alt = f"{label(objective)} of {about}; the best has {best.iloc[-1]:.4g}."
    return Picture("search_history", "How the search went", alt, figure)


@drawn
def importance(shares: dict[str, float], objective: str) -> Picture:
    """Share of each key in the objective's variation, as Optuna estimates it."""
    figure, axes = style.canvas(height=1.2 + 0.3 * len(shares))
    names = list(shares)[::-1]
    bars = axes.barh(names, [100 * shares[name] for name in names], color=style.COLOURS[0], height=0.6)
    axes.bar_label(bars, fmt="%.0f %%", padding=3, color=style.INK)
    axes.set(xlabel=f"share in the variation of {label(objective)}", xlim=(0, 108 * max(shares.values())))
    axes.grid(axis="y", visible=False)
    alt = "Importance: " + ", ".join(f"{key} {percent(share, 0)}" for key, share in shares.items()) + "."
    return Picture("search_importance", "Which keys matter", alt, figure)


@drawn
def slice_of(ended: pd.DataFrame, key: str, objective: str) -> Picture:
    """The objective over the values of one key; later runs are brighter, pruned ones hollow."""
    figure, axes = style.canvas()
    chosen = ended[ended[key].notna()]
    values, done = units(chosen[objective]), chosen["state"] == State.FINISHED
    bottom = _frame(axes, values, done, objective)
    order = ScalarMappable(Normalize(0, max(int(ended["number"].max()), 1)), matplotlib.colormaps["viridis"])
    colours = order.to_rgba(np.array(chosen["number"], float))
    _dots(axes, _across(axes, chosen[key]), values, done, bottom, colours[np.array(done)])
    axes.set(xlabel=key, ylabel=label(objective))
    axes.margins(x=0.08)
    figure.colorbar(order, ax=axes).set_label("run")
    figure.legend(loc="outside lower left", ncols=3)
    alt = f"{label(objective)} of {len(chosen)} runs over {key}."
    return Picture(f"search_{style.plain(key)}", key, alt, figure)


@drawn
def front(done: pd.DataFrame, objectives: Sequence[str], best: Sequence[int]) -> Picture:
    """Two objectives against each other, with the runs that nothing beats in both."""
    figure, axes = style.canvas()
    y, x = units(done[objectives[0]]), units(done[objectives[1]])
    chosen = done["number"].isin(best)
    low, high = style.limits(y) if "accuracy" in objectives[0] else (float(y.min()), float(y.max()))
    dots(axes, x, y, low, "run")
    line = pd.DataFrame({"x": x, "y": y})[chosen & (y >= low)].sort_values("x")
    axes.plot(line["x"], line["y"], color=style.COLOURS[1], marker="D", markersize=5, label="nothing is better in both")
    axes.set(xlabel=label(objectives[1]), ylabel=label(objectives[0]))
    if "accuracy" in objectives[0]:
        axes.set_ylim(low, high)
    style.spread(axes, x, 4)
    figure.legend(loc="outside lower left", ncols=3)
    alt = f"{label(objectives[0])} against {label(objectives[1])} of {len(done)} runs; {len(line)} are on the front."
    return Picture("search_front", "Pareto front", alt, figure)


def units(column: Column) -> Column:
    """Accuracies in percent, all else as it is."""
    numbers = column.astype(float)
    return 100 * numbers if "accuracy" in str(column.name) else numbers


def label(objective: str) -> str:
    """`final/val_accuracy` as one reads it."""
    text = objective.rpartition("/")[2].replace("val_", "validation ").replace("train_", "training ")
    return f"{text.replace('_', ' ')}{', %' if 'accuracy' in text else ''}"


def _across(axes: Axes, column: Column) -> Column:
    """Positions of the values of a key: as numbers on an axis where they were drawn from an interval."""
    positions = style.scale(column)
    if positions.kind == "order" and not all(isinstance(v, (int, float)) for v in positions.values):
        positions.label(axes, "x", str(column.name))
        return pd.Series(positions.at(column), column.index)
    numbers = column.astype(float)
    style.spread(axes, numbers, 8)
    return numbers


def _frame(axes: Axes, values: Column, done: Column, objective: str) -> float:
    """Limits that show good runs apart; returns the lowest value that is shown."""
    if "accuracy" not in objective:
        return -np.inf
    low, high = style.limits(values[done])
    low = min(low, float(values.median()))
    axes.set_ylim(low, high)
    return low


def _dots(axes: Axes, x: Column, y: Column, done: Column, bottom: float, colours: Any = style.COLOURS[0]) -> None:
    """Finished runs filled, pruned ones hollow; how many lie below the frame is said."""
    inside = y >= bottom
    chosen = done & inside
    shades = colours if isinstance(colours, str) else colours[np.array(inside[done])]
    filled: Any = {"linewidths": 0, "label": "finished", **style.dotted(len(x), 24)}
    axes.scatter(x[chosen], y[chosen], c=shades, **filled)
    if not done.all():
        hollow: Any = {"facecolors": "none", "edgecolors": style.MUTED, "label": "pruned"}
        axes.scatter(x[~done & inside], y[~done & inside], **hollow, **style.dotted(len(x), 22))
    style.left_out(axes, int((~inside).sum()), bottom, "run")
