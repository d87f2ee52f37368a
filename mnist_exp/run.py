"""One experiment from config to result: wires data, model, loop and observers; no training maths."""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import safetensors.torch
import torch
from safetensors import SafetensorError

from mnist_exp import build, checkpoint, data, ledger, provenance
from mnist_exp import config as configs
from mnist_exp.config import Config, Precision
from mnist_exp.engine.average import Average
from mnist_exp.engine.fused import Optimizer
from mnist_exp.engine.loop import Standing, fit
from mnist_exp.engine.stack import Stack
from mnist_exp.errors import CheckpointError, ConfigError, DivergedError, Interrupted
from mnist_exp.events import Control, EpochEnd, LaneEnd, Observer
from mnist_exp.files import atomic_write
from mnist_exp.journal import Journal
from mnist_exp.ledger import Ledger
from mnist_exp.models import Classifier, export
from mnist_exp.resume import changed

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
    """How gradients are computed, in words."""


@final
@dataclass(frozen=True)
class Result:
    """How a run ended."""

    folder: Path
    state: str
    reason: str
    summary: dict[str, float]

    @property
    def objective(self) -> float:
        """What a sweep maximises; see `Ledger.objective`."""
        return Ledger(summary=self.summary).objective


def run(
    config: Config,
    folder: Path,
    overrides: Sequence[str] = (),
    watch: Callable[[Run, Control], Sequence[Observer]] = lambda run, control: (),
    sweep: str = "",
    extras: bool = True,
) -> Result:
    """Trains what *config* describes, or goes on from the last epoch that *folder* has.

    Args:
        folder: The run's own folder; created if need be.
        overrides: What was typed, for the ledger.
        watch: Called once everything is ready; what it returns hears the events after the run's own files
            are written.
        sweep: Id of the sweep that the run belongs to.
        extras: Whether to export the network and to have its curves drawn. In a sweep they cost more than a
            short training, so only the best run gets them, at the end.

    Raises:
        ConfigError, DataError, CheckpointError, BusyError: before training; see `errors.py`. An earlier attempt
            in *folder* with other config, code or data is refused unless `config.force`.
        DivergedError: the loss stopped being finite.
        Interrupted: Ctrl-C or SIGTERM; the finished epochs are saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = ledger.hold(folder)
    try:
        entry = _open_ledger(config, folder, overrides)
    except BaseException:
        lock.release()
        raise
    if entry.state == "finished":  # a finished run is never run again
        lock.release()
        return Result(folder, entry.state, entry.reason, entry.summary)
    entry.sweep, entry.figures = sweep, extras and config.tracking.figures
    control = Control()
    try:
        with signals(control):
            return _train(config, folder, entry, control, watch, extras)
    except Interrupted as stop:
        _close(entry, folder, "killed", stop.message)
        raise
    except BaseException as error:
        text = str(error).splitlines()[0] if str(error) else ""
        _close(entry, folder, "failed", f"{type(error).__name__}: {text}")
        raise
    finally:
        lock.release()


def _train(
    config: Config,
    folder: Path,
    entry: Ledger,
    control: Control,
    watch: Callable[[Run, Control], Sequence[Observer]],
    extras: bool,
) -> Result:
    """Builds, restores, trains, and writes down how it ended."""
    where = build.device(config)
    threads = set_up_torch(config, where)
    network = build.model(config)
    entry.parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    stack, method = build.stack(config, network, where)
    optimizer, schedule = build.optimizer(config, stack.groups()), build.schedule(config)
    average = Average(optimizer, config.training.ema)
    splits = data.load(config.data, where)
    if entry.fingerprint.get("data", splits.digest) != splits.digest and not config.force:
        raise ConfigError(f"{folder} was trained on other data.", "force=true goes on all the same.")
    entry.dataset = {"name": splits.name, "digest": splits.digest}
    if config.data.source:
        entry.dataset["source"] = config.data.source
    entry.fingerprint["data"] = splits.digest
    saved = checkpoint.load_last(folder / "checkpoints")
    if saved is not None:
        if saved.config != entry.fingerprint["config"] and not config.force:
            raise CheckpointError(f"{folder} was trained with another config.", "Use its own, or start a new run.")
        stack.restore(0, saved.averaged or saved.weights, {}, optimizer)
        average.restart()
        stack.restore(0, saved.weights, saved.moments, optimizer)
    journal = Journal(folder, saved.history if saved else [])
    standing = Standing(saved.epoch, [saved.best], [saved.best_epoch]) if saved else Standing(0, [-1.0], [0])
    keeper = Keeper(config, folder, stack, optimizer, average, standing, journal, entry, extras)
    entry.write(folder)
    about = Run(config, folder, entry, where, threads, method)
    order_seed = config.seed if config.data.order_seed is None else config.data.order_seed
    order = data.Order(splits.train.rows, config.batch_size, order_seed, build.augment(config))
    if order.augment and entry.figures:
        _draw_augmented(order, splits.train, folder)
    observers = [keeper, *watch(about, control)]
    log.info("Training on %s with %d threads, %s.", where, threads, method)
    control.step = standing.epoch * order.steps
    fit(
        stack,
        optimizer,
        schedule,
        splits,
        order,
        config.epochs,
        config.training.patience,
        average,
        standing,
        observers,
        control,
    )
    if entry.state == "failed":
        raise DivergedError(entry.reason)
    return Result(folder, entry.state, entry.reason, entry.summary)


def restore(config: Config, folder: Path) -> Classifier:
    """The trained network of *folder* on the CPU, ready to use or to export.

    Raises:
        CheckpointError: it has no weights yet, or they are damaged or another network's.
    """
    network = build.model(config)
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no trained weights: it did not finish.", "Name a run that did.")
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit the run's network: {str(error).splitlines()[0]}") from error
    return Classifier(network, config.data.mean, config.data.std).eval()


def export_model(config: Config, folder: Path) -> None:
    """Writes `model.pt2` beside the final weights of *folder*: what MLflow serves."""
    atomic_write(folder / "model.pt2", export(restore(config, folder)))


def set_up_torch(config: Config, where: torch.device) -> int:
    """Settings of the whole process; returns the number of CPU threads."""
    torch.set_flush_denormal(True)  # Adam's moments of unlit pixels become denormal and slow it down
    if config.threads:
        torch.set_num_threads(config.threads)
    if where.type == "cuda":
        precision = "highest" if config.precision is Precision.fp32 else "high"
        torch.set_float32_matmul_precision(precision)
    return torch.get_num_threads()


@contextlib.contextmanager
def signals(control: Control) -> Iterator[None]:
    """While it lasts, the first Ctrl-C or SIGTERM asks the loop to stop; a second Ctrl-C stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if control.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        control.signal = number

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@final
class Keeper(Observer):
    """Writes a run's own files: checkpoint first, then the journal, then the ledger.

    In this order a crash between two of them loses nothing: the checkpoint holds the journal's rows too.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        stack: Stack,
        optimizer: Optimizer,
        average: Average,
        standing: Standing,
        journal: Journal,
        entry: Ledger,
        extras: bool,
    ) -> None:
        self.config, self.folder, self.stack, self.optimizer = config, folder, stack, optimizer
        self.average, self.standing, self.journal = average, standing, journal
        self.entry, self.extras = entry, extras

    def on_epoch(self, event: EpochEnd) -> None:
        row = self.journal.row(event.epoch, event.step, event.time_ms, event.metrics)
        if self.config.checkpoint.enabled:
            state = checkpoint.Checkpoint(
                epoch=event.epoch,
                best=self.standing.best[event.lane],
                weights=_own(self.stack.weights(event.lane)),
                moments={n: _own(m) for n, m in self.stack.moments(event.lane, self.optimizer).items()},
                history=[*self.journal.history(event.epoch - 1), row],
                config=self.entry.fingerprint["config"],
                best_epoch=self.standing.best_epoch[event.lane],
                averaged=self._in_use(event.lane) if self.config.training.ema else {},
            )
            checkpoint.save(self.folder / "checkpoints", state, event.best)
        self.journal.append(row)
        self.entry.epoch = event.epoch
        self.entry.seconds = sum(r["metrics"]["time/epoch"] for r in self.journal.history(event.epoch))
        self.entry.write(self.folder)

    def on_end(self, event: LaneEnd) -> None:
        if event.state == "finished":
            atomic_write(self.folder / "weights.safetensors", safetensors.torch.save(self._in_use(event.lane)))
            if self.extras and self.config.checkpoint.model:
                export_model(self.config, self.folder)
        self.entry.summary = summarise(self.journal.rows, self.entry.parameters)
        _close(self.entry, self.folder, event.state, event.reason)

    def _in_use(self, lane: int) -> dict[str, torch.Tensor]:
        """The weights that are evaluated and exported: the averaged ones, where there is an average."""
        with self.average.in_use():
            return _own(self.stack.weights(lane))


def _draw_augmented(order: data.Order, train: data.Split, folder: Path) -> None:
    """Shows what *order* does to images, in `figures/augmented.png`."""
    from mnist_exp import figures  # matplotlib takes a third of a second to import

    assert order.augment
    rows = train.rows[:10]
    rng = torch.Generator(rows.device).manual_seed(data.mix(order.seed, 0, 2))
    pixels = train.images[rows].float().view(-1, 1, 28, 28)
    varied = torch.stack([order.augment(pixels, rng) for _ in range(5)])
    figure = figures.augmented_digits(pixels[:, 0].cpu().numpy(), varied[:, :, 0].cpu().numpy())
    (folder / "figures").mkdir(exist_ok=True)
    figure.savefig(folder / "figures" / "augmented.png", dpi=110)


def _own(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the CPU, each with memory of its own: a view would save the whole buffer."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def summarise(rows: list[dict[str, Any]], parameters: int) -> dict[str, float]:
    """Best and final metrics of a run, as metrics of their own: MLflow's tables show only last values."""
    if not rows:
        return {}
    last = rows[-1]["metrics"]
    summary = {f"final/{key.replace('/', '_')}": value for key, value in last.items() if not key.startswith("time/")}
    if "val/accuracy" in last:
        best = max(rows, key=lambda row: (row["metrics"]["val/accuracy"], -row["epoch"]))
        summary["best/epoch"] = best["epoch"]
        for key in ("val/accuracy", "test/accuracy"):
            summary[f"best/{key.replace('/', '_')}"] = best["metrics"][key]
    summary["time/total"] = sum(row["metrics"]["time/epoch"] for row in rows)
    summary["model/parameters"] = parameters
    return summary


