"""Pictures of many runs. Accuracies are drawn in percent."""

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mnist_exp.charts import style
from mnist_exp.charts.style import Picture, drawn
from mnist_exp.console.formats import SPLIT_NAMES, percent, value, whole
from mnist_exp.disk.layout import State
from mnist_exp.results import statistics
from mnist_exp.results.ranking import LOST

Numbers: TypeAlias = "pd.Series[float]"
WIDE = 34  # characters of a label, of which two do not fit side by side
LEADING = len(style.COLOURS)  # settings that curves distinguish


@drawn
def heat_map(table: pd.DataFrame, x: str, y: str, split: str) -> Picture:
    """Mean final accuracy for each pair of values of two keys, with the number of runs; failed cells hatched.

    Keys with many values, or mostly empty cells, as a search has, are drawn as points instead of cells. Runs
    without one of the keys, such as a CNN's without `hidden`, are left out.
    """
    column = f"final/{split}_accuracy"
    table = table[[x, y, "state", column]].dropna(subset=[x, y])
    figure, axes = style.canvas()
    done = finished(table, split)
    lost = table[table["state"].isin(LOST)]
    across, up = style.scale(table[x]), style.scale(table[y])
    low, high = style.limits(100 * done[column])
    shades = ScalarMappable(Normalize(low, min(high, 100)), matplotlib.colormaps["viridis"])
    cells = max(len(across.values), len(up.values))  # along one axis
    grid = len(table[[x, y]].drop_duplicates()) >= len(across.values) * len(up.values) / 2
    if cells <= style.FEW and grid:
        axes.grid(False)
        left, bottom = across.edges, up.edges
        axes.set(xlim=left[[0, -1]], ylim=bottom[[0, -1]])
        accuracies = {pair: 100 * cell for pair, cell in done.groupby([x, y], sort=False)[column]}
        failures = lost.groupby([x, y], sort=False).size().to_dict()
        for (i, a), (j, b) in itertools.product(enumerate(across.values), enumerate(up.values)):
            accuracy, failed = accuracies.get((a, b), pd.Series(dtype=float)), failures.get((a, b), 0)
            _cell(axes, left[i : i + 2], bottom[j : j + 2], accuracy, failed, shades, small=cells > 6)
    else:
        if len(lost):
            cross = {"marker": "x", "color": style.MUTED, "label": "failed", **style.dotted(len(lost), 36)}
            axes.scatter(across.at(lost[x]), up.at(lost[y]), **cross)
            axes.legend()
        colours = shades.to_rgba(np.array(100 * done[column]))
        edges: Any = {"edgecolors": style.INK, "linewidths": 0.5} if len(done) <= style.MANY else {"linewidths": 0}
        axes.scatter(across.at(done[x]), up.at(done[y]), c=colours, **edges, **style.dotted(len(done), 36))
    across.label(axes, "x", x)
    up.label(axes, "y", y)
    bar = figure.colorbar(shades, ax=axes, extend="min" if 100 * done[column].min() < low else "neither")
    bar.set_label(f"{SPLIT_NAMES[split]} accuracy, %")
    highest = done.iloc[int(done[column].argmax())]
    where = f"{x} {value(highest[x])} and {y} {value(highest[y])}"
    alt = f"Heat map of mean {SPLIT_NAMES[split]} accuracy over {x} and {y}: the highest run, "
    alt += f"{percent(highest[column])}, has {where}; {len(lost)} of {len(table)} runs failed."
    return Picture(f"heat_map_{style.plain(x)}_{style.plain(y)}", f"{x} × {y}", alt, figure)


