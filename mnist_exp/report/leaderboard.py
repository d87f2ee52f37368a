"""Which setting is best: seeds aggregated, ordered by validation, test reported."""

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from mnist_exp import results, terminal
from mnist_exp.errors import ConfigError
from mnist_exp.files import atomic_write
from mnist_exp.ledger import rank
from mnist_exp.naming import Selection

SPLITS = ("val", "test", "train")
LOST = ("failed", "killed", "damaged")
TOP = 20  # rows that a terminal shows
NUMBERS = ("val %", "test %", "train %", "n", "seconds", "parameters")
INNER = ["setting", "best"]  # columns of a leaderboard that lead to its runs


@final
@dataclass(frozen=True)
class Comparison:
    """Runs, read once, and what a leaderboard or a page says of them."""

    selection: Selection
    table: pd.DataFrame
    """As from `results.load`."""
    by: list[str]
    """See `keys`."""
    board: pd.DataFrame
    """See `leaderboard`."""


def compare(selection: Selection) -> Comparison:
    """Reads the runs of *selection* and compares them.

    Raises:
        ConfigError: there are none.
        ExperimentError: a file or the store cannot be read.
    """
    table = results.frame(selection)
    if table.empty:
        raise ConfigError(f"{selection.title} has no runs; deleted ones are left out.")
    by = keys(table, selection)
    return Comparison(selection, table, by, leaderboard(table, by))


def tracked(found: Comparison) -> Comparison:
    """*found*, whose runs are on this machine, with what MLflow calls them by now."""
    ids = pd.DataFrame([results.ids(folder) for folder in found.table["folder"]], index=found.table.index)
    return dataclasses.replace(found, table=found.table.assign(**ids))


def judge(table: pd.DataFrame) -> str:
    """The split that orders the runs: `val`, or `train` where no run has validation. Never `test`."""
    return "val" if table["final/val_accuracy"].notna().any() else "train"


def measured(table: pd.DataFrame) -> list[str]:
    """The splits that any run was measured on, the most telling first."""
    return [split for split in SPLITS if table[f"final/{split}_accuracy"].notna().any()]


def keys(table: pd.DataFrame, selection: Selection) -> list[str]:
    """What varies between the runs, without the seed: one setting of these is one row of the leaderboard.

    In a sweep, what was typed; what follows from that is left out. More may vary: points that were added later, or
    runs that went on with other settings.
    """
    differ = [key for key in results.varied(table) if key != "seed"]
    if selection.sweep is None:
        return differ
    settings = {*results.settings(table)} - {"seed"}
    found = [key for key in dict.fromkeys([*selection.sweep.keys, *_typed(selection.sweep.points)]) if key in settings]
    for key in differ:
        values = results.known(table[key]).map(str)
        if key not in found and (values.groupby(alike(table, found)).nunique() > 1).any():
            found.append(key)
    return found


def alike(table: pd.DataFrame, by: list[str]) -> "pd.Series[int]":
    """A number for each run, the same for runs that agree in the keys *by*."""
    return table.groupby(by, dropna=False, sort=False).ngroup() if by else pd.Series(0, table.index)


def _typed(points: list[list[str]]) -> list[str]:
    """The keys of the overrides that not all of *points* share."""
    shared = set.intersection(*(set(point) for point in points if point)) if any(points) else set()
    return [key for point in points for key in results.chosen([o for o in point if o not in shared])]


