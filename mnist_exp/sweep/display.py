"""What a sweep shows: a line for each job that ends, and in a terminal two lines below that are redrawn."""

import time
from collections.abc import Sequence
from statistics import fmean
from typing import final

from rich.console import Group
from rich.live import Live
from rich.text import Text

from mnist_exp.config.overrides import key_of
from mnist_exp.console import formats, terminal
from mnist_exp.console.terminal import console, say
from mnist_exp.results.ranking import REPLICATES


@final
class Display:
    """One sweep on the screen. Lines for events; a status only where a terminal can redraw it.

    Args:
        total: Number of jobs.
        fixed: Overrides that all jobs share; they are not repeated for each.
    """

    def __init__(self, total: int, fixed: set[str]) -> None:
        self.total, self.done, self.bad, self.fixed = total, 0, 0, fixed
        self.costs: dict[int, float] = {}
        """About how long each known job trains, compared with the others."""
        self.coming = 0
        """Jobs that are not known yet, as in a search."""
        self.shares: dict[int, float] = {}
        """How much of its epochs each job has trained, from 0 to 1."""
        self.ended: set[int] = set()
        self.work = 0.0
        """What was trained since the display began, in the unit of `costs`."""
        self.running: dict[int, tuple[str, str]] = {}
        self.splits: dict[int, str] = {}
        """The split whose accuracy is shown of each job: `val`, or `train` where there is no validation."""
        self.reasons: dict[int, str] = {}
        """In which epoch each pruned job ended, as a sentence."""
        self.scores: dict[str, list[float]] = {}
        """The accuracies of each setting, by its overrides without the seed."""
        self.means: dict[str, float] = {}
        self.began: float | None = None
        """When the first job started."""
        self.live = Live(console=console, transient=True, auto_refresh=False) if terminal.redraws() else None

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def started(self, number: int, overrides: Sequence[str]) -> None:
        """A worker has begun a job."""
        self.began = self.began or time.monotonic()
        self.running[number] = (self._short(overrides), "")
        self.refresh()

    def epoch(self, number: int, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        """A job has finished an epoch."""
        self._reached(number, epoch / epochs, before=(epoch - 1) / epochs)
        self.splits[number] = "val" if "val/accuracy" in metrics else "train"
        shown = metrics[f"{self.splits[number]}/accuracy"]
        self.running[number] = (self.running[number][0], f" {epoch}/{epochs} {formats.percent(shown)}")
        self.refresh()

    def pruned(self, number: int, reason: str) -> None:
        """A job is about to end early, as no longer promising."""
        self.reasons[number] = reason

    def finished(self, number: int, overrides: Sequence[str], objective: object) -> None:
        """A job has ended well."""
        self.done += 1
        self.running.pop(number, None)
        if number not in self.shares:  # it reports no epochs
            self._reached(number, 1.0, before=0.0)
        self.ended.add(number)
        text, result = self._short(overrides), ""
        if number in self.reasons:
            result = f"  {self.reasons[number]}"
        elif isinstance(objective, float):
            result = f"  {self.splits.get(number, 'val')} {formats.percent(objective)}"
            setting = self._short([override for override in overrides if key_of(override) not in REPLICATES])
            self.scores.setdefault(setting, []).append(objective)
            self.means[setting] = fmean(self.scores[setting])
        self._line(f"{text or f'#{number}'}{result}")

    def failed(self, number: int, overrides: Sequence[str], reason: str, again: bool) -> None:
        """A job has failed; it may be tried again."""
        self.running.pop(number, None)
        if not again:
            self.bad += 1
            self.ended.add(number)
        which = self._short(overrides) or f"#{number}"
        self._line(f"{which}  FAILED{', trying again' if again else ''}: {reason}", "red")

    def stopped(self, number: int) -> None:
        """A job has saved its epochs and stopped, as asked."""
        self.running.pop(number, None)
        self.refresh()

    def refresh(self) -> None:
        """Draws the two lines of the status anew."""
        if self.live:
            lines = (Text(line, overflow="ellipsis", no_wrap=True) for line in (self.status(), self.now()) if line)
            self.live.update(Group(*lines), refresh=True)

    def status(self) -> str:
        """Done, failed, running, time left and best so far, in one line."""
        parts = [f"{self.done + self.bad}/{self.total} done"]
        counts = {"failed": self.bad, "pruned": len(self.reasons), "running": len(self.running)}
        parts += [f"{count} {state}" for state, count in counts.items() if count]
        if left := self.left():
            parts.append(f"{formats.duration(left)} left")
        if self.means:
            best = max(self.means, key=self.means.__getitem__)
            split, runs = next(iter(self.splits.values()), "val"), len(self.scores[best])
            which = ", ".join(filter(None, [best, formats.plural(runs, "run") if runs > 1 else ""]))
            parts.append(f"best {split} {formats.percent(self.means[best])}" + (f" ({which})" if which else ""))
        return " · ".join(parts)

    def now(self) -> str:
        """The running jobs, each with its settings and how far it is, in one line."""
        return " · ".join(f"{text or f'#{n}'}{state}" for n, (text, state) in sorted(self.running.items()))

    def left(self) -> float:
        """Seconds that the rest will take if it is trained as fast as what was trained so far; 0 if nothing was."""
        if self.began is None or not self.work:
            return 0.0
        ended = [self.shares.get(number, 0.0) for number in self.ended]
        usual = sum(ended) / len(ended) if ended else 1.0  # less than 1 where runs are pruned or stop early
        rest = self.coming * usual * sum(self.costs.values()) / max(1, len(self.costs))
        for number, cost in self.costs.items():
            if number not in self.ended:
                rest += cost * (1.0 - self.shares[number] if number in self.shares else usual)
        return (time.monotonic() - self.began) * rest / self.work

    def _reached(self, number: int, share: float, before: float) -> None:
        """A job has trained so much of its epochs; of that *before* in an earlier attempt, unless it was shown."""
        self.work += max(0.0, share - self.shares.get(number, before)) * self.costs.get(number, 1.0)
        self.shares[number] = share

    def _short(self, overrides: Sequence[str]) -> str:
        return formats.settings(o for o in overrides if o not in self.fixed and not o.startswith("hydra."))

    def _line(self, text: str, style: str = "") -> None:
        say(f"[{self.done + self.bad}/{self.total}] {text}", style)
        self.refresh()
