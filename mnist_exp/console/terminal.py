"""What people see: lines, a progress bar in a terminal, plain text anywhere else.

rich decides what the terminal can do: NO_COLOR, TERM=dumb and pipes are honoured, and nothing that matters
is said by colour alone.
"""

import contextlib
import io
import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, final

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from mnist_exp import system
from mnist_exp.config.secrets import hide
from mnist_exp.config.stores import started_in
from mnist_exp.errors import ExperimentError

_log = logging.getLogger("mnist_exp")


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# All but tab and line feed, and half characters: what a name has of bytes that are no text


def harmless(text: str) -> str:
    """*text* without secrets, and with control characters, except line feeds, written out, as in `\\x1b`.

    A name may hold anything: a terminal would obey it, or show it in another order.
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), hide(text))


def on_page(value: Any) -> Any:
    """What a template shows of *value*: of a text the `harmless` one, unless it is markup already."""
    return harmless(value) if type(value) is str else value


@final
class HarmlessConsole(Console):
    """Prints whatever text it is given, also within tables, as `harmless` says."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


# In a notebook, too, lines are text: rich would make a block of HTML of each.
console = HarmlessConsole(highlight=False, soft_wrap=True, force_jupyter=False)
errors = HarmlessConsole(stderr=True, highlight=False, soft_wrap=True, force_jupyter=False)


def one_line(text: str) -> str:
    """As `harmless`, with line feeds written out, too."""
    return harmless(text).replace("\n", "\\n")


def say(line: str, style: str = "") -> None:
    """One line for the screen and the run's log file; on the screen once, also if a log of the user's goes there."""
    line = one_line(line)
    _log.info("%s", line)
    if not any(getattr(handler, "stream", None) in (sys.stdout, sys.stderr) for handler in logging.root.handlers):
        console.print(escape(line), style=style or None)


def tell(sentence: str) -> None:
    """A sentence: in a terminal it breaks between words, as a command or a path must not; in a pipe it is one line."""
    console.print(escape(one_line(sentence)), soft_wrap=not console.is_terminal)


def offer(about: str, *lines: str) -> None:
    """Says *about*, then what a person copies, such as an address, a path or a command: each alone on its line."""
    for line in (about, *(f"  {line}" for line in lines)):
        say(line)


def stopping() -> None:
    """Says that Ctrl-C or SIGTERM has come; in a thread, since that may have been amid another line."""
    threading.Thread(target=say, args=("Stopping… Ctrl-C again leaves at once.",)).start()


def complain(error: ExperimentError, word: str = "[bold red]error:[/]") -> None:
    """Prints what was wrong, and the way out; *word* is what the first line begins with.

    A way out may have further lines: commands to copy.
    """
    with contextlib.suppress(OSError):  # the log may be what cannot be written
        _log.info("error: %s %s", error.message, error.help)
    errors.print(f"{word} {escape(error.message)}")
    if error.help:
        way_out = error.help.replace("\n", "\n    ")
        errors.print(f"  help: {escape(way_out)}")


@final
class WarningHandler(logging.Handler):
    """Shows warnings of all libraries as one line each, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        word = "warning" if record.levelno < logging.ERROR else "error"
        message = one_line(record.getMessage())
        with contextlib.suppress(OSError):  # a worker's log is on a full disk
            errors.print(f"[bold yellow]{word}:[/] {escape(message)}")


@final
class LogFormatter(logging.Formatter):
    """One line for each record, whatever it holds, and its traceback if it has one."""

    def __init__(self) -> None:
        super().__init__("[%(asctime)s] %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return harmless(super().formatException(ei))


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Also writes what this package says and logs to *path*, as Hydra does for the command."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(LogFormatter())
    before = _log.level
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(before)
        handler.close()


@final
class SafeStream:
    """A standard stream that may fail: its reader has gone (`| head`), it is full (`> /dev/full`), or hung up.

    The first failure is logged. From then on all output to it is dropped, that of child processes too.
    """

    def __init__(self, stream: TextIO | None, name: str) -> None:
        self.stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        self.called = name
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        self.failure = error
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), self.stream.fileno())
        _log.info("%s cannot be written (%s): going on without it.", self.called, error.strerror)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def safe_streams() -> Iterator[SafeStream]:
    """Makes standard output and standard error `SafeStream`s; gives the first. A terminal that hangs up ends nothing.

    A stream that the shell has closed (`>&-`) becomes /dev/null, since the next file opened would take its number.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if threading.current_thread() is threading.main_thread():
        system.ignore_hangup()
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # PYTHONIOENCODING=ascii, or LANG=C
    out, err = SafeStream(sys.stdout, "Standard output"), SafeStream(sys.stderr, "Standard error")
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def redraws() -> bool:
    """Whether a line can be drawn again: in a terminal, not in a log that asked for colour, nor in a notebook.

    A notebook's `!command` runs in something like a terminal, which keeps every line that was ever drawn.
    """
    terminal = console.is_terminal and console.file.isatty() and not console.is_dumb_terminal
    return terminal and "JPY_PARENT_PID" not in os.environ


@contextlib.contextmanager
def progress(total: Callable[[], int], done: Callable[[], int]) -> Iterator[None]:
    """A bar of steps that polls *done* and *total* four times a second; nothing unless `redraws`.

    Args:
        total: What *done* returns at the end; may change.
        done: Cheap and safe to call from another thread.
    """
    if not redraws():
        yield
        return

    class Polling(Progress):
        def get_renderables(self) -> Iterable[RenderableType]:
            for task in self.task_ids:
                self.update(task, completed=done(), total=total())
            return super().get_renderables()

    columns = (TextColumn("{task.completed}/{task.total} steps"), BarColumn(), TimeRemainingColumn())
    with Polling(*columns, console=console, transient=True, refresh_per_second=4) as bar:
        bar.add_task("", total=total())
        yield


@contextlib.contextmanager
def changing(every: float = 60.0) -> Iterator[Callable[[str], None]]:
    """Gives a function that shows a line in place of the last one, and clears it at the end.

    Unless `redraws`, it prints the line on standard error, if it has changed and *every* seconds have passed.
    """
    live = Live(console=console, transient=True, auto_refresh=False)
    printed, since = "", -math.inf

    def draw(line: str) -> None:
        live.start()
        live.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=True)

    def log(line: str) -> None:
        nonlocal printed, since
        if line != printed and time.monotonic() >= since + every:
            printed, since = line, time.monotonic()
            errors.print(escape(line))

    try:
        yield draw if redraws() else log
    finally:
        live.stop()


def table(
    head: Sequence[str], lines: Sequence[Sequence[str]], left: Sequence[str] = (), whole: Sequence[str] = ()
) -> None:
    """Prints a table, if it has *lines*: the columns *left* aligned there, others right; *whole* ones never wrap."""
    if not lines:
        return
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for title in head:
        drawn.add_column(escape(title), justify="left" if title in left else "right", no_wrap=title in whole)
    for line in lines:
        drawn.add_row(*map(escape, line))
    console.print(drawn)


def side_by_side(what: str, lines: Sequence[Sequence[str]]) -> None:
    """Prints a table of A and B: *what* it is about, and that of each."""
    table([what, "A", "B"], lines, left=[what])


def shown(folder: Path) -> str:
    """*folder* relative to the folder in which the command was started, if it lies inside; with `/` on every system."""
    try:
        return folder.resolve().relative_to(started_in()).as_posix()
    except ValueError:
        return folder.as_posix()