def _open_ledger(config: Config, folder: Path, overrides: Sequence[str]) -> Ledger:
    """The run's ledger: a new one, or the one that an earlier attempt has left, marked as running again.

    Raises:
        ConfigError: that attempt was made with another config or other code, and `force` is not set.
    """
    if (folder / "ledger.json").exists():
        entry = ledger.read(folder)
        difference = changed(folder, entry, config)
        if difference and not config.force:
            raise ConfigError(
                f"{folder} was made with something else: {difference}.", "force=true goes on all the same."
            )
        if entry.state == "finished" and not difference:
            return entry
        entry.state, entry.reason, entry.ended_ms, entry.epochs = "running", "", None, config.epochs
        entry.pid, entry.host = os.getpid(), socket.gethostname()
    else:
        git = provenance.git()
        entry = Ledger(
            name=configs.run_name(config, list(overrides)),
            epochs=config.epochs,
            params=configs.params(config),
            overrides=list(overrides),
            experiment=config.tracking.experiment if config.tracking.enabled else "",
            nested=config.tracking.nested,
            register=config.tracking.register or "",
            tags={**{f"git.{k}": git[k] for k in ("commit", "dirty") if git}, **config.tags},
        )
        entry.tags |= {f"version.{package}": version for package, version in provenance.versions().items()}
        if git.get("diff"):
            atomic_write(folder / "code.diff", git["diff"].encode())
    atomic_write(folder / "config.yaml", configs.to_yaml(config).encode())
    entry.fingerprint |= {"config": configs.fingerprint(config), "code": provenance.code_fingerprint()}
    return entry


def _close(entry: Ledger, folder: Path, state: str, reason: str) -> None:
    """Writes down how the run ended, unless that is known already, or it never began."""
    if entry.state != "running" or not (folder / "ledger.json").exists():
        return
    entry.state, entry.reason, entry.ended_ms = state, reason, time.time_ns() // 1_000_000
    entry.write(folder)
