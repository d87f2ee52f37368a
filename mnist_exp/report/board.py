"""Settings as a table: seeds aggregated, the best one first (see `ranking`), test reported."""

import dataclasses
import itertools
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, final

import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from mnist_exp import config
from mnist_exp.console import terminal
from mnist_exp.console.formats import SPLIT_NAMES, count, percent, plural, points, score, seconds, value
from mnist_exp.disk.files import atomic_write
from mnist_exp.disk.layout import RunFolder, State, SweepFolder
from mnist_exp.errors import ConfigError
from mnist_exp.results import ranking
from mnist_exp.results import table as table_of
from mnist_exp.results.certainty import Certainty, certainty
from mnist_exp.results.names import Selection, name_of, resuming
from mnist_exp.results.ranking import LOST, Ranking, Run

SPLITS = ("val", "test", "train")
TOP = 20  # rows that a terminal shows
NAMED = 3  # settings in a sentence
FURTHER = 20  # seeds of a race
MANY = 6  # settings, of which the best is likely a lucky one
NUMBERS = ("val %", "test %", "train %", "n", "seconds", "parameters")
INNER = ["best"]  # columns of a leaderboard that lead to its runs


@final
@dataclass(frozen=True)
class Comparison:
    """Runs that can be compared, read once, and what a leaderboard or a page says of them."""

    selection: Selection
    data: str
    """As in `Ranking`, where the selection has several; empty: all its runs are here."""
    table: pd.DataFrame
    """As from `results.load`."""
    ranked: Ranking
    board: pd.DataFrame
    """See `leaderboard`."""
    certainty: Certainty | None
    """How sure the first row is the best."""

    @property
    def title(self) -> str:
        """What is compared, as one would say it: `hidden × lr on mnist`."""
        what = " × ".join(self.by[:NAMED]) + (f" × {len(self.by) - NAMED} more" if len(self.by) > NAMED else "")
        if len(self.table) == 1:
            what = " ".join(part for part in self.table["name"].iloc[0].split() if not part.startswith("data="))
        what = what or plural(len(self.table), "run")
        return f"{what} on {self.ranked.data}" if self.ranked.data else what

    @property
    def home(self) -> Path:
        """Where its files belong."""
        return self.selection.home / self.folder

    @property
    def folder(self) -> str:
        """The name of its own folder, where the selection has several comparisons; else empty."""
        return re.sub(r"[^\w.-]+", "_", f"data-{self.data}") if self.data else ""

    @property
    def by(self) -> list[str]:
        """The keys in which settings differ."""
        return self.ranked.by

    @property
    def rows(self) -> "pd.Series[int]":
        """For each run the row of its setting on the leaderboard."""
        return rows(self.table, self.ranked)


def compare(selection: Selection) -> list[Comparison]:
    """Reads the runs of *selection* and compares them, as far as they can be; see `ranking.comparable`.

    Raises:
        ConfigError: there are none.
        ExperimentError: a file or the store cannot be read.
    """
    table = table_of.frame(selection)
    if table.empty:
        raise ConfigError(f"{selection.title} has no runs; deleted ones are left out.")
    sweep = selection.sweep
    rankings = ranking.rank(runs(table), ranking.swept(sweep.keys, sweep.points) if sweep else None)
    if len(rankings) == 1:
        return [_comparison(selection, "", table, rankings[0])]
    own = [table.loc[sorted(run.at for setting in each.groups for run in setting.runs)] for each in rankings]
    pairs = zip(own, rankings, strict=True)
    return [_comparison(selection, ranked.data, part, ranked) for part, ranked in pairs]


def _comparison(selection: Selection, data: str, table: pd.DataFrame, ranked: Ranking) -> Comparison:
    return Comparison(selection, data, table, ranked, leaderboard(table, ranked), certainty(ranked))


def runs(table: pd.DataFrame) -> list[Run]:
    """The rows of *table* as what is ranked."""
    settings = table_of.settings(table)
    rows = table[["state", "dataset", "folder", *settings, *table_of.FINAL]].to_dict("index")
    return [
        Run(
            index,
            row["state"],
            {key: row[key] for key in settings if row[key] == row[key]},  # NaN: it has no such setting
            {key: row[key] for key in table_of.FINAL if row[key] == row[key]},
            row["dataset"],
            row["folder"],
        )
        for index, row in rows.items()
    ]


