"""Two sweeps compared: what differs in their settings, and whose best setting is better, as `report A B` prints it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypedDict

from rich.markup import escape

from mnist_exp.console import terminal
from mnist_exp.console.formats import SPLIT_NAMES, points, score, value
from mnist_exp.console.terminal import shown, side_by_side
from mnist_exp.errors import ConfigError
from mnist_exp.report import board, text
from mnist_exp.report.board import Comparison
from mnist_exp.results import ranking, statistics
from mnist_exp.results.certainty import scores
from mnist_exp.results.names import Selection
from mnist_exp.results.ranking import Replicates
from mnist_exp.results.statistics import Scores

LISTED = 6  # values of a setting


class Gain(TypedDict):
    """How much more the second one gets right of the validation images; accuracies from 0 to 1."""

    mean: float
    interval: tuple[float, float]
    """95 %."""
    seeds: list[Any]
    """Those that both have, if they are paired; otherwise empty."""
    better: str | None
    """`A` or `B`; None: the difference may be chance."""


def compare(one: Selection, other: Selection) -> dict[str, Any]:
    """What `--json` prints; each pair is that of *one*, then that of *other*.

    Keys: `sweeps`; `settings` in which they differ, with the values of each; `best`, the best setting of each; its
    `difference`, see `Gain`; and `same`, settings that both have, with theirs. Each difference is null where no
    validation images tell.

    Raises:
        ConfigError: they were measured on other images, or one has no finished run.
        ExperimentError: as `board.compare`.
    """
    sides = [_alone(selection) for selection in (one, other)]
    _check_basis(sides)
    bests = [side.ranked.groups[0] for side in sides]
    for side, best in zip(sides, bests, strict=True):
        if not best.seeds:
            raise ConfigError(f"{side.selection.title} has no finished run.", "Go on with it, or choose another.")
    values = [_values(side) for side in sides]
    differ = [key for key in dict.fromkeys([*values[0], *values[1]]) if values[0].get(key) != values[1].get(key)]
    return {
        "format": 1,
        "sweeps": [side.selection.title for side in sides],
        "folders": [shown(side.home) for side in sides],
        "settings": {key: [each.get(key, []) for each in values] for key in differ},
        "best": [_facts(side) for side in sides],
        "difference": gain(*bests),
        "same": _same(*sides),
    }


def _alone(selection: Selection) -> Comparison:
    """The comparison of *selection*. Raises ConfigError if it has several."""
    comparisons = board.compare(selection)
    if len(comparisons) > 1:
        named = ", ".join(comparison.data for comparison in comparisons)
        raise ConfigError(
            f"{selection.title} has runs that cannot be compared with each other ({named}).",
            "Compare sweeps of one dataset and one validation split each, or single runs: python -m mnist_exp.diff A B",
        )
    return comparisons[0]


def _check_basis(sides: Sequence[Comparison]) -> None:
    """Raises ConfigError unless the accuracies of *sides* rest on the same images."""
    runs = [board.runs(side.table) for side in sides]
    both = [dataclasses.replace(run, at=(i, run.at)) for i, each in enumerate(runs) for run in each]
    if len(groups := ranking.comparable(both)) > 1:
        named = [side.selection.title for side in sides]
        labels = {run.at[0]: label for label, group in groups.items() for run in group}
        raise ConfigError(
            f"{named[0]} ({labels[0]}) and {named[1]} ({labels[1]}) were measured on other images.",
            "Sweeps with the same data and validation split can be compared: set data, data.val_size and "
            "data.split_seed of one as the other has them.",
        )


def _values(side: Comparison) -> dict[str, list[Any]]:
    """The values of each setting in the runs of *side*, in order."""
    values: dict[str, dict[Any, None]] = {}
    for run in board.runs(side.table):
        for key, setting in run.settings.items():
            values.setdefault(key, {})[setting] = None
    return {key: sorted(several, key=lambda each: (str(type(each)), each)) for key, several in values.items()}


def _facts(side: Comparison) -> dict[str, Any]:
    """The first row of the leaderboard of *side*: its settings, seeds and accuracies."""
    row = side.lines[0]
    return {"setting": {key: row.pop(key) for key in side.by}, **row}


def gain(one: Replicates, other: Replicates) -> Gain | None:
    """How much better *other* is than *one*: over the seeds that both have, if there are two; None if nothing tells."""
    a, b = scores(one, one), scores(other, other)
    if a is None or b is None:
        return None
    shared = [seed for seed in a.accuracies if seed in b.accuracies]
    paired = len(shared) > 1 or a.accuracies.keys() == b.accuracies.keys()
    if paired:
        a, b = _only(a, shared), _only(b, shared)
    difference = statistics.difference(b, a)
    low, high = difference.interval()
    better = "B" if low > 0 else "A" if high < 0 else None
    return Gain(mean=difference.mean, interval=(low, high), seeds=shared if paired else [], better=better)


def _only(all_of_them: Scores, seeds: Sequence[Any]) -> Scores:
    hits, accuracies = all_of_them.hits, {seed: all_of_them.accuracies[seed] for seed in seeds}
    return dataclasses.replace(all_of_them, accuracies=accuracies, hits=hits and {seed: hits[seed] for seed in seeds})


def _same(one: Comparison, other: Comparison) -> list[dict[str, Any]]:
    """The settings that both have, where they vary the same keys."""
    if not one.by or set(one.by) != set(other.by):
        return []

    def settings(side: Comparison) -> dict[tuple[Any, ...], Replicates]:
        return {tuple(each.runs[0].settings.get(key) for key in one.by): each for each in side.ranked.groups}

    theirs, pairs = settings(other), []
    for point, ours in settings(one).items():
        if point in theirs:
            setting = dict(zip(one.by, point, strict=True))
            pairs.append({"setting": setting, "difference": gain(ours, theirs[point])})
    return pairs


def show(facts: dict[str, Any]) -> None:
    """Prints what `compare` returns."""
    out = terminal.console
    for letter, title, folder in zip("AB", facts["sweeps"], facts["folders"], strict=True):
        out.print(escape(f"{letter}: {title}\n  {folder}"))
    differ = {key: pair for key, pair in facts["settings"].items() if key not in ranking.REPLICATES}
    side_by_side("setting", [[key, *map(_listed, pair)] for key, pair in differ.items()])
    if not differ:
        out.print("Their settings are the same.")
    bests = facts["best"]
    lines = [["setting", *(board.label(best["setting"], list(best["setting"])) for best in bests)]]
    for split in ("val", "test"):
        if all(f"{split}_mean" in best for best in bests):
            lines.append([f"{split} %", *(score(best[f"{split}_mean"], best[f"{split}_sd"]) for best in bests)])
    side_by_side("best", [*lines, ["seeds", *(str(best["n"]) for best in bests)]])
    terminal.tell(sentence(facts["difference"]))
    rows = [(pair["setting"], pair["difference"]) for pair in facts["same"] if pair["difference"]]
    if rows:
        out.print(escape("The same setting in both, B less A in points of validation accuracy:"))
    for setting, gain in rows[: text.TOP]:
        low, high = map(points, gain["interval"])
        out.print(escape(f"  {board.label(setting, list(setting))}: {points(gain['mean'])} (95 %: {low} to {high})"))


def sentence(gain: Gain | None) -> str:
    """Which best setting is better, and how sure that is."""
    if gain is None:
        return f"Which is better is unknown: that is judged by {SPLIT_NAMES['val']} images, which not both have."
    low, high = map(points, gain["interval"])
    seeds = ", ".join(map(value, gain["seeds"]))
    how = f"of the same {'seeds' if len(gain['seeds']) > 1 else 'seed'} {seeds}" if seeds else "of other seeds"
    gained = f"On validation B less A is {points(gain['mean'])} points (95 %: {low} to {high}; {how})"
    return f"{gained}: {gain['better']} is better." if gain["better"] else f"{gained}: they cannot be told apart."


def _listed(values: Sequence[Any]) -> str:
    """The values of a setting, or how many there are."""
    if not values:
        return "–"
    if len(values) > LISTED:
        return f"{len(values)} from {value(values[0])} to {value(values[-1])}"
    return ", ".join(map(value, values))
