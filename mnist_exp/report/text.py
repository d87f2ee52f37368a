"""What the terminal shows of a comparison."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from mnist_exp.console import terminal
from mnist_exp.console.formats import short
from mnist_exp.report import answer
from mnist_exp.report.board import Comparison, cells, failures, summary

TOP = 20  # rows that a terminal shows
NUMBERS = ("val %", "test %", "train %", "n", "time", "parameters")


def show(comparisons: Sequence[Comparison], as_json: bool = False, lost: bool = True) -> None:
    """Prints the leaderboards of *comparisons*: tables in a terminal, aligned text in a pipe, JSON if asked for.

    Args:
        lost: Whether to list the runs that failed below each.
    """
    if as_json:
        terminal.console.print_json(json.dumps(to_json(comparisons), allow_nan=False))
        return
    out = terminal.console
    for comparison in comparisons:
        _show_board(comparison)
        for failure in failures(comparison.table) if lost else []:
            out.print(escape(f"{failure['state']}: {short(failure['name'])}: {failure['reason']}"), style="red")
            if failure["log"]:
                out.print(escape(f"  log: {failure['log']}"))
            out.print(escape(f"  again: {failure['rerun']}"))


def to_json(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """What `--json` prints. Accuracies from 0 to 1; what is unknown is null.

    It begins with the answer in words, `next` is what the terminal and the page advise; nothing where they do not.
    Of several comparisons it is a list, `datasets`, each with what it is on as `data`.
    """
    selection = comparisons[0].selection
    head = {"format": 1, "title": selection.title, "sweep": selection.sweep.id if selection.sweep else None}
    if len(comparisons) == 1:
        return head | _facts(comparisons[0])
    return head | {"datasets": [{"data": each.data} | _facts(each) for each in comparisons]}


def _facts(comparison: Comparison) -> dict[str, Any]:
    why, command = answer.next_step(comparison)
    return {
        "answer": answer.sentence(comparison),
        "next": {"why": why, "command": command} if command else None,
        "summary": summary(comparison),
        "certainty": comparison.certainty and dataclasses.asdict(comparison.certainty),
        "leaderboard": comparison.lines,
        "failures": failures(comparison.table),
    }


def _show_board(comparison: Comparison) -> None:
    """The answer, what to do next, and the table."""
    out = terminal.console
    out.print(escape(comparison.title), style="bold")
    terminal.tell(answer.sentence(comparison))
    what, command = answer.next_step(comparison)
    if command:
        out.print(escape(f"{what}:\n  {command}"))
    terminal.tell(f"{comparison.selection.title}: {answer.background(comparison)}")
    (_show_table if out.is_terminal else _show_text)(*cells(comparison.board, comparison.by))


def _show_table(head: list[str], lines: list[list[str]]) -> None:
    """A table with the first rows."""
    terminal.table(head, lines[:TOP], left=[column for column in head if column not in NUMBERS], whole=NUMBERS)
    if len(lines) > TOP:
        terminal.console.print(f"and {len(lines) - TOP} more")


def _show_text(head: list[str], lines: list[list[str]]) -> None:
    """Aligned columns, for programs that read a pipe."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for line in (head, *lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        terminal.console.print(escape(text.rstrip()))