def tracked(comparison: Comparison) -> Comparison:
    """*comparison* of runs on this machine, with the ids that they have in MLflow by now."""
    table = comparison.table
    ids = pd.DataFrame([table_of.ids(folder) for folder in table["folder"]], index=table.index)
    return dataclasses.replace(comparison, table=table.assign(**ids))


def deciding_split(table: pd.DataFrame) -> str:
    """The split that headline and summary show: `val`, or `train` where no run has validation. Never `test`."""
    return "val" if table["final/val_accuracy"].notna().any() else "train"


def measured(table: pd.DataFrame) -> list[str]:
    """The splits that any run was measured on, the most informative first."""
    return [split for split in SPLITS if table[f"final/{split}_accuracy"].notna().any()]


def rows(table: pd.DataFrame, ranked: Ranking) -> "pd.Series[int]":
    """See `Comparison.rows`."""
    row_of = {run.at: row for row, setting in enumerate(ranked.groups) for run in setting.runs}
    return pd.Series([row_of[index] for index in table.index], table.index)


def leaderboard(table: pd.DataFrame, ranked: Ranking) -> pd.DataFrame:
    """One row for each setting of *ranked*, best first.

    Columns: the keys in which settings differ; `n` seeds, or folds of seeds, of which a run finished;
    `not_finished`, such as `1 failed`; for each split that was measured the mean final accuracy `<split>_mean` and its
    sample standard deviation over seeds and folds `<split>_sd` (n - 1; NaN with one), from 0 to 1;
    mean `seconds` of training and `parameters` of the finished runs; `best`, the index in *table* of its median run,
    or -1.

    Args:
        table: As from `results.load`.
    """
    settings, row = ranked.groups, rows(table, ranked)
    board = table.loc[[setting.runs[0].at for setting in settings], ranked.by].reset_index(drop=True)
    board["n"] = [len(setting.seeds) for setting in settings]
    board["not_finished"] = _endings(table, row).reindex(board.index, fill_value="")
    for split in measured(table):
        accuracies = [setting.over_seeds(f"final/{split}_accuracy") for setting in settings]
        board[f"{split}_mean"] = [fmean(seeds) if seeds else math.nan for seeds in accuracies]
        board[f"{split}_sd"] = [stdev(seeds) if len(seeds) > 1 else math.nan for seeds in accuracies]
    done = table[table["state"] == State.FINISHED]
    board["seconds"] = done["seconds"].groupby(row).mean()
    board["parameters"] = pd.to_numeric(done["parameters"]).groupby(row).max()
    medians = [setting.median for setting in settings]
    board["best"] = [-1 if run is None else run.at for run in medians]
    return board


def summary(comparison: Comparison) -> dict[str, Any]:
    """Counts of runs in each state, accuracies (0 to 1; None if no run finished), seconds.

    Accuracies: `best` is the mean of the best setting, `median` that of all finished runs.
    """
    table = comparison.table
    column = f"final/{deciding_split(table)}_accuracy"
    accuracy = table.loc[table["state"] == State.FINISHED, column].dropna()
    best = comparison.ranked.groups[0].over_seeds(column)
    return {
        "runs": len(table),
        "states": {str(state): int(n) for state, n in table["state"].value_counts().items()},
        "judged_by": column,
        "best": fmean(best) if best else None,
        "median": float(accuracy.median()) if len(accuracy) else None,
        "seconds": float(table["seconds"].sum()),
    }


def failures(table: pd.DataFrame, states: Collection[str] = LOST) -> list[dict[str, Any]]:
    """Runs in one of *states*: which, why, the log, and the line that runs just this one again."""
    columns = ["folder", "number", "name", "state", "reason", "overrides"]
    return [_failure(run) for run in table.loc[table["state"].isin(states), columns].to_dict("records")]


def _failure(run: Mapping[Any, Any]) -> dict[str, Any]:
    log = RunFolder(run["folder"]).log if run["folder"] is not None else None
    never_started = run["state"] == State.PLANNED
    return {
        "number": run["number"],
        "name": run["name"],
        "state": run["state"],
        "reason": run["reason"] or ("it was never started" if never_started else f"it is {run['state']}"),
        "log": terminal.shown(log) if log and log.exists() else "",
        "rerun": config.command(run["overrides"]),
    }


def show(comparisons: Sequence[Comparison], as_json: bool = False, lost: bool = True) -> None:
    """Prints the leaderboards of *comparisons*: tables in a terminal, aligned text in a pipe, JSON if asked for.

    Args:
        lost: Whether to list the runs that failed below each.
    """
    if as_json:
        terminal.console.print_json(json.dumps(to_json(comparisons), allow_nan=False))
        return
    for comparison in comparisons:
        _show_board(comparison)
        for failure in failures(comparison.table) if lost else []:
            _show_failure(failure)


