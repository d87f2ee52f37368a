"""What the first page shows: the sweeps and runs of a folder, newest first, as their files have them now."""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import final
from urllib.parse import quote

from mnist_exp import config
from mnist_exp.console.formats import percent, short, value
from mnist_exp.disk import ledger, order, records, tracked
from mnist_exp.disk.layout import RunFolder, State, SweepFolder, holds_runs
from mnist_exp.errors import ExperimentError
from mnist_exp.results import names
from mnist_exp.results.names import Selection
from mnist_exp.results.ranking import Ranking

SHOWN = 200  # of each kind, the newest
SPARING = 20  # times as long as it takes to read a sweep, until it is read again


@final
@dataclass(frozen=True)
class Listed:
    """A sweep or a run."""

    id: str
    title: str
    """What varies, or what was set."""
    began: str
    """In UTC."""
    state: str
    running: bool
    best: str
    """The best setting so far, or the run's accuracy."""
    command: str
    page: str
    """Address of its page, quoted, from the root of the folder; empty: it has none yet."""
    view: str
    """Address in MLflow, without the server's name; empty: it is not tracked."""


@final
class Overview:
    """Reads the sweeps and runs below *root*: those whose files have changed, and a large sweep not at every look."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[Path, tuple[object, float, Listed]] = {}
        """What was read, with the times of its files, and when it may be read again."""
        self.numbers: dict[Path, tuple[int, str]] = {}

    def newest(self, kind: str) -> list[Listed]:
        """The newest in `<root>/<kind>/<day>/<time>`: `sweeps`, or `runs` that belong to none.

        Links are left out: they may lead anywhere.
        """
        folders = [
            each for each in self.root.glob(f"{kind}/*/*/") if not (each.is_symlink() or each.parent.is_symlink())
        ]
        folders = sorted((each for each in folders if holds_runs(each)), key=self._number, reverse=True)
        return [self._entry(folder) for folder in folders[:SHOWN]]

    def _number(self, folder: Path) -> tuple[int, str]:
        """Orders by what was begun last; a damaged one comes after the others."""
        if folder not in self.numbers:
            begun = None
            with contextlib.suppress(ExperimentError):
                begun = order.begun(folder)
            if begun is None:
                return -1, folder.name
            self.numbers[folder] = begun[0], folder.name
        return self.numbers[folder]

    def _entry(self, folder: Path) -> Listed:
        began = time.monotonic()
        try:
            stamp = (records.held(folder), *sorted(_times(folder)))
        except OSError as error:  # it is another user's
            return _damaged(folder, f"{error.filename} cannot be read: {error.strerror}.")
        before, due, entry = self.known.get(folder, (None, 0.0, None))
        if entry is None or (stamp != before and began >= due):
            entry = self._read(folder)
            now = time.monotonic()
            self.known[folder] = stamp, now + SPARING * (now - began), entry
        return entry

    def _read(self, folder: Path) -> Listed:
        try:
            selection = names.resolve(folder)
            rankings = names.rankings(selection)
        except (ExperimentError, OSError) as error:
            return _damaged(folder, str(error))
        page, record = SweepFolder(folder).page, tracked.read(folder)
        return Listed(
            id=folder.name,
            title=_title(selection, rankings),
            began=time.strftime("%Y-%m-%d %H:%M", time.gmtime(_began(selection) / 1000)),
            state=_state(rankings),
            running=records.held(folder),
            best=_best(rankings),
            command=config.command(selection.sweep.typed, sweep=True) if selection.sweep else "",
            page=quote(os.fsencode(page.relative_to(self.root))) if page.is_file() else "",
            view=record.page if record else "",
        )


def _damaged(folder: Path, reason: str) -> Listed:
    return Listed(folder.name, State.DAMAGED.value, "", reason, False, "", "", "", "")


def _times(folder: Path) -> Iterator[tuple[str, int]]:
    """When the files that an entry depends on were written."""
    wanted = (SweepFolder.plan, SweepFolder.page, RunFolder.ledger, RunFolder.tracked)
    for path in [*(folder / name for name in wanted), *folder.glob(f"*/{RunFolder.ledger}")]:
        if path.is_file():
            yield str(path), path.stat().st_mtime_ns


def _title(selection: Selection, rankings: list[Ranking]) -> str:
    """`hidden × lr`, as the report has it, without seeds that are averaged; or the name of a run."""
    if selection.sweep:
        compared = rankings[0].by if len(rankings) == 1 else []
        return " × ".join(compared or selection.sweep.keys) or "one setting"
    entry = ledger.find(selection.folders[0]) if len(selection.folders) == 1 else None
    return short(entry.name) if entry else selection.title


def _began(selection: Selection) -> int:
    """When it was begun, in milliseconds."""
    if selection.sweep:
        return selection.sweep.created_ms
    entries = [entry for folder in selection.folders if (entry := ledger.find(folder))]
    return min((entry.started_ms for entry in entries), default=0)


def _state(rankings: list[Ranking]) -> str:
    """`3 of 6 finished, 1 failed, 2 running`, or the state of a single run."""
    states = Counter(run.state for ranked in rankings for group in ranked.groups for run in group.runs)
    total = states.total()
    if total == 1:
        return str(next(iter(states)))
    others = [f"{n} {state}" for state, n in states.items() if state != State.FINISHED]
    return ", ".join([f"{states[State.FINISHED]} of {total} finished", *others])


def _best(rankings: list[Ranking]) -> str:
    """The mean validation accuracy of the best setting, with what it has set; of several comparisons nothing."""
    if len(rankings) != 1 or not (first := rankings[0].groups[0]).seeds:
        return ""
    split = first.split
    reached = first.over_seeds(f"final/{split}_accuracy")
    setting = " ".join(f"{key}={value(first.runs[0].settings.get(key))}" for key in rankings[0].by)
    return f"{split} {percent(fmean(reached))} {setting}".strip() if reached else ""
