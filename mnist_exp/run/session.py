"""Experiments from config to result: wires data, models, loop and observers; no training maths.

One run is a pack of one: `run` is `run_many` with a single task.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import safetensors.torch
import torch
from safetensors import SafetensorError

from mnist_exp import config as configs
from mnist_exp import data
from mnist_exp.config import Config, Precision
from mnist_exp.config.overrides import is_control, key_of
from mnist_exp.disk import checkpoint, lanes, ledger, provenance
from mnist_exp.disk.checkpoint import Checkpoint
from mnist_exp.disk.files import atomic_write, tidy
from mnist_exp.disk.journal import Journal, Row
from mnist_exp.disk.layout import State
from mnist_exp.disk.ledger import Ledger
from mnist_exp.engine import graph
from mnist_exp.engine.average import Average
from mnist_exp.engine.events import Control, EpochEnd, LaneEnd, Observer
from mnist_exp.engine.loop import Progress, fit
from mnist_exp.engine.stack import same_shapes
from mnist_exp.errors import (
    BusyError,
    CheckpointError,
    ConfigError,
    DivergedError,
    ExperimentError,
    Interrupted,
    first_line,
)
from mnist_exp.models import Classifier, export
from mnist_exp.run import build
from mnist_exp.run.resume import changed

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
    """How gradients are computed, in words, and by whose optimiser they are used if not by `engine/fused.py`."""


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


@final
@dataclass(frozen=True)
class Task:
    """One run to do."""

    config: Config
    folder: Path
    """The run's own folder; created if need be."""
    overrides: Sequence[str] = ()
    """What was typed, for the ledger."""


FILES = ("config.yaml", "code.diff", "pack.json", "ledger.json", "metrics.jsonl", "weights.safetensors", "model.pt2")
"""What whoever holds the run's folder writes into it; the publisher has files of its own there."""

Watch = Callable[[Run, Control], Sequence[Observer]]


def run(
    config: Config,
    folder: Path,
    overrides: Sequence[str] = (),
    watch: Watch = lambda run, control: (),
    sweep: str = "",
    extras: bool = True,
) -> Result:
    """Trains what *config* describes, or goes on from the last epoch that *folder* has.

    Args: as `Task` and `run_many`.

    Raises:
        ConfigError, DataError, CheckpointError, BusyError: before training; see `errors.py`. An earlier attempt
            in *folder* with other config, code or data is refused unless `config.force`.
        DivergedError: the loss stopped being finite.
        Interrupted: Ctrl-C or SIGTERM; the finished epochs are saved.
    """
    (outcome,) = run_many([Task(config, folder, overrides)], watch, sweep, extras)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def run_many(
    tasks: Sequence[Task],
    watch: Watch = lambda run, control: (),
    sweep: str = "",
    extras: bool = True,
) -> list[Result | Exception]:
    """Trains runs that may share their batches (`sweep/pack.py` tells which) in one go; each remains its own.

    A lane that diverges or stops early ends alone. Runs that an earlier attempt has left go on as they began: alone,
    or in their place among the lanes of their pack (`lanes.py`).

    Args:
        watch: Called for each run once everything is ready; what it returns hears that run's events after the
            run's own files are written.
        sweep: Id of the sweep that the runs belong to.
        extras: Whether to export the network and to have its figures drawn. In a sweep they cost more than a
            short training, so only the best run gets them, at the end.

    Returns:
        For each task its result, or what `run` would raise. What hits the process or the batches that are
        shared, such as Ctrl-C or a full disk, ends all runs that are training.
    """
    attempts = [Attempt(task, sweep, extras) for task in tasks]
    control = Control()
    try:
        with signals(control):
            for attempt in attempts:
                with ending([attempt]):
                    attempt.begin()
            for company in together(attempts):
                with ending(company):
                    _train(company, control, watch)
    finally:
        for attempt in attempts:
            attempt.held.close()
    return [attempt.outcome for attempt in attempts if attempt.outcome is not None]


def lost(task: Task, sweep: str, reason: str) -> None:
    """Notes why the process that was to do *task* has died, also where that had not begun."""
    task.folder.mkdir(parents=True, exist_ok=True)
    ledger.reap(task.folder, reason)
    if (task.folder / "ledger.json").exists():
        return
    with contextlib.suppress(BusyError):  # it lives after all
        lock = ledger.hold(task.folder)
        try:
            entry = _new_ledger(task.config, task.overrides)
            entry.sweep, entry.figures = sweep, False
            _write_config(task.config, task.folder)
            _close(entry, task.folder, "killed", reason)
        finally:
            lock.release()


