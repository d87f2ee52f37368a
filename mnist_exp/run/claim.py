"""Claiming a folder: the task in it is refused, has finished already, or becomes a member of a pack."""

import contextlib
import dataclasses
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import nn

from mnist_exp import config as configs
from mnist_exp.config import Config
from mnist_exp.config.overrides import is_control, key_of
from mnist_exp.data import Splits
from mnist_exp.disk import checkpoint, lanes, ledger, order, provenance
from mnist_exp.disk.checkpoint import Checkpoint
from mnist_exp.disk.files import atomic_write, tidy
from mnist_exp.disk.layout import RunFolder, State
from mnist_exp.disk.ledger import Ledger
from mnist_exp.engine.stack import Tensors
from mnist_exp.errors import BusyError, CheckpointError, ConfigError, DivergedError, Interrupted, first_line
from mnist_exp.run import build, warm
from mnist_exp.run.resume import changed

log = logging.getLogger(__name__)

ANOTHER = "The saved weights are another network's: train this one in a folder of its own, without resume=."


@final
@dataclass(frozen=True)
class Task:
    """One run to train."""

    config: Config
    folder: Path
    """The run's own folder; created if necessary."""
    overrides: Sequence[str] = ()
    """What was typed, for the ledger."""


@final
@dataclass(frozen=True)
class Result:
    """How a run ended."""

    folder: Path
    state: State
    reason: str
    summary: dict[str, float]
    objective: float
    """What a sweep maximises; see `Ledger.objective`."""


@final
@dataclass
class Member:
    """A run that will train; its folder belongs to this process."""

    config: Config
    folder: Path
    extras: bool
    entry: Ledger
    forced: str
    """How it differs from an earlier attempt in the folder, where `force` permits that."""
    network: nn.Module
    saved: Checkpoint | None
    """Where training continues; None: it starts from the beginning."""
    record: lanes.PackRecord | None
    """Its lane in a pack; None: it trains alone."""
    begun: bool = False
    """Whether the files in the folder belong to this attempt; before that, they describe an earlier one."""
    error: Exception | None = None
    """What ended the training, unless the loop itself ended it."""

    @property
    def lane(self) -> int:
        """Its position among the lanes that its pack has now."""
        return self.record.position(self.epoch) if self.record else 0

    @property
    def epoch(self) -> int:
        """Epochs that earlier attempts have finished."""
        return self.saved.epoch if self.saved else 0

    def note_data(self, splits: Splits) -> None:
        """Records in the ledger which images the run trains on."""
        self.entry.dataset = {"name": splits.name, "digest": splits.digest}
        if self.config.data.source:
            self.entry.dataset["source"] = self.config.data.source
        self.entry.fingerprint["data"] = splits.digest

    def go_on_without(self, left: Sequence[int], state: Checkpoint) -> None:
        """It trains on from *state* without the lanes of its pack that have *left*; alone there are none to leave."""
        if self.record:
            self.record = lanes.leave(self.record, left, state.epoch, self.folder)
        self.saved = state

    def fail(self, error: BaseException) -> bool:
        """Makes *error* the outcome and records it in the ledger; returns False if the run had ended before."""
        if self.error or self.entry.state != State.RUNNING:
            return False
        if isinstance(error, Exception):
            self.error = error
        _record_failure(self.entry, self.config, self.folder, error, self.begun)
        return True

    def outcome(self) -> Result | Exception:
        """How the run ended."""
        if self.error:
            return self.error
        if self.entry.state == State.FAILED:
            return DivergedError(self.entry.reason)
        return _result(self.entry, self.folder)


def claim(task: Task, sweep: str, extras: bool, locks: contextlib.ExitStack) -> Member | Result:
    """Takes the task's folder and reads what an earlier attempt has left there; a finished run is not run again.

    Args:
        locks: Releases the folder.
    """
    folder = task.folder
    folder.mkdir(parents=True, exist_ok=True)
    locks.enter_context(ledger.hold(folder))
    tidy(folder, *RunFolder.written_by_trainer)
    tidy(RunFolder(folder).checkpoints, "*")
    entry, forced = _open_ledger(task, sweep)
    if entry.state.done:
        return _result(entry, folder)
    entry.sweep = sweep or entry.sweep
    if not entry.sweep and not RunFolder(folder).ledger.exists():
        entry.order = order.following(folder)
    entry.figures = extras and task.config.tracking.figures
    entry.threads = entry.threads or task.config.threads or torch.get_num_threads()
    config = dataclasses.replace(task.config, threads=entry.threads)
    try:
        network = build.model(config)
        entry.parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
        record = lanes.read(folder)
        if record and not record.fits(config):  # with force
            record = None
        saved = _load_checkpoint(config, folder, entry, network)
        if config.init and not saved:
            warm.load(config.init, network)
        reached = saved.epoch if saved else 0
        entry.threads_after = {epoch: some for epoch, some in entry.threads_after.items() if int(epoch) <= reached}
    except BaseException as error:
        _record_failure(entry, config, folder, error, begun=False)
        raise
    return Member(config, folder, extras, entry, forced, network, saved, record)


@contextlib.contextmanager
def failing(members: Sequence[Member]) -> Iterator[None]:
    """Records an exception as the outcome of every member that has not ended.

    Raises:
        BaseException: what is no error of the runs: all have ended before, or the process is to stop.
    """
    try:
        yield
    except BaseException as error:
        failed = [member for member in members if member.fail(error)]
        if not failed or not isinstance(error, Exception):
            raise


