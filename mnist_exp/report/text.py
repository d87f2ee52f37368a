"""What the terminal shows of a comparison."""

import json
from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from mnist_exp.console import terminal
from mnist_exp.report import answer
from mnist_exp.report.board import Comparison, cells, failures, to_json

TOP = 20  # rows that a terminal shows
NUMBERS = ("val %", "test %", "train %", "n", "seconds", "parameters")


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
    out.print(escape(answer.sentence(comparison)))
    what, command = answer.next_step(comparison)
    if command:
        out.print(escape(f"{what}:\n  {command}"))
    out.print(escape(f"{comparison.selection.title}: {answer.background(comparison)}"))
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


def _show_failure(failure: dict[str, Any]) -> None:
    """One of `failures`."""
    out = terminal.console
    out.print(escape(f"{failure['state']}: {failure['name']}: {failure['reason']}"), style="red")
    if failure["log"]:
        out.print(escape(f"  log: {failure['log']}"))
    out.print(escape(f"  again: {failure['rerun']}"))
