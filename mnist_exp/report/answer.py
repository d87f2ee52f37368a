"""The answer in words: which setting is best, how sure that is, and what to do next."""

import itertools
import math

from mnist_exp import config
from mnist_exp.config.overrides import key_of
from mnist_exp.console.formats import SPLIT_NAMES, percent, plural, points, score
from mnist_exp.disk import trust
from mnist_exp.disk.layout import SweepFolder
from mnist_exp.report.board import NAMED, Comparison, counted, deciding_split, repeated, summary
from mnist_exp.results.certainty import Certainty, interval_of_test
from mnist_exp.results.names import name_of, resuming

FURTHER = 20  # seeds of a race
MANY = 6  # settings, of which the best is likely a lucky one


def sentence(comparison: Comparison) -> str:
    """Which setting did best, how good it is, and which others may be as good: one sentence to repeat."""
    best, sure = comparison.ranked.best, comparison.certainty
    if best is None:
        return f"No run has finished: {counted(summary(comparison)['states'])}."
    labels, how_good = comparison.labels, _how_good(comparison)
    if len(labels) == 1:
        return f"{how_good[0].upper()}{how_good[1:]}."
    first = labels[0]
    if sure is None:
        return f"{first} did best: {how_good}; how sure that is cannot be told."
    others = [labels[i] for i in sure.rivals]
    if not others:
        return f"{first} is best: {how_good}; it is better than the others at 95 % confidence."
    named = others if len(others) <= NAMED else [*others[: NAMED - 1], f"{len(others) - NAMED + 1} more"]
    listed = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
    return f"{first} did best: {how_good}; {listed} may be as good."


def _how_good(comparison: Comparison) -> str:
    """The accuracies of the best setting with their intervals."""
    row = comparison.board.iloc[0]
    deciding, sure = deciding_split(comparison.table), comparison.certainty
    text = f"{SPLIT_NAMES[deciding]} accuracy {score(row[f'{deciding}_mean'], row[f'{deciding}_sd'])} %"
    notes = [f"n={row['n']}"] if row["n"] > 1 else []
    notes += [_between(sure.interval)] if sure else []
    text += f" ({', '.join(notes)})" if notes else ""
    if deciding != "test" and row.get("test_mean", math.nan) == row.get("test_mean", math.nan):
        text += f", test accuracy {percent(row['test_mean'])}"
        tested = interval_of_test(comparison.ranked.groups[0])
        text += f" ({_between(tested)})" if tested else ""
    return text


def _between(interval: tuple[float, float]) -> str:
    """`95 % interval 97.57 % to 98.35 %`"""
    return f"95 % interval {percent(interval[0])} to {percent(interval[1])}"


def background(comparison: Comparison) -> str:
    """How many runs there are, how they ended, and what the intervals are about."""
    facts, sure = summary(comparison), comparison.certainty
    text = f"{plural(facts['runs'], 'run')} ({counted(facts['states'])})."
    if sure is None:
        return text
    what = "other seeds" if sure.seeds > 1 else "other images; another seed may change more"
    text += f" Intervals are for {what}."
    if sure.compared >= MANY:
        luck = points(sure.luck).removeprefix("+")
        text += f" The best of {sure.compared} equal settings would look {luck} points better than they are."
    return text


def next_step(comparison: Comparison) -> tuple[str, str]:
    """What to do now, and the command that does it; both are empty where that is known no better than by the user.

    Nothing of what a foreign folder records becomes a command to copy.

    A race goes on. The best of a search were chosen by the seeds that they had, and they are no grid, as pairs, rows of
    a table and a draw are none: they race with other seeds.
    """
    sweep, sure, home = comparison.selection.sweep, comparison.certainty, comparison.selection.home
    table, best = comparison.table, comparison.ranked.best
    if best is None or sure is None or comparison.selection.query or not trust.own(home):
        return "", ""
    fresh = ",".join(map(str, _unused_seeds(comparison, sure)))
    if not sure.rivals:
        if sure.seeds > 1:
            return "", ""
        typed = [each for each in table.loc[best.at, "overrides"] if key_of(each) not in ("seed", *repeated(table))]
        return "To see what another seed changes", config.command([*typed, f"seed={fresh}"], sweep=True)
    if not sweep:
        return "", ""
    said = {*sweep.typed, *map(key_of, sweep.typed)}
    if said & {"search=race", "hydra/sweeper=race"}:
        typed = [f"n_trials={2 * len(table)}"]
    elif SweepFolder(home).study.exists() or said & {"search=zip", "points", "n_trials"}:
        where = [] if sweep.cluster == "local" else [f"cluster={sweep.cluster}"]
        known = int(max(table["seed"])) if "seed" in table else 0
        seeds = f"seed=range({known + 1},{known + 1 + FURTHER})"
        race = ["search=race", config.override("points", name_of(home)), *where, seeds]
        return "To tell them apart", config.command(race, sweep=True)
    else:
        rows = comparison.board.loc[[0, *sure.rivals]]
        several = [key for key in sweep.keys if key in rows and rows[key].nunique() < table[key].nunique()]
        values = {key: dict.fromkeys(map(config.as_typed, rows[key].dropna())) for key in several}  # to the last digit
        typed = [*(f"{key}={','.join(chosen)}" for key, chosen in values.items()), f"seed={fresh}"]
    return "To tell them apart", resuming(home, sweep.cluster, *typed)


def _unused_seeds(comparison: Comparison, sure: Certainty) -> list[int]:
    """Seeds that no run has, as many as the best setting has, but two at least."""
    used = set(comparison.table["seed"]) if "seed" in comparison.table else {0}
    unused = (seed for seed in itertools.count() if seed not in used)
    return list(itertools.islice(unused, max(2, sure.seeds)))