@contextlib.contextmanager
def ending(attempts: "Sequence[Attempt]") -> Iterator[None]:
    """What goes wrong while it lasts is what became of those *attempts* that have no outcome yet."""
    try:
        yield
    except BaseException as error:
        concerned = [attempt for attempt in attempts if attempt.fail(error)]
        if not concerned or not isinstance(error, Exception):
            raise


@final
class Attempt:
    """A run on its way: what it has of its own, whoever it trains with."""

    def __init__(self, task: Task, sweep: str, extras: bool) -> None:
        self.config, self.folder, self.overrides = task.config, task.folder, task.overrides
        self.sweep, self.extras = sweep, extras
        self.held = contextlib.ExitStack()
        """The lock on the folder."""
        self.entry: Ledger | None = None
        self.forced = ""
        """What differs from an earlier attempt, and is to be passed over."""
        self.begun = False
        """Whether the files in the folder are those of this attempt; before, they tell of an earlier one."""
        self.record: lanes.PackRecord | None = None
        """Among those that it trains together with, if any."""
        self.outcome: Result | Exception | None = None

    def begin(self) -> None:
        """Takes the folder and looks at what an earlier attempt has left there; a finished run is not run again.

        Raises:
            ExperimentError: see `run`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.held.callback(ledger.hold(self.folder).release)
        tidy(self.folder, *FILES)
        tidy(self.folder / "checkpoints", "*")
        self.entry, self.forced = _open_ledger(self.config, self.folder, self.overrides)
        if self.settle():
            return
        self.entry.sweep = self.sweep or self.entry.sweep
        self.entry.figures = self.extras and self.config.tracking.figures
        self.entry.threads = self.entry.threads or self.config.threads or torch.get_num_threads()
        self.config = dataclasses.replace(self.config, threads=self.entry.threads)
        self.network = build.model(self.config)
        self.entry.parameters = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        self.record = lanes.read(self.folder)
        if self.record and not self.record.fits(self.config):  # with force
            self.record = None
        self.saved = checkpoint.load_last(self.folder / "checkpoints")
        if self.saved is None:
            return
        if self.saved.config != self.entry.fingerprint["config"] and not self.config.force:
            raise CheckpointError(
                f"{self.folder} was trained with another config.", "force=true goes on from there all the same."
            )
        same_shapes(self.saved.weights, self.network.state_dict())

    def meet(self, splits: data.Splits) -> None:
        """Notes the data."""
        assert self.entry
        self.entry.dataset = {"name": splits.name, "digest": splits.digest}
        if self.config.data.source:
            self.entry.dataset["source"] = self.config.data.source
        self.entry.fingerprint["data"] = splits.digest

    def start(self) -> Ledger:
        """Begins the run's own files, now that nothing can be refused any more."""
        assert self.entry
        _write_config(self.config, self.folder)
        if self.forced or not (self.folder / "ledger.json").exists():
            _write_difference(self.folder)
        self.journal = Journal(self.folder, self.saved.history if self.saved else [], repeats=not self.forced)
        self.reached(self.saved.epoch if self.saved else 0)  # a crash may have come before the ledger was written
        self.begun = True
        return self.entry

    def reached(self, epoch: int) -> None:
        """Writes down how far the run has come."""
        assert self.entry
        self.entry.epoch = epoch
        self.entry.seconds = sum(row["metrics"]["time/epoch"] for row in self.journal.history(epoch))
        self.entry.write(self.folder)

    def settle(self) -> bool:
        """Whether the run has ended, by its ledger; then that is its outcome."""
        assert self.entry
        if self.entry.state == "failed":
            self.outcome = DivergedError(self.entry.reason)
        elif self.entry.state != "running":
            self.outcome = Result(self.folder, self.entry.state, self.entry.reason, self.entry.summary)
        return self.outcome is not None

    def fail(self, error: BaseException) -> bool:
        """*error* becomes its outcome, and its ledger's if it had begun; returns False if it had ended before."""
        if self.outcome is not None or (self.entry and self.settle()):
            return False
        if isinstance(error, Exception):
            self.outcome = error
        new = self.entry and self.entry.sweep and not (self.folder / "ledger.json").exists()  # whoever sweeps is told
        if self.entry and (self.begun or new):
            state, reason = "failed", f"{type(error).__name__}: {first_line(error)}"
            if isinstance(error, Interrupted):
                state, reason = "killed", error.message
            elif isinstance(error, KeyboardInterrupt):
                state, reason = "killed", "Stopped at once."
            try:
                if new:
                    _write_config(self.config, self.folder)
                _close(self.entry, self.folder, state, reason)
            except OSError:  # the disk is what failed: whoever looks next finds `running`, and nobody who runs it
                log.exception("%s: %s", state, reason)
        return True


