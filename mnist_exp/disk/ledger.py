"""One small file per run that tells the truth: what it is, how far it came, how it ended.

Resume and reports trust `ledger.json`; MLflow is a view of it. A run that says `running` is alive only while
some process holds the lock beside it, which the kernel releases when that process dies, however it dies.
"""

import dataclasses
import os
import socket
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import filelock

from mnist_exp.disk import records
from mnist_exp.disk.files import write_json
from mnist_exp.errors import BusyError, ExperimentError

FORMAT = 1
DIED = "Its process died without a word."


@final
@dataclass(kw_only=True)
class Ledger:
    """What `ledger.json` holds."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    name: str = ""
    sweep: str = ""
    """Id of the sweep that the run belongs to, if any."""
    state: str = "running"
    reason: str = ""
    """Why it did not finish, in one sentence."""
    epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    """Time spent training, over all its attempts."""
    started_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    ended_ms: int | None = None
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    threads: int = 0
    """CPU threads that it began with and goes on with: their number decides the last bits. 0: not recorded."""
    parameters: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    """What can vary between runs, flat: MLflow's params."""
    overrides: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
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
    format: int = FORMAT

    @property
    def objective(self) -> float:
        """What a sweep maximises: the last validation accuracy, or training accuracy without validation.

        Never a test metric: the test set is reported, it chooses nothing.
        """
        return self.summary.get("final/val_accuracy", self.summary.get("final/train_accuracy", 0.0))

    def end(self, state: str, reason: str) -> None:
        """Notes how the run ended: not before it started, whatever was done to the clock meanwhile."""
        self.state, self.reason = state, reason
        self.ended_ms = max(self.started_ms, time.time_ns() // 1_000_000)

    def write(self, folder: Path) -> None:
        """Publishes the ledger, atomically."""
        write_json(folder / "ledger.json", dataclasses.asdict(self))


def read(folder: Path) -> Ledger:
    """The ledger of the run in *folder*.

    Raises:
        ExperimentError: there is none, or it is damaged or of a newer format.
    """
    return records.read(
        Ledger,
        folder / "ledger.json",
        FORMAT,
        ExperimentError,
        f"{folder} is not a run: it has no ledger.json.",
        "Delete that file: resumed, the run goes on from its last epoch.",
    )


def found(folder: Path) -> Ledger | None:
    """The ledger of the run in *folder*, if there is one that can be read."""
    try:
        return read(folder)
    except ExperimentError:
        return None


def status(folder: Path) -> tuple[Ledger | None, str, str]:
    """The ledger of the run in *folder*, how the run stands, and why.

    State and reason are the ledger's, but a run that nobody holds any more is `killed`, one without a ledger `planned`,
    and one whose ledger cannot be read `damaged`.
    """
    if not (folder / "ledger.json").exists():
        return None, "planned", ""
    try:
        entry = read(folder)
    except ExperimentError as error:
        return None, "damaged", f"{error.message.rstrip('.')}. {error.help}".strip()
    if entry.state == "running" and not alive(folder):
        return entry, "killed", DIED
    return entry, entry.state, entry.reason


def hold(folder: Path) -> filelock.FileLock:
    """Takes the run for this process; released by `release()` or by death.

    Raises:
        BusyError: another process has it.
    """
    return records.hold(folder, read, f"{folder} is being trained by")


def alive(folder: Path) -> bool:
    """Whether some process holds the run right now."""
    try:
        hold(folder).release()
    except BusyError:
        return True
    return False


def reap(folder: Path, reason: str = DIED) -> None:
    """Marks the run in *folder* as killed if its ledger says `running` and nobody holds it."""
    if not (folder / "ledger.json").exists():
        return
    try:
        lock = hold(folder)
    except BusyError:
        return
    try:
        entry = read(folder)
        if entry.state == "running":
            entry.end("killed", reason)
            entry.write(folder)
    except ExperimentError:  # damaged: there is nothing to mark, and other runs wait
        return
    finally:
        lock.release()
