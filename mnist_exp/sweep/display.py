"""What a sweep shows: a line for each job that ends, and in a terminal one status line below."""

import re
import time
from collections.abc import Sequence
from typing import final

from rich.live import Live
from rich.text import Text

from mnist_exp import terminal
from mnist_exp.terminal import console, say

LONG = re.compile(r"\d\.\d{5,}(e-?\d+)?")  # as a sampler draws them


@final
class Display:
    """One sweep on the screen. Lines for events; a status line only where a terminal can redraw it.

    Args:
        total: Number of jobs.
        fixed: Overrides that all jobs share; they are not repeated for each.
    """

    def __init__(self, total: int, fixed: set[str]) -> None:
        self.total, self.done, self.bad, self.fixed = total, 0, 0, fixed
        self.running: dict[int, tuple[str, str]] = {}
        self.judged: dict[int, str] = {}  # by which accuracy: `val`, or `train` for a job without validation
        self.given_up: dict[int, str] = {}  # pruned, and when
        self.best: tuple[float, str, str] | None = None
        self.began = time.monotonic()
        self.live: Live | None = None
        if terminal.redraws():
            self.live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def started(self, number: int, overrides: Sequence[str]) -> None:
        """A worker has begun a job."""
        self.running[number] = (self._short(overrides), "")
        self.refresh()

    def epoch(self, number: int, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        """A job has finished an epoch."""
        self.judged[number] = "val" if "val/accuracy" in metrics else "train"
        shown = metrics[f"{self.judged[number]}/accuracy"]
        self.running[number] = (self.running[number][0], f" {epoch}/{epochs} {100 * shown:.2f} %")
        self.refresh()

    def pruned(self, number: int, reason: str) -> None:
        """A job is about to end early, as no longer promising."""
        self.given_up[number] = reason

    def finished(self, number: int, overrides: Sequence[str], objective: object) -> None:
        """A job has ended well."""
        self.done += 1
        self.running.pop(number, None)
        text, result = self._short(overrides), ""
        if number in self.given_up:
            result = f"  {self.given_up[number]}"
        elif isinstance(objective, float):
            judged = self.judged.get(number, "val")
            result = f"  {judged} {100 * objective:.2f} %"
            if self.best is None or objective > self.best[0]:
                self.best = (objective, text, judged)
        self._line(f"#{number} {text}{result}")

    def failed(self, number: int, overrides: Sequence[str], reason: str, again: bool) -> None:
        """A job has failed; it may be tried again."""
        self.running.pop(number, None)
        if not again:
            self.bad += 1
        self._line(f"#{number} {self._short(overrides)}  FAILED{', trying again' if again else ''}: {reason}", "red")

    def stopped(self, number: int) -> None:
        """A job has saved its epochs and stopped, as asked."""
        self.running.pop(number, None)
        self.refresh()

    def stopping(self) -> None:
        """The user wants to stop."""
        say("Stopping: running jobs finish their batch. Ctrl-C again to leave at once.")

    def refresh(self) -> None:
        """Draws the status line anew."""
        if self.live:
            self.live.update(Text(self.status(), overflow="ellipsis", no_wrap=True), refresh=True)

    def status(self) -> str:
        """Done, failed, running, best so far and time left, in one line."""
        parts = [f"{self.done + self.bad}/{self.total} done"]
        if self.bad:
            parts.append(f"{self.bad} failed")
        if self.given_up:
            parts.append(f"{len(self.given_up)} pruned")
        if self.running:
            parts.append(f"{len(self.running)} running")
        if self.best:
            parts.append(f"best {self.best[2]} {100 * self.best[0]:.2f} % ({self.best[1]})")
        ended = self.done + self.bad
        if ended:
            left = (time.monotonic() - self.began) / ended * (self.total - ended)
            parts.append(f"{terminal.duration(left)} left")
        parts += [f"#{n}{state}" for n, (_, state) in sorted(self.running.items())]
        return " · ".join(parts)

    def _short(self, overrides: Sequence[str]) -> str:
        text = " ".join(o for o in overrides if o not in self.fixed and not o.startswith("hydra."))
        return LONG.sub(lambda number: f"{float(number[0]):.4g}", text)

    def _line(self, text: str, style: str = "") -> None:
        say(f"[{self.done + self.bad}/{self.total}] {text}", style)
        self.refresh()