def mark_killed(task: Task, sweep: str, reason: str) -> None:
    """Marks *task*, whose process has died, as killed for that *reason*; creates its ledger if necessary."""
    folder = task.folder
    folder.mkdir(parents=True, exist_ok=True)
    ledger.reap(folder, reason)
    if RunFolder(folder).ledger.exists():
        return
    with contextlib.suppress(BusyError), ledger.hold(folder):  # unless it is alive after all
        entry = _new_ledger(task.config, task.overrides)
        entry.sweep, entry.figures = sweep, False
        write_config(task.config, folder)
        close(entry, folder, State.KILLED, reason)


def write_config(config: Config, folder: Path) -> None:
    """Writes the run's config into its folder."""
    atomic_write(RunFolder(folder).config, configs.to_yaml(config).encode())


def close(entry: Ledger, folder: Path, state: State, reason: str) -> None:
    """Records how the run ended.

    Raises:
        OSError: it cannot be written; then *entry* says `running` still, as the file does.
    """
    closed = dataclasses.replace(entry)
    closed.end(state, reason)
    closed.write(folder)
    vars(entry).update(vars(closed))


def _result(entry: Ledger, folder: Path) -> Result:
    return Result(folder, entry.state, entry.reason, entry.summary, entry.objective)


def _load_checkpoint(config: Config, folder: Path, entry: Ledger, network: nn.Module) -> Checkpoint | None:
    """The state to continue from, if there is one."""
    saved = checkpoint.load_last(RunFolder(folder).checkpoints)
    if saved is None:
        return None
    if saved.config != entry.fingerprint["config"] and not config.force:
        way_out = "force=true goes on from there all the same."
        raise CheckpointError(f"{folder} was trained with another config.", way_out)
    if saved.epoch > config.epochs:
        done = f"{folder} has finished {saved.epoch} epochs, which is more than epochs={config.epochs}."
        raise CheckpointError(done, "Choose more epochs, or another folder: hydra.run.dir=…")
    for weights in filter(None, (saved.weights, saved.averaged, saved.chosen)):
        same_shapes(weights, network.state_dict())
    return saved


def same_shapes(saved: Tensors, wanted: Tensors) -> None:
    """Raises CheckpointError, naming the first tensor, unless both hold the same names, shapes and types."""
    for name in sorted(saved.keys() | wanted.keys()):
        if name not in wanted:
            raise CheckpointError(f"The saved state has {name}, which this model has not.", ANOTHER)
        if name not in saved:
            raise CheckpointError(f"The saved state lacks {name}.", ANOTHER)
        was, now = saved[name], wanted[name]
        if was.shape != now.shape:
            shapes = f"shape {tuple(was.shape)}, but this model has {tuple(now.shape)}"
            raise CheckpointError(f"{name} was saved with {shapes}.", ANOTHER)
        if was.dtype != now.dtype:
            raise CheckpointError(f"{name} was saved as {was.dtype}, but this model has {now.dtype}.", ANOTHER)


def _record_failure(entry: Ledger, config: Config, folder: Path, error: BaseException, begun: bool) -> None:
    """Records *error* in the ledger if the run has begun, or if a sweep waits for its first ledger."""
    new = entry.sweep and not RunFolder(folder).ledger.exists()
    if not begun and not new:
        return
    state, reason = State.FAILED, f"{type(error).__name__}: {first_line(error)}"
    if isinstance(error, Interrupted):
        state, reason = State.KILLED, error.message
    elif isinstance(error, KeyboardInterrupt):
        state, reason = State.KILLED, "Stopped at once."
    try:
        if new:
            write_config(config, folder)
        close(entry, folder, state, reason)
    except OSError:  # the disk is what failed: the ledger still says `running`, and nobody holds the folder
        log.exception("%s: %s", state, reason)


def _open_ledger(task: Task, sweep: str) -> tuple[Ledger, str]:
    """The run's ledger, and how the task differs from an earlier attempt in its folder, for the user.

    The ledger of an earlier attempt is marked as running again. If it is forced to continue with something else, it
    gets a new ledger, and so a new run in MLflow: an old one would claim that everything was made with one config.
    """
    config, folder = task.config, task.folder
    if not RunFolder(folder).ledger.exists():
        return _new_ledger(config, task.overrides), ""
    entry = ledger.read(folder)
    if not (difference := changed(folder, entry, config)):
        if not entry.state.done or (entry.state == State.PRUNED and not sweep):  # by itself it may go on
            entry.state, entry.reason, entry.ended_ms = State.RUNNING, "", None
            entry.pid, entry.host = os.getpid(), socket.gethostname()
            entry.register = config.tracking.register or ""
        return entry, ""
    if not config.force:
        raise ConfigError(f"{folder} was made with something else: {difference}.", "force=true goes on all the same.")
    typed = {key_of(override): override for override in (*entry.overrides, *task.overrides)}
    forced = _new_ledger(config, list(typed.values()))
    forced.tags["forced"] = difference
    forced.sweep, forced.order, forced.started_ms = entry.sweep, entry.order, entry.started_ms
    return forced, difference


def _new_ledger(config: Config, overrides: Sequence[str]) -> Ledger:
    """The ledger of a run that begins, or continues as another."""
    git = provenance.git()
    tags = {**{f"git.{k}": git[k] for k in ("commit", "dirty") if git}, **config.tags}
    tags |= {f"version.{package}": version for package, version in provenance.versions().items()}
    typed = [override for override in overrides if not is_control(override)]
    return Ledger(
        name=configs.run_name(config, typed),
        epochs=config.epochs,
        params=configs.params(config),
        overrides=typed,
        experiment=config.tracking.experiment if config.tracking.enabled else "",
        nested=config.tracking.nested,
        register=config.tracking.register or "",
        tags=tags,
        fingerprint={"config": configs.fingerprint(config), "code": provenance.code_fingerprint()},
    )