def _cell(axes: Axes, x: Any, y: Any, accuracy: Numbers, failed: int, shades: ScalarMappable, small: bool) -> None:
    """One cell of a heat map, *x* (2,) and *y* (2,): mean and number of its finished runs, hatched if others failed."""
    corner, size = (x[0], y[0]), (x[1] - x[0], y[1] - y[0])
    lines = [f"{accuracy.mean():.2f}"] if len(accuracy) else []
    lines += [f"n={len(accuracy)}"] if len(accuracy) and not small else []
    lines += [f"{failed} failed"] if failed else []
    ink, behind = style.INK, None
    if len(accuracy):
        colour = shades.to_rgba(np.array(accuracy.mean()))
        axes.add_patch(Rectangle(corner, *size, facecolor=colour))
        ink = "black" if np.dot(colour[:3], (0.3, 0.6, 0.1)) > 0.5 else "white"
    if failed:
        axes.add_patch(Rectangle(corner, *size, fill=False, hatch="////", edgecolor=style.MUTED, linewidth=0))
        ink, behind = "black", {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    middle = x[0] + size[0] / 2, y[0] + size[1] / 2
    text = axes.text(*middle, "\n".join(lines), ha="center", va="center", color=ink, fontsize=7 if small else 9)
    text.set(bbox=behind, in_layout=False)  # it lies inside; measuring it is slow


@drawn
def curves(groups: Sequence[tuple[str, Sequence[pd.DataFrame]]], quantity: str, splits: Sequence[str]) -> list[Picture]:
    """A picture for each split: *quantity* over epochs, seeds as mean and band of ± one standard deviation.

    The leading groups have colours, which the first picture names; the others are grey. All pictures have the same
    limits, those of the leading groups.

    Args:
        groups: Label and histories (as from `results.history`) of each setting, best first.
        quantity: `loss` (log axis) or `accuracy`.
    """
    pictures, frames, reach = [], [], list[float]()
    labels = [re.sub(r"[\w.]+\.(?=\w+=)", "", label) for label, _ in groups[:LEADING]]  # without what leads to a key
    columns = 2 if max(map(len, labels)) < WIDE else 1
    for split in splits:
        legend = len(groups) > 1 and split == splits[0]
        figure, axes = style.canvas(height=style.SIZE[1] + legend * 0.2 * -(-len(labels) // columns))
        column = f"{split}/{quantity}"
        others = itertools.chain.from_iterable(histories for _, histories in groups[LEADING:])
        lines = [np.column_stack([h["epoch"], _units(h[column].to_numpy(), quantity)]) for h in others]
        # As pixels: hundreds of long lines would weigh megabytes.
        axes.add_collection(LineCollection(lines, color=style.MUTED, linewidth=0.6, alpha=0.5, rasterized=True))
        for i, (label, (_, histories)) in enumerate(zip(labels, groups, strict=False)):
            seeds = pd.concat(histories)
            reach += _band(axes, _units(seeds[column], quantity).groupby(seeds["epoch"]), i, label)
        axes.set(xlabel="epoch", ylabel=f"{SPLIT_NAMES[split]} {quantity}" + (", %" if quantity == "accuracy" else ""))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if legend:
            figure.legend(loc="outside lower left", ncols=columns, columnspacing=1, handlelength=2.6)
        title = f"{SPLIT_NAMES[split]} {quantity}".capitalize()
        alt = f"{title} over epochs of {len(groups)} settings, with the best first: {groups[0][0]}."
        pictures.append(Picture(f"{split}_{quantity}", title, alt, figure))
        frames.append(axes)
    for axes in frames:
        if quantity == "loss":
            axes.set(yscale="log", ylim=(0.8 * min(reach), 1.2 * max(reach)))
            style.plain_ticks(axes.yaxis)
        else:
            margin = 0.04 * (max(reach) - min(reach)) + 0.05
            axes.set(ylim=(min(reach) - margin, max(reach) + margin))
    return pictures


def _units(values: Any, quantity: str) -> Any:
    """Accuracies in percent; losses clipped above zero, for the log axis."""
    return 100 * values if quantity == "accuracy" else values.clip(1e-8)


def _band(axes: Axes, seeds: Any, i: int, label: str) -> list[float]:
    """Mean line and band of one group's *seeds*, by epoch; returns the lowest and the highest mean."""
    mean, sd = seeds.mean(), seeds.std(ddof=1)
    line: Any = {"color": style.COLOURS[i], "linestyle": style.DASHES[i], "linewidth": 1.4, "label": label}
    axes.plot(mean.index, mean, marker=style.MARKERS[i] if len(mean) <= 30 else "", markersize=3, **line)
    if seeds.size().max() > 1:
        lower = (mean - sd).clip(lower=seeds.min())
        upper = (mean + sd).clip(upper=seeds.max())
        axes.fill_between(mean.index, lower, upper, color=style.COLOURS[i], alpha=0.15, linewidth=0)
    return [float(mean.min()), float(mean.max())]


@drawn
def tradeoffs(board: pd.DataFrame, labels: Sequence[str], split: str, clock: str) -> list[Picture]:
    """Accuracy against parameters and against seconds by *clock*, with the settings that nothing beats in both."""
    pictures = []
    rows = board.assign(label=labels)[board[f"{split}_mean"].notna()]
    accuracy = 100 * rows[f"{split}_mean"]
    for cost, title in (("parameters", "parameters"), ("seconds", clock)):
        figure, axes = style.canvas()
        low, high = style.limits(accuracy)
        x = rows[cost].astype(float)
        dots(axes, x, accuracy, low, "setting")
        front = [i for i in pareto(x, accuracy) if accuracy[i] >= low]
        line: Any = {"color": style.COLOURS[1], "marker": "D", "markersize": 5, "linewidth": 1.2}
        axes.plot(x[front], accuracy[front], **line, label="nothing is better in both")
        axes.set(xlabel=title, ylabel=f"{SPLIT_NAMES[split]} accuracy, %", ylim=(low, high))
        style.spread(axes, x, 4)
        axes.margins(x=0.08)
        figure.legend(loc="outside lower left", ncols=3)
        best = ", ".join(rows.loc[front, "label"].head(4))
        about = f"{SPLIT_NAMES[split].capitalize()} accuracy against {title} of {len(rows)} settings"
        alt = f"{about}. Nothing is better in both than {best}."
        pictures.append(Picture(f"accuracy_{cost}", f"Accuracy against {title}", alt, figure))
    return pictures


def pareto(cost: Numbers, gain: Numbers) -> list[Any]:
    """Index of the points that no other beats in both *cost* (low) and *gain* (high), in order of cost."""
    order = pd.DataFrame({"cost": cost, "gain": gain}).sort_values(["cost", "gain"], ascending=[True, False])
    before = order["gain"].cummax().shift(fill_value=-np.inf)
    return list(order.index[order["gain"] > before])


@drawn
def main_effects(table: pd.DataFrame, by: Sequence[str], split: str) -> list[Picture]:
    """For each key: accuracy of all runs at each of its values, their mean, and the share of variance it explains.

    The share is left out where it may be chance: where the F test is not significant at 5 %.
    """
    column = f"final/{split}_accuracy"
    everyone = finished(table, split)
    low, high = style.limits(100 * everyone[column])
    pictures = []
    for key in by:
        done = everyone.dropna(subset=[key])
        accuracy, positions = 100 * done[column], style.scale(done[key])
        figure, axes = style.canvas()
        dots(axes, positions.at(done[key]), accuracy, low, "run")
        effect = explained(accuracy, done[key])
        if effect:
            means = accuracy.groupby(done[key].map(whole)).mean()[[whole(v) for v in positions.values]]
            line: Any = {"color": style.COLOURS[0], "marker": "o", "markersize": 7, "label": "mean"}
            line["linestyle"] = "" if positions.kind == "order" or key == "seed" else "-"
            axes.plot(positions.centres, means.where(means >= low), **line)
        positions.label(axes, "x", key)
        axes.set(ylabel=f"{SPLIT_NAMES[split]} accuracy, %", ylim=(low, high))
        axes.margins(x=0.12)
        figure.legend(loc="outside lower left", ncols=3)
        sure = effect and effect[1] < 1 - statistics.CONFIDENCE
        explains = f": explains {percent(effect[0], 0)} of the variance" if effect and sure else ""
        alt = f"{SPLIT_NAMES[split].capitalize()} accuracy of {len(done)} finished runs over {key}{explains}."
        pictures.append(Picture(f"effect_{style.plain(key)}", f"{key}{explains}", alt, figure))
    return pictures


def explained(accuracy: Numbers, values: "pd.Series[Any]") -> tuple[float, float] | None:
    """How much of the variance of *accuracy* is between the values of one key; see `statistics.explained`.

    None if accuracies are all equal, or if the key has nearly as many values as there are runs: that says nothing.
    """
    groups = accuracy.groupby(values.map(value))
    if accuracy.nunique() < 2 or groups.ngroups > len(accuracy) / 2:
        return None
    return statistics.explained([group.to_numpy() for _, group in groups])


def shares(done: pd.DataFrame, keys: Sequence[str], split: str) -> dict[str, float]:
    """How much of the variance of the *done* runs each of the *keys* explains, to order them by."""
    effect = {key: explained(done[f"final/{split}_accuracy"], done[key]) for key in keys}
    return {key: share[0] if share else -math.inf for key, share in effect.items()}


def clock(table: pd.DataFrame) -> tuple[Numbers, str]:
    """What each run of *table* cost, and in what: processor seconds where they were measured.

    Runs that share the cores have a long time by the clock, which says more about the others than about them.
    """
    measured = (table.loc[table["state"] == State.FINISHED, "cpu_seconds"].astype(float) > 0).all()
    return (table["cpu_seconds"], "processor seconds") if measured else (table["seconds"], "seconds of training")


def finished(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The finished runs of *table* that were measured on *split*."""
    return table[(table["state"] == State.FINISHED) & table[f"final/{split}_accuracy"].notna()]


def dots(axes: Axes, x: Any, y: Numbers, low: float, label: str) -> None:
    """Points at *low* or above; how many lie below is said."""
    x, inside = np.array(x), np.array(y >= low)
    muted: Any = {"color": style.MUTED, "alpha": 0.8, "linewidths": 0, **style.dotted(len(x), 22)}
    axes.scatter(x[inside], y[inside], label=label, **muted)
    style.left_out(axes, int((~inside).sum()), low, label)
