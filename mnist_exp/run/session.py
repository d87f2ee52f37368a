"""Trains runs, from config to result: claims their folders, groups them into packs, trains each pack.

One run is a pack of one.
"""

import contextlib
import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch

from mnist_exp.config import Config, classes
from mnist_exp.console.formats import plural
from mnist_exp.disk.ledger import Ledger
from mnist_exp.engine.events import Control, Observer
from mnist_exp.engine.loop import fit
from mnist_exp.errors import ExperimentError, first_line
from mnist_exp.run import build
from mnist_exp.run.claim import Member, Result, Task, claim, failing
from mnist_exp.run.export import draw_augmented
from mnist_exp.run.pack import Pack, grouped, halves, within_memory
from mnist_exp.run.recorder import Named, Recorder
from mnist_exp.run.writer import RunWriter

__all__ = ["Result", "Run", "Task", "Watch", "run_many"]

log = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Run:
    """A run that is about to train: what the header shows and observers may read."""

    config: Config
    folder: Path
    ledger: Ledger
    device: torch.device
    threads: int
    method: str
    """How gradients are computed, and the class of an optimiser that `engine/fused.py` lacks; for the log."""
    labels: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Of the images of `val` and `test`: (n,) int64 on the CPU; none where there are no such images."""
    classes: Sequence[str] = ()
    """What the classes are called, by label."""


Watch = Callable[[Run, Control], Sequence[Observer]]


def run_many(
    tasks: Sequence[Task],
    watch: Watch = lambda run, control: (),
    sweep: str = "",
    extras: bool = True,
    stopping: Callable[[], None] = lambda: None,
) -> list[Result | Exception]:
    """Trains runs that may share their batches (`sweep/packing.py` decides which) in one process.

    A lane that diverges or stops early ends alone. Runs of an earlier attempt continue as they began: alone, or in
    their lane of their pack (`lanes.py`).

    Args:
        watch: Called for each run once everything is ready; the observers that it returns get that run's events
            after the run's own files are written.
        sweep: Id of the sweep that the runs belong to.
        extras: Whether to export the network and to have its figures drawn. In a sweep they cost more than a
            short training, so only the best run gets them, at the end.
        stopping: Called at the first Ctrl-C or SIGTERM.

    Returns:
        For each task its result, or the error that ended it: before training a ConfigError, DataError, CheckpointError
        or BusyError (other config, code or data than an earlier attempt in its folder without `config.force`); later a
        DivergedError, or Interrupted after Ctrl-C or SIGTERM, with the finished epochs saved. What affects the process
        or the shared batches, such as Ctrl-C or a full disk, ends all runs that are training.
    """
    claims: list[Member | Result | Exception] = []
    control = Control()
    with contextlib.ExitStack() as locks, _signals(control, stopping):
        for task in tasks:
            try:
                claims.append(claim(task, sweep, extras, locks))
            except Exception as error:
                claims.append(error)
        waiting = deque(grouped([claimed for claimed in claims if isinstance(claimed, Member)]))
        while waiting:
            pack: Pack | None = None
            observers: dict[Path, list[Observer]] = {}  # with the pack before, they give its memory back,
            torch.cuda.empty_cache()  # and so does torch; without CUDA it does nothing
            members, *others = within_memory(waiting.popleft())
            waiting.extendleft(reversed(others))
            with failing(members), halving(members, waiting):
                pack = Pack(members)
                observers = {m.folder: _observers(m, pack, watch, control) for m in pack.members.values()}
                if note := build.advice(members[0].config, pack.device):
                    log.info(note)
                threads = plural(pack.threads, "thread")
                log.info("Training %d on %s with %s, %s.", len(members), pack.device, threads, pack.method)
                training = True
                while training:  # in as many parts as there are epochs after which lanes leave
                    control.step = pack.progress.epoch * pack.order.steps
                    watching = {lane: observers[member.folder] for lane, member in pack.members.items()}
                    fit(pack.stack, pack.descent, pack.splits, pack.order, pack.progress, watching, control)
                    training = pack.drop_pruned()
    return [claimed.outcome() if isinstance(claimed, Member) else claimed for claimed in claims]


@contextlib.contextmanager
def halving(members: list[Member], waiting: deque[list[Member]]) -> Iterator[None]:
    """Where a GPU's memory is too small for all of *members* at once, their halves are the next to train.

    Raises:
        ExperimentError: it is too small for one; or an epoch has been trained before: others need more than then.
    """
    try:
        yield
        return
    except torch.OutOfMemoryError as error:
        if len(members) == 1 or any(member.entry.epoch for member in members):
            way_out = "Lower batch_size or hydra.launcher.per_gpu, or end what else uses it."
            raise ExperimentError(f"The GPU's memory is full: {first_line(error)}", way_out) from error
    log.warning("The GPU's memory is too small for %d runs at once: half as many are tried.", len(members))
    waiting.extendleft(reversed(halves(members)))


def _observers(member: Member, pack: Pack, watch: Watch, control: Control) -> list[Observer]:
    """Who gets the events of *member*: who adds to its metrics, then the writer of its files, then all others."""
    splits, data = pack.splits, member.config.data
    labels = {name: each.labels[each.rows].cpu() for name, each in (("val", splits.val), ("test", splits.test))}
    about = Run(
        member.config, member.folder, member.entry, pack.device, pack.threads, pack.method, labels, classes(data)
    )
    callbacks = build.callbacks(member.config, about)
    writer = RunWriter(member, pack)
    if member.entry.figures:
        draw_augmented(pack.order, pack.splits.train, member.folder)
    named = [Named(name, callback) for name, callback in callbacks.items()]
    recorders = [Recorder(callbacks, control)] if callbacks else []
    return [*recorders, writer, *watch(about, control), *named]


@contextlib.contextmanager
def _signals(control: Control, stopping: Callable[[], None]) -> Iterator[None]:
    """Inside, the first Ctrl-C or SIGTERM asks the loop to stop; a second Ctrl-C stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if control.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked, control.signal = control.signal, number  # first of all: the next may come amid this
        if not asked:
            stopping()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