def _show_board(comparison: Comparison) -> None:
    """The answer, what to do next, and the table."""
    out = terminal.console
    out.print(escape(comparison.title), style="bold")
    out.print(escape(answer(comparison)))
    what, command = next_step(comparison)
    if command:
        out.print(escape(f"{what}:\n  {command}"))
    out.print(escape(f"{comparison.selection.title}: {background(comparison)}"))
    (_show_table if out.is_terminal else _show_text)(*cells(comparison.board, comparison.by))


def _show_table(head: list[str], lines: list[list[str]]) -> None:
    """A table with the first rows."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in head:
        number = column in NUMBERS
        table.add_column(escape(column), justify="right" if number else "left", no_wrap=number)
    for line in lines[:TOP]:
        table.add_row(*map(escape, line))
    terminal.console.print(table)
    if len(lines) > TOP:
        terminal.console.print(f"and {len(lines) - TOP} more")


def _show_text(head: list[str], lines: list[list[str]]) -> None:
    """Aligned columns, for programs that read a pipe."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for line in (head, *lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        terminal.console.print(escape(text.rstrip()))


def _show_failure(failure: dict[str, Any]) -> None:
    """One of `failures`."""
    out = terminal.console
    out.print(escape(f"{failure['state']}: {failure['name']}: {failure['reason']}"), style="red")
    if failure["log"]:
        out.print(escape(f"  log: {failure['log']}"))
    out.print(escape(f"  again: {failure['rerun']}"))


def save(comparisons: Sequence[Comparison]) -> None:
    """Writes `runs.csv` and `leaderboard.csv` beside the runs; of several comparisons, each into its own folder."""
    if len(comparisons) > 1:
        home = SweepFolder(comparisons[0].selection.home)
        for old in (home.table, home.board):
            old.unlink(missing_ok=True)  # written while there was one dataset
    for comparison in comparisons:
        home = SweepFolder(comparison.home)
        home.path.mkdir(parents=True, exist_ok=True)
        write_csv(comparison.table, home.table)
        write_csv(comparison.board.drop(columns=INNER), home.board)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """*table* without its index, atomically; a text that a spreadsheet would calculate begins with `'`."""
    harmless = table.rename(columns=_no_formula)
    for column in harmless.select_dtypes(exclude=["number", "bool", "datetimetz"]):
        harmless[column] = harmless[column].map(_no_formula)
    atomic_write(path, harmless.to_csv(index=False).encode())


def _no_formula(cell: Any) -> Any:
    """*cell* so that a spreadsheet shows it: https://owasp.org/www-community/attacks/CSV_Injection."""
    calculated = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if calculated and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell) else cell


def cells(board: pd.DataFrame, by: list[str]) -> tuple[list[str], list[list[str]]]:
    """The leaderboard as text: head and rows. Accuracies in percent; training only where nothing else decides."""
    splits = [split for split in ("val", "test") if f"{split}_mean" in board]
    splits = splits if "val" in splits or "train_mean" not in board else ["train", *splits]
    lost = ["not finished"] if any(board["not_finished"]) else []
    head = [*by, *(f"{split} %" for split in splits), "n", *lost, "seconds", "parameters"]
    rows = []
    for row in board.to_dict("records"):
        scores = [score(row[f"{split}_mean"], row[f"{split}_sd"]) for split in splits]
        values = [value(row[key]) for key in by]
        cost = [seconds(row["seconds"]), count(row["parameters"])]
        rows.append([*values, *scores, str(row["n"]), *([row["not_finished"]] if lost else []), *cost])
    return head, rows


