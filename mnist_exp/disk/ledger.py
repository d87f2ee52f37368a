"""`ledger.json`, the authoritative record of a run: its identity, its progress, its end.

Resume and reports trust it; MLflow is a view of it. A run in state `running` is alive only while a process holds
the lock beside it, which the kernel releases when that process dies, however it dies.
"""

import dataclasses
import os
import socket
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import filelock

from mnist_exp.config.secrets import hide
from mnist_exp.disk import records
from mnist_exp.disk.files import write_json
from mnist_exp.disk.layout import RunFolder, State
from mnist_exp.errors import BusyError, ExperimentError
from mnist_exp.system import MOST_THREADS

DIED = "Its process died without a word."


@final
@dataclass(kw_only=True)
class Ledger:
    """What `ledger.json` holds."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Random; the same when it is resumed."""
    name: str = ""
    """What it is called in tables and in MLflow."""
    sweep: str = ""
    """Id of the sweep that the run belongs to, if any."""
    state: State = State.RUNNING
    reason: str = ""
    """Why it did not finish, in one sentence."""
    epoch: int = 0
    """Epochs that it has finished."""
    epochs: int = 0
    """Epochs that it is to train."""
    seconds: float = 0.0
    """Time spent training, over all its attempts."""
    order: int = 0
    """See `order.following`; 0: it was begun by a sweep, or before there were such numbers."""
    started_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    """Of its first attempt; milliseconds since 1970, as all times here."""
    ended_ms: int | None = None
    """Of its last attempt; None: it has not ended."""
    pid: int = field(default_factory=os.getpid)
    """The process that trains it, or did last."""
    host: str = field(default_factory=socket.gethostname)
    """The machine of that process."""
    threads: int = 0
    """CPU threads that it began with: their number decides the last bits. 0: not recorded."""
    threads_after: dict[str, int] = field(default_factory=dict)
    """Other numbers of threads after epochs, because of other programs: `{"3": 1}` after three epochs."""
    parameters: int = 0
    """How many values the network learns."""
    params: dict[str, str | float | None] = field(default_factory=dict)
    """What can vary between runs, flat: MLflow's params."""
    overrides: list[str] = field(default_factory=list)
    """What was typed for it: Hydra's overrides."""
    tags: dict[str, str] = field(default_factory=dict)
    """What else is known of it, such as commit, processor and versions."""
    dataset: dict[str, str] = field(default_factory=dict)
    """Name, digest and, if it has a page, source."""
    fingerprint: dict[str, str] = field(default_factory=dict)
    """Of config, code and data."""
    summary: dict[str, float] = field(default_factory=dict)
    """Best and final metrics."""
    experiment: str = ""
    """The MLflow experiment that it belongs to; empty: it is not tracked."""
    figures: bool = True
    """Whether its learning curves are drawn for MLflow."""
    nested: bool = False
    """Whether MLflow shows it under a parent run, which stands for its sweep."""
    register: str = ""
    """Registered model in MLflow that it, or the best run of its sweep, becomes a version of."""
    format: int = 1

    def __post_init__(self) -> None:
        self.state = State(self.state)  # a file has it as text
        check_shares(self.summary)
        for name in ("epoch", "epochs", "seconds", "parameters"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}")
        for epoch, threads in {"0": self.threads, **self.threads_after}.items():
            if not (epoch.isdecimal() and 0 <= threads <= MOST_THREADS):
                raise ValueError(f"{threads} threads after epoch {epoch}")

    @property
    def objective(self) -> float:
        """What a sweep maximises: the last validation accuracy, or training accuracy without validation.

        Never a test metric: the test set is reported, it chooses nothing.
        """
        return self.summary.get("final/val_accuracy", self.summary.get("final/train_accuracy", 0.0))

    @property
    def until_ms(self) -> int:
        """When it ended, or began: one from elsewhere may say that it has ended, and not when."""
        return self.ended_ms or self.started_ms

    @property
    def threads_now(self) -> int:
        """CPU threads that it goes on with after the epochs that it has finished."""
        return self.threads_after[max(self.threads_after, key=int)] if self.threads_after else self.threads

    def end(self, state: State, reason: str) -> None:
        """Records the end of the run; never before its start, even if the clock was set back.

        A *reason* may hold a secret: another program's error with an address.
        """
        self.state, self.reason = state, hide(reason)
        self.ended_ms = max(self.started_ms, time.time_ns() // 1_000_000)

    def write(self, folder: Path) -> None:
        """Publishes the ledger, atomically."""
        write_json(RunFolder(folder).ledger, dataclasses.asdict(self))


def check_shares(metrics: Mapping[str, float]) -> None:
    """Raises ValueError if a final accuracy among *metrics* is no share: charts and statistics have their limits."""
    for metric in ("final/val_accuracy", "final/test_accuracy", "final/train_accuracy"):
        if not 0 <= (share := metrics.get(metric, 0)) <= 1:
            raise ValueError(f"{metric} is {share}, which is no share")


def read(folder: Path) -> Ledger:
    """The ledger of the run in *folder*. Raises ExperimentError if it is missing, damaged or of a newer format."""
    way_out = "Delete that file: resumed, the run goes on from its last epoch."
    return records.read(Ledger, RunFolder(folder).ledger, "run", ExperimentError, way_out)


def find(folder: Path) -> Ledger | None:
    """The ledger of the run in *folder*; None where it is missing or damaged."""
    try:
        return read(folder)
    except ExperimentError:
        return None


def status(folder: Path) -> tuple[Ledger | None, State, str]:
    """The ledger of the run in *folder*, and its state with the reason: the ledger's, or what is observed instead.

    A run in state `running` without a process is `killed`; a missing ledger means `planned`, a damaged one `damaged`.
    """
    if not RunFolder(folder).ledger.exists():
        return None, State.PLANNED, ""
    try:
        entry = read(folder)
    except ExperimentError as error:
        return None, State.DAMAGED, f"{error.message.rstrip('.')}. {error.help}".strip()
    if entry.state == State.RUNNING and not records.held(folder):
        return entry, State.KILLED, DIED
    return entry, entry.state, entry.reason


def hold(folder: Path) -> AbstractContextManager[filelock.FileLock]:
    """While it lasts, this process has the run; see `records.hold`. Raises BusyError if another one has it."""
    return records.hold(folder, read, f"{folder} is being trained by")


def take(folder: Path) -> None:
    """Takes the run's lock for the next `hold` in this process. Raises BusyError if another one has it."""
    records.take(folder, read, f"{folder} is being trained by")


def reap(folder: Path, reason: str = DIED) -> None:
    """Marks the run in *folder* as killed if its ledger says `running` and no process holds it."""
    entry = find(folder)
    if entry is None or entry.state != State.RUNNING or records.held(folder):
        return
    with suppress(BusyError), hold(folder):
        if (entry := find(folder)) and entry.state == State.RUNNING:
            entry.end(State.KILLED, reason)
            entry.write(folder)
