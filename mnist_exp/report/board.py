"""Settings as a table: seeds aggregated, the best one first (see `ranking`), test reported."""

import dataclasses
import json
import math
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, final

import pandas as pd

from mnist_exp import config, system
from mnist_exp.console import terminal
from mnist_exp.console.formats import count, plural, score, seconds, short, value
from mnist_exp.disk import trust
from mnist_exp.disk.files import atomic_write
from mnist_exp.disk.layout import RunFolder, State, SweepFolder
from mnist_exp.errors import ConfigError
from mnist_exp.results import ranking
from mnist_exp.results import table as table_of
from mnist_exp.results.certainty import Certainty, certainty
from mnist_exp.results.names import Selection
from mnist_exp.results.ranking import LOST, REPLICATES, Ranking, Run

SPLITS = ("val", "test", "train")
NAMED = 3  # settings in a sentence
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
            what = " ".join(part for part in short(self.table["name"].iloc[0]).split() if not part.startswith("data="))
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
    def labels(self) -> list[str]:
        """The settings of the leaderboard, in its order."""
        return [label(row, self.by) for row in self.board.to_dict("records")]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The leaderboard as JSON has it."""
        text = self.board.drop(columns=INNER).to_json(orient="records", double_precision=15)
        return list(json.loads(text))

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
    comparisons = []
    for ranked in rankings:
        data, own = "", table
        if len(rankings) > 1:
            data, own = ranked.data, table.loc[sorted(run.at for setting in ranked.groups for run in setting.runs)]
        comparisons.append(Comparison(selection, data, own, ranked, leaderboard(own, ranked), certainty(ranked)))
    return comparisons


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


def repeated(table: pd.DataFrame) -> list[str]:
    """Those of seed and fold in which runs of *table* differ."""
    return [key for key in REPLICATES if key in table and table[key].nunique() > 1]


def rows(table: pd.DataFrame, ranked: Ranking) -> "pd.Series[int]":
    """See `Comparison.rows`."""
    row_of = {run.at: row for row, setting in enumerate(ranked.groups) for run in setting.runs}
    return pd.Series([row_of[index] for index in table.index], table.index)


def leaderboard(table: pd.DataFrame, ranked: Ranking) -> pd.DataFrame:
    """One row for each setting of *ranked*, best first, from a *table* as `results.load` gives it.

    Columns: the keys in which settings differ; `n` seeds, or folds of seeds, of which a run finished;
    `not_finished`, such as `1 failed`; for each split that was measured the mean final accuracy `<split>_mean` and its
    sample standard deviation over seeds and folds `<split>_sd` (n - 1; NaN with one), from 0 to 1;
    mean `seconds` of training and `parameters` of the finished runs; `best`, the index in *table* of its median run,
    or -1.
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
        **{key: run[key] for key in ("number", "name", "state")},
        "reason": run["reason"] or ("it was never started" if never_started else f"it is {run['state']}"),
        "log": terminal.shown(log) if log and log.exists() else "",
        "rerun": again(run),
    }


def again(run: Mapping[Any, Any]) -> str:
    """The line that trains *run*, a row of a table, again; what a foreign folder records is no part of it."""
    folder = run["folder"]
    if folder is None or trust.own(folder):
        return config.command(run["overrides"])
    return shlex.join(["python", "-m", "mnist_exp.rerun", config.override("run", terminal.shown(folder))])


def save(comparisons: Sequence[Comparison]) -> None:
    """Writes `runs.csv` and `leaderboard.csv` beside the runs; of several comparisons, each into its own folder."""
    if len(comparisons) > 1:
        home = SweepFolder(comparisons[0].selection.home)
        for old in (home.table, home.board):
            system.unlink(old)  # written while there was one dataset
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
    head = [*by, *(f"{split} %" for split in splits), "n", *lost, "time", "parameters"]
    rows = []
    for row in board.to_dict("records"):
        scores = [score(row[f"{split}_mean"], row[f"{split}_sd"]) for split in splits]
        values = [value(row[key]) for key in by]
        cost = [seconds(row["seconds"]), count(row["parameters"])]
        rows.append([*values, *scores, str(row["n"]), *([row["not_finished"]] if lost else []), *cost])
    return head, rows


def label(row: Mapping[Any, Any], by: Sequence[str]) -> str:
    """`hidden=64 lr=0.001`; what a setting does not have, as a CNN has no `hidden`, is left out."""
    named = [(key, value(row[key])) for key in by]
    had = [(key, text) for key, text in named if text != "–"]
    return " ".join(f"{key}={text}" for key, text in had or named) or "all runs"


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