def to_json(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """What `--json` prints. Accuracies from 0 to 1; what is unknown is null.

    Of several comparisons it is a list, `datasets`, each with what it is on as `data`.
    """
    selection = comparisons[0].selection
    head = {"format": 1, "title": selection.title, "sweep": selection.sweep.id if selection.sweep else None}
    if len(comparisons) == 1:
        return head | _facts(comparisons[0])
    return head | {"datasets": [{"data": each.data} | _facts(each) for each in comparisons]}


def _facts(comparison: Comparison) -> dict[str, Any]:
    """See `to_json`."""
    board = comparison.board.drop(columns=INNER)
    lines = json.loads(board.to_json(orient="records", double_precision=15))
    return {
        "summary": summary(comparison),
        "certainty": comparison.certainty and dataclasses.asdict(comparison.certainty),
        "leaderboard": lines,
        "failures": failures(comparison.table),
    }


def answer(comparison: Comparison) -> str:
    """Which setting is best, how good it is, and which others cannot be told from it: one sentence to repeat."""
    best, sure = comparison.ranked.best, comparison.certainty
    if best is None:
        return f"No run has finished: {counted(summary(comparison)['states'])}."
    rows, alone = comparison.board.to_dict("records"), len(comparison.board) == 1
    how_good = _how_good(rows[0], comparison)
    if alone:
        return f"{how_good[0].upper()}{how_good[1:]}."
    text = f"{label(rows[0], comparison.by)} is best: {how_good}"
    if sure is None:
        return f"{text}; how sure that is cannot be told."
    others = [label(rows[i], comparison.by) for i in sure.rivals]
    if not others:
        return f"{text}; it is better than the others at 95 % confidence."
    named = others if len(others) <= NAMED else [*others[: NAMED - 1], f"{len(others) - NAMED + 1} more"]
    listed = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
    return f"{text}; {listed} cannot be told from it."


def _how_good(row: Mapping[Any, Any], comparison: Comparison) -> str:
    """The accuracies of the best setting, which is that of *row*, with their interval."""
    deciding, sure = deciding_split(comparison.table), comparison.certainty
    text = f"{SPLIT_NAMES[deciding]} accuracy {score(row[f'{deciding}_mean'], row[f'{deciding}_sd'])} %"
    notes = [f"n={row['n']}"] if row["n"] > 1 else []
    notes += [f"95 % interval {percent(sure.interval[0])} to {percent(sure.interval[1])}"] if sure else []
    text += f" ({', '.join(notes)})" if notes else ""
    if deciding != "test" and row.get("test_mean", math.nan) == row.get("test_mean", math.nan):
        text += f", test accuracy {percent(row['test_mean'])}"
    return text


def background(comparison: Comparison) -> str:
    """How many runs there are, how they ended, and what the interval is about."""
    facts, sure = summary(comparison), comparison.certainty
    text = f"{plural(facts['runs'], 'run')} ({counted(facts['states'])})."
    if sure is None:
        return text
    what = "other seeds" if sure.seeds > 1 else "other images; another seed may change more"
    text += f" The interval is for {what}."
    if sure.compared >= MANY:
        luck = points(sure.luck).removeprefix("+")
        text += f" The best of {sure.compared} equal settings would look {luck} points better than they are."
    return text


def next_step(comparison: Comparison) -> tuple[str, str]:
    """What to do now, and the command that does it; both are empty where that is known no better than by the user.

    A race goes on. The best of a search are no grid, and were chosen by the seeds that they had: they race with others.
    """
    sweep, sure, home = comparison.selection.sweep, comparison.certainty, comparison.selection.home
    table, best = comparison.table, comparison.ranked.best
    if best is None or sure is None or comparison.selection.query:
        return "", ""
    fresh = ",".join(map(str, _unused_seeds(comparison, sure)))
    if not sure.rivals:
        if sure.seeds > 1:
            return "", ""
        overrides = [each for each in table.loc[best.at, "overrides"] if not each.startswith("seed=")]
        return "To see what another seed changes", config.command([*overrides, f"seed={fresh}"], sweep=True)
    if not sweep:
        return "", ""
    if {"search=race", "hydra/sweeper=race"}.intersection(sweep.typed):
        typed = [f"n_trials={2 * len(table)}"]
    elif SweepFolder(home).study.exists():
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


def label(row: Mapping[Any, Any], by: Sequence[str]) -> str:
    """`hidden=64 lr=0.001`"""
    return " ".join(f"{key}={value(row[key])}" for key in by) or "all runs"


def _endings(table: pd.DataFrame, setting: "pd.Series[int]") -> "pd.Series[str]":
    """For each *setting*, the states of its runs that have not finished: `2 failed, 1 pruned after epoch 3`."""
    endings: dict[int, Counter[str]] = defaultdict(Counter)
    for number, state, epoch in zip(setting, table["state"], table["epoch"], strict=True):
        if state != State.FINISHED:
            endings[number][f"pruned after epoch {epoch}" if state == State.PRUNED else state] += 1
    return pd.Series({number: counted(dict(states.most_common())) for number, states in endings.items()}, dtype=object)


def counted(states: Mapping[str, int]) -> str:
    """`2 failed, 1 running`."""
    return ", ".join(f"{n} {state}" for state, n in states.items())