def leaderboard(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """One row for each setting of the keys *by*, best first.

    Columns: *by*; `n` finished runs; `not_finished`, such as `1 failed`; for each split that was measured the mean
    final accuracy `<split>_mean` and its sample standard deviation `<split>_sd` (n - 1; NaN with one run), from 0 to 1;
    mean `seconds` of training and `parameters` of the finished runs; `setting`, its runs' number in `alike`; `best`,
    the index in *table* of the run that validates best, or -1.

    Args:
        table: As from `results.load`.
    """
    judged, setting = judge(table), alike(table, by)
    done = table[table["state"] == "finished"]
    runs = done.groupby(setting)
    board = table.loc[~setting.duplicated(), by].set_index(setting[~setting.duplicated()])
    board["n"] = runs.size().reindex(board.index, fill_value=0)
    board["not_finished"] = _endings(table, setting).reindex(board.index, fill_value="")
    for split in measured(table):
        accuracy = runs[f"final/{split}_accuracy"]
        board[f"{split}_mean"], board[f"{split}_sd"] = accuracy.mean(), accuracy.std(ddof=1)
    board["seconds"] = runs["seconds"].mean()
    board["parameters"] = pd.to_numeric(done["parameters"]).groupby(setting).max()
    board["setting"] = board.index
    best = {setting[index]: index for index in reversed(ranked(table))}
    board["best"] = [best.get(number, -1) for number in board.index]
    board["loss"] = runs[f"final/{judged}_loss"].mean()
    order = [f"{judged}_mean", "loss"] if f"{judged}_mean" in board else ["n"]  # equal accuracy: lower loss first
    board = board.sort_values(order, ascending=[False, True][: len(order)], kind="stable", ignore_index=True)
    return board.drop(columns="loss")


def ranked(table: pd.DataFrame) -> list[Any]:
    """Index of the finished runs that can be judged, best first; see `ledger.rank`."""
    judged = judge(table)
    done = table[(table["state"] == "finished") & table[f"final/{judged}_accuracy"].notna()]
    measures = done[[f"final/{judged}_{what}" for what in ("accuracy", "loss")]]
    ranks = [rank({str(key): v for key, v in run.items() if v == v}) for run in measures.to_dict("records")]
    order = sorted(range(len(done)), key=lambda i: ranks[i], reverse=True)
    return [done.index[i] for i in order]


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts of runs in each state, best and median accuracy (0 to 1; None if no run finished), seconds."""
    judged = judge(table)
    done = table[table["state"] == "finished"]
    accuracy = done[f"final/{judged}_accuracy"].dropna()
    return {
        "runs": len(table),
        "states": {str(state): int(n) for state, n in table["state"].value_counts().items()},
        "judged_by": f"final/{judged}_accuracy",
        "best": float(accuracy.max()) if len(accuracy) else None,
        "median": float(accuracy.median()) if len(accuracy) else None,
        "seconds": float(table["seconds"].sum()),
    }


def failures(table: pd.DataFrame, states: Collection[str] = LOST) -> list[dict[str, Any]]:
    """Runs in one of *states*: which, why, the log, and the line that runs just this one again."""
    found = []
    said = ["folder", "number", "name", "state", "reason", "overrides"]
    for run in table.loc[table["state"].isin(states), said].to_dict("records"):
        log = run["folder"] / "train.log" if run["folder"] is not None else None
        found.append(
            {
                "number": run["number"],
                "name": run["name"],
                "state": run["state"],
                "reason": run["reason"]
                or {"planned": "it was never started"}.get(run["state"], f"it is {run['state']}"),
                "log": terminal.shown(log) if log and log.exists() else "",
                "rerun": results.command(run["overrides"]),
            }
        )
    return found


def show(found: Comparison, as_json: bool = False, lost: bool = True) -> None:
    """Prints the leaderboard of *found*: a table in a terminal, aligned text in a pipe, JSON if asked for.

    Args:
        lost: Whether to list the runs that failed below it.
    """
    table, board, facts = found.table, found.board, summary(found.table)
    if as_json:
        terminal.console.print_json(json.dumps(to_json(found, facts, failures(table)), allow_nan=False))
        return
    out = terminal.console
    out.print(escape(f"{found.selection.title}: {sentence(facts)}"))
    head, rows = cells(board, found.by)
    if out.is_terminal:
        drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for column in head:
            number = column in NUMBERS
            drawn.add_column(escape(column), justify="right" if number else "left", no_wrap=number)
        for row in rows[:TOP]:
            drawn.add_row(*map(escape, row))
        out.print(drawn)
        if len(rows) > TOP:
            out.print(f"and {len(rows) - TOP} more")
    else:
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            out.print(escape(line.rstrip()))
    if len(board) > 1 and board["n"].max() < 3:
        out.print("One or two seeds each: differences may be chance. Add seeds with seed=0,1,2.")
    for failure in failures(table) if lost else []:
        out.print(escape(f"{failure['state']}: {failure['name']}: {failure['reason']}"), style="red")
        if failure["log"]:
            out.print(escape(f"  log: {failure['log']}"))
        out.print(escape(f"  again: {failure['rerun']}"))


def save(found: Comparison) -> None:
    """Writes `runs.csv` and `leaderboard.csv` beside the runs."""
    write_csv(found.table, found.selection.home / "runs.csv")
    write_csv(found.board.drop(columns=INNER), found.selection.home / "leaderboard.csv")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """*table* without its index, atomically."""
    atomic_write(path, table.to_csv(index=False).encode())


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


def to_json(found: Comparison, facts: dict[str, Any], failed: list[dict[str, Any]]) -> dict[str, Any]:
    """What `--json` prints. Accuracies from 0 to 1; what is unknown is null."""
    rows = json.loads(found.board.drop(columns=INNER).to_json(orient="records", double_precision=15))
    sweep = found.selection.sweep.id if found.selection.sweep else None
    return {
        "format": 1,
        "title": found.selection.title,
        "sweep": sweep,
        "summary": facts,
        "leaderboard": rows,
        "failures": failed,
    }


def sentence(facts: dict[str, Any]) -> str:
    """The summary in words."""
    runs = f"{facts['runs']} run{'s' if facts['runs'] > 1 else ''} ({counted(facts['states'])})."
    if facts["best"] is None:
        return runs
    judged = {"val": "validation", "train": "training"}[facts["judged_by"].split("/")[1].split("_")[0]]
    best, median = 100 * facts["best"], 100 * facts["median"]
    return f"{runs} Best {judged} accuracy {best:.2f} %, median {median:.2f} %."


def _endings(table: pd.DataFrame, setting: "pd.Series[int]") -> "pd.Series[str]":
    """How the runs of each *setting* stand that have not finished: `2 failed, 1 pruned after epoch 3`."""
    endings: dict[int, Counter[str]] = defaultdict(Counter)
    for number, state, epoch in zip(setting, table["state"], table["epoch"], strict=True):
        if state != "finished":
            endings[number][f"pruned after epoch {epoch}" if state == "pruned" else state] += 1
    return pd.Series({number: counted(dict(found.most_common())) for number, found in endings.items()}, dtype=object)


def counted(states: Mapping[str, int]) -> str:
    """`2 failed, 1 running`."""
    return ", ".join(f"{n} {state}" for state, n in states.items())


def score(mean: float, sd: float) -> str:
    """Mean and standard deviation from 0 to 1, as `97.83 ± 0.12`; no spread for a single run."""
    if pd.isna(mean):
        return "–"
    return f"{100 * mean:.2f}" + ("" if pd.isna(sd) else f" ± {100 * sd:.2f}")


def value(setting: Any) -> str:
    """A setting as one types it."""
    if isinstance(setting, bool):
        return str(setting).lower()
    if isinstance(setting, float):
        return "–" if pd.isna(setting) else f"{setting:g}"
    return "–" if setting is None else str(setting)


def seconds(time: float) -> str:
    """A duration as people say it: `0.82 s`, `42 s`, `3:05 min`, `2:10 h`."""
    if pd.isna(time):
        return "–"
    if time < 100:
        return f"{time:.2f} s" if time < 10 else f"{time:.0f} s"
    minutes = round(time / 60)
    return f"{time // 60:.0f}:{time % 60:02.0f} min" if minutes < 100 else f"{minutes // 60}:{minutes % 60:02d} h"


def count(number: float) -> str:
    """`101,770`."""
    return "–" if pd.isna(number) else f"{int(number):,}"