def together(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """Those without an outcome, by whom they train with; new ones together, equal networks being neighbours."""

    def company(attempt: Attempt) -> tuple[int, int, str]:
        assert attempt.entry
        alone = str(attempt.folder) if attempt.saved else ""
        epoch, pack = attempt.saved.epoch if attempt.saved else 0, attempt.record.pack if attempt.record else alone
        return attempt.entry.threads, epoch, pack

    going = [a for a in attempts if a.outcome is None]
    going.sort(key=lambda a: (company(a), repr((a.config.model, a.config.lr, a.config.optimizer))))
    return [list(same) for _, same in itertools.groupby(going, key=company)]


def _train(attempts: list[Attempt], control: Control, watch: Watch) -> None:
    """Loads what is shared, and trains until each of *attempts* has ended."""
    config = attempts[0].config
    where = build.device(config)
    threads = attempts[0].entry.threads  # type: ignore[union-attr]  # they have begun
    set_up_torch(config, where, threads)
    schedule, splits = build.schedule(config), data.load(config.data, where)
    order = data.Order(splits.train.rows, config.batch_size, configs.order_seed(config), build.augment(config))
    for attempt in attempts:
        attempt.meet(splits)
    if len(attempts) > 1 and not attempts[0].record:
        places = lanes.begin([a.config for a in attempts], [a.folder for a in attempts])
        for attempt, place in zip(attempts, places, strict=True):
            attempt.record = place
    pack = Pack(attempts, where)
    listeners: dict[int, list[Observer]] = {}
    for lane, a in pack.members.items():
        entry = a.start()
        if order.augment and entry.figures:
            _draw_augmented(order, splits.train, a.folder)
        about = Run(a.config, a.folder, entry, where, threads, pack.method)
        listeners[lane] = [Keeper(a, pack), *watch(about, control)]
    log.info("Training %d on %s with %d threads, %s.", len(attempts), where, threads, pack.method)
    control.step = pack.progress.epoch * order.steps
    fit(
        pack.stack,
        pack.optimizer,
        schedule,
        splits,
        order,
        config.epochs,
        config.training.patience,
        pack.average,
        pack.progress,
        [PerLane(listeners)],
        control,
    )
    for a in attempts:
        a.settle()


@final
class Pack:
    """Runs that have come equally far, as lanes of one stack: each as it is saved, or from the beginning.

    Lanes of the pack that they began in but that are not among them are filled up; see `lanes.py`.
    """

    def __init__(self, attempts: list[Attempt], where: torch.device) -> None:
        first = attempts[0]
        self.members = {a.record.lane if a.record else 0: a for a in attempts}
        settings, networks = [], []
        for lane in range(len(first.record.lanes) if first.record else 1):
            member = self.members.get(lane)
            settings.append(member.config if member else first.record.placeholder(lane, first.config))  # type: ignore[union-attr]
            networks.append(member.network if member else build.model(settings[lane]))
        self.stack, self.method = build.stack(settings, networks, where)
        self.optimizer = build.optimizer(settings[0], build.groups(settings, self.stack))
        self.method += build.whose(self.optimizer) + graph.note(self.stack, self.optimizer)
        self.average = Average(self.optimizer, settings[0].training.ema)
        saved = {lane: a.saved for lane, a in self.members.items() if a.saved}
        for lane, state in saved.items():
            self.stack.restore(lane, state.averaged or state.weights, {}, self.optimizer)
        self.average.restart()
        for lane, state in saved.items():
            self.stack.restore(lane, state.weights, state.moments, self.optimizer)
        self.progress = Progress(len(settings), alive=set(self.members))
        for lane, state in saved.items():
            self.progress.epoch = state.epoch
            known = state.chosen or not settings[lane].training.patience  # not where patience was added, with force
            best = (state.best, state.best_epoch) if known else (-1.0, state.epoch)
            self.progress.best[lane], self.progress.best_epoch[lane] = best

    def state(self, lane: int, attempt: Attempt, history: list[Row], chosen: dict[str, torch.Tensor]) -> Checkpoint:
        """What *lane* needs to go on."""
        assert attempt.entry
        return Checkpoint(
            epoch=self.progress.epoch,
            best=self.progress.best[lane],
            weights=_own(self.stack.weights(lane)),
            moments={n: _own(m) for n, m in self.stack.moments(lane, self.optimizer).items()},
            history=history,
            config=attempt.entry.fingerprint["config"],
            best_epoch=self.progress.best_epoch[lane],
            averaged=self.in_use(lane) if attempt.config.training.ema else {},
            chosen=chosen,
        )

    def in_use(self, lane: int) -> dict[str, torch.Tensor]:
        """The weights that are evaluated and exported: the averaged ones, where there is an average."""
        with self.average.in_use():
            return _own(self.stack.weights(lane))


@final
class PerLane(Observer):
    """Hands each event to those who listen to its lane."""

    def __init__(self, listeners: Mapping[int, Sequence[Observer]]) -> None:
        self.listeners = listeners

    def on_epoch(self, event: EpochEnd) -> None:
        for listener in self.listeners[event.lane]:
            listener.on_epoch(event)

    def on_end(self, event: LaneEnd) -> None:
        for listener in self.listeners[event.lane]:
            listener.on_end(event)


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
        raise CheckpointError(f"{path} does not fit the run's network: {first_line(error)}") from error
    return Classifier(network, config.data.mean, config.data.std).eval()


def export_model(config: Config, folder: Path) -> None:
    """Writes `model.pt2` beside the final weights of *folder*: what MLflow serves."""
    atomic_write(folder / "model.pt2", export(restore(config, folder)))


def set_up_torch(config: Config, where: torch.device, threads: int) -> None:
    """Settings of the whole process."""
    torch.set_flush_denormal(True)  # Adam's moments of unlit pixels become denormal and slow it down
    torch.set_num_threads(threads)
    if where.type == "cuda":
        exact = config.precision is Precision.fp32
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact  # convolutions: torch's own default is tf32


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

    def __init__(self, attempt: Attempt, pack: Pack) -> None:
        assert attempt.entry
        self.attempt, self.pack = attempt, pack
        self.config, self.folder, self.entry, self.journal = (
            attempt.config,
            attempt.folder,
            attempt.entry,
            attempt.journal,
        )
        self.patient = self.config.training.patience is not None
        self.chosen = attempt.saved.chosen if attempt.saved and self.patient else {}
        """The weights of the best epoch, where patience waits for a better one."""

    def on_epoch(self, event: EpochEnd) -> None:
        with writing(self.folder):
            self._keep(event)

    def _keep(self, event: EpochEnd) -> None:
        row = self.journal.row(event.epoch, event.step, event.time_ms, event.metrics)
        if event.best and self.patient:
            self.chosen = self.pack.in_use(event.lane)
        if self.config.checkpoint.enabled:
            history = [*self.journal.history(event.epoch - 1), row]
            state = self.pack.state(event.lane, self.attempt, history, self.chosen)
            checkpoint.save(self.folder / "checkpoints", state)
        self.journal.append(row)
        self.attempt.reached(event.epoch)

    def on_end(self, event: LaneEnd) -> None:
        with writing(self.folder):
            finished = event.state == "finished"
            if finished:
                weights = self.chosen or self.pack.in_use(event.lane)
                atomic_write(self.folder / "weights.safetensors", safetensors.torch.save(weights))
                if self.attempt.extras and self.config.checkpoint.model:
                    export_model(self.config, self.folder)
            self.entry.summary = summarise(self.journal.rows, self.entry.parameters, self.patient and finished)
            _close(self.entry, self.folder, event.state, event.reason)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """While it lasts, a disk that is full or broken is the run's failure, and said in words.

    Raises:
        ExperimentError: *folder* cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise ExperimentError(
            f"{folder} cannot be written: {error.strerror}.",
            "Its finished epochs are kept: make room, then resume it.",
        ) from error


def show_augmented(config: Config, folder: Path) -> None:
    """Draws for a run that has ended what `_train` draws for one that is to have figures from the beginning.

    Raises:
        ExperimentError: the images are missing or damaged.
    """
    train = data.load(config.data, torch.device("cpu")).train
    order = data.Order(train.rows, config.batch_size, configs.order_seed(config), build.augment(config))
    _draw_augmented(order, train, folder)


def _draw_augmented(order: data.Order, train: data.Split, folder: Path) -> None:
    """Shows what *order* does to images, in `figures/augmented.png`."""
    from mnist_exp.charts import run as figures  # matplotlib takes a third of a second to import

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


def summarise(rows: list[dict[str, Any]], parameters: int, chosen: bool = False) -> dict[str, float]:
    """Best and final metrics of a run, as metrics of their own: MLflow's tables show only last values.

    Args:
        chosen: Whether the best epoch's weights are exported, not the last one's: then the final metrics are its.
    """
    if not rows:
        return {}
    validated = "val/accuracy" in rows[-1]["metrics"]
    best = max(rows, key=lambda row: (row["metrics"]["val/accuracy"], -row["epoch"])) if validated else rows[-1]
    final = (best if chosen else rows[-1])["metrics"]
    summary = {f"final/{key.replace('/', '_')}": value for key, value in final.items() if not key.startswith("time/")}
    if validated:
        summary["best/epoch"] = best["epoch"]
        for key in ("val/accuracy", "test/accuracy"):
            summary[f"best/{key.replace('/', '_')}"] = best["metrics"][key]
    summary["time/total"] = sum(row["metrics"]["time/epoch"] for row in rows)
    summary["time/total_cpu"] = sum(row["metrics"].get("time/epoch_cpu", 0.0) for row in rows)  # older rows lack it
    summary["model/parameters"] = parameters
    return summary


def _open_ledger(config: Config, folder: Path, overrides: Sequence[str]) -> tuple[Ledger, str]:
    """The run's ledger, and what differs from an earlier attempt in *folder*, in words.

    What an earlier attempt has left is marked as running again. If it is forced to go on with something else, it gets
    a new ledger, and so a new run in MLflow: neither says of what was trained that it was made with one config.

    Raises:
        ConfigError: that attempt was made with other config, code or data, and `force` is not set.
        DataError: the images are missing or damaged.
    """
    if not (folder / "ledger.json").exists():
        return _new_ledger(config, overrides), ""
    entry = ledger.read(folder)
    if not (difference := changed(folder, entry, config)):
        if entry.state != "finished":
            entry.state, entry.reason, entry.ended_ms = State.RUNNING, "", None
            entry.pid, entry.host = os.getpid(), socket.gethostname()
            entry.register = config.tracking.register or ""
        return entry, ""
    if not config.force:
        raise ConfigError(f"{folder} was made with something else: {difference}.", "force=true goes on all the same.")
    typed = {key_of(override): override for override in (*entry.overrides, *overrides)}
    forced = _new_ledger(config, list(typed.values()))
    forced.tags["forced"] = difference
    forced.sweep, forced.started_ms = entry.sweep, entry.started_ms
    return forced, difference


def _new_ledger(config: Config, overrides: Sequence[str]) -> Ledger:
    """The ledger of a run that begins, or goes on as another."""
    git = provenance.git()
    typed = [override for override in overrides if not is_control(override)]
    entry = Ledger(
        name=configs.run_name(config, typed),
        epochs=config.epochs,
        params=configs.params(config),
        overrides=typed,
        experiment=config.tracking.experiment if config.tracking.enabled else "",
        nested=config.tracking.nested,
        register=config.tracking.register or "",
        tags={**{f"git.{k}": git[k] for k in ("commit", "dirty") if git}, **config.tags},
        fingerprint={"config": configs.fingerprint(config), "code": provenance.code_fingerprint()},
    )
    entry.tags |= {f"version.{package}": version for package, version in provenance.versions().items()}
    return entry


def _write_difference(folder: Path) -> None:
    """Keeps in `code.diff` what the code's commit does not have."""
    (folder / "code.diff").unlink(missing_ok=True)
    if difference := provenance.git().get("diff"):
        atomic_write(folder / "code.diff", difference.encode())


def _write_config(config: Config, folder: Path) -> None:
    """Keeps *config* in `config.yaml`."""
    atomic_write(folder / "config.yaml", configs.to_yaml(config).encode())


def _close(entry: Ledger, folder: Path, state: str, reason: str) -> None:
    """Writes down how the run ended, unless that is known already.

    Raises:
        OSError: it cannot be written; then *entry* says `running` still, as the file does.
    """
    if entry.state != "running":
        return
    closed = dataclasses.replace(entry)
    closed.end(State(state), reason)
    closed.write(folder)
    vars(entry).update(vars(closed))
