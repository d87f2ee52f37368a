"""What people see: lines, a progress bar in a terminal, plain text anywhere else.

rich decides what the terminal can do: NO_COLOR, TERM=dumb and pipes are honoured, and nothing that matters
is said by colour alone.
"""

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from mnist_exp.errors import ExperimentError

# In a notebook, too, lines are text: rich would make a block of HTML of each.
console = Console(highlight=False, soft_wrap=True, force_jupyter=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, force_jupyter=False)
_log = logging.getLogger("mnist_exp")


def say(line: str, style: str = "") -> None:
    """One line for the screen and the run's log file."""
    _log.info(line)
    console.print(escape(line), style=style or None)


def complain(error: ExperimentError) -> None:
    """What was wrong, and the way out."""
    _log.info("error: %s %s", error.message, error.help)
    errors.print(f"[bold red]error:[/] {escape(error.message)}")
    if error.help:
        errors.print(f"  help: {escape(error.help)}")


@final
class WarningHandler(logging.Handler):
    """Shows warnings of all libraries as one line each, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        word = "warning" if record.levelno < logging.ERROR else "error"
        message = record.getMessage()
        errors.print(f"[bold yellow]{word}:[/] {escape(message)}")


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """While it lasts, what this package says and logs is also written to *path*, as Hydra does for the command."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s %(name)s: %(message)s"))
    before = _log.level
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(before)
        handler.close()


def redraws() -> bool:
    """Whether a line can be drawn again: in a terminal, but not in a log that asked for colour, nor in a notebook.

    A notebook's `!command` runs in something like a terminal, which keeps every line that was ever drawn.
    """
    terminal = console.is_terminal and console.file.isatty() and not console.is_dumb_terminal
    return terminal and "JPY_PARENT_PID" not in os.environ


@contextlib.contextmanager
def progress(total: Callable[[], int], unit: str, done: Callable[[], int]) -> Iterator[None]:
    """A bar that asks *done* and *total* how far things are, four times a second; nothing where `redraws` says no.

    Args:
        total: What *done* returns at the end; may change.
        unit: What is counted, such as "steps".
        done: Cheap and safe to call from another thread.
    """
    if not redraws():
        yield
        return
    columns = (TextColumn("{task.completed}/{task.total} " + unit), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
    task, over = bar.add_task("", total=total()), threading.Event()

    def follow() -> None:
        while not over.wait(0.25):
            bar.update(task, completed=done(), total=total(), refresh=True)

    watcher = threading.Thread(target=follow, daemon=True)
    with bar:
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


@contextlib.contextmanager
def changing(every: float = 60.0) -> Iterator[Callable[[str], None]]:
    """Gives what shows a line that changes: drawn again where `redraws`, and gone at the end.

    Elsewhere it is printed on standard error, anew after *every* seconds at most if it has changed.
    """
    live = Live(console=console, transient=True, auto_refresh=False)
    said, since = "", -math.inf

    def draw(line: str) -> None:
        live.start()
        live.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=True)

    def tell(line: str) -> None:
        nonlocal said, since
        if line != said and time.monotonic() >= since + every:
            said, since = line, time.monotonic()
            errors.print(escape(line))

    try:
        yield draw if redraws() else tell
    finally:
        live.stop()


def duration(seconds: float) -> str:
    """`48 s`, `3 min` or `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def shown(folder: Path) -> str:
    """*folder* as one types it from here."""
    try:
        return str(folder.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
