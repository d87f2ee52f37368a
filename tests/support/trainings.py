"""Trainings that several tests share, and their comparisons."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from samples import TINY

from mnist_exp.config import Config
from mnist_exp.data import Order, Splits
from mnist_exp.disk import journal
from mnist_exp.engine.average import Average
from mnist_exp.engine.events import Control, EpochEnd, LaneEnd, Observer
from mnist_exp.engine.fused import Fused
from mnist_exp.engine.loop import Descent, Progress, fit
from mnist_exp.engine.products import ONEDNN, TORCH
from mnist_exp.engine.schedules import Constant, Schedule
from mnist_exp.engine.stack import Stack
from mnist_exp.errors import Interrupted
from mnist_exp.models import MLP
from mnist_exp.run.session import Result, Run, Task, Watch, run_many


def run(
    config: Config,
    folder: Path,
    overrides: Sequence[str] = (),
    watch: Watch = lambda run, control: (),
    sweep: str = "",
    extras: bool = True,
) -> Result:
    """Trains *config* in *folder*; raises what ended it."""
    (outcome,) = run_many([Task(config, folder, overrides)], watch, sweep, extras)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


class StopAfter(Observer):
    """Requests a stop at the end of an epoch."""

    def __init__(self, epoch: int, control: Control) -> None:
        self.epoch, self.control = epoch, control

    def on_epoch(self, event: EpochEnd) -> None:
        if event.epoch == self.epoch:
            self.control.signal = signal.SIGTERM

    def on_end(self, event: LaneEnd) -> None:
        raise AssertionError("it should have stopped")


def interrupted(config: Config, folder: Path, after: int) -> None:
    def watch(about: Run, control: Control) -> Sequence[Observer]:
        return [StopAfter(after, control)]

    with pytest.raises(Interrupted):
        run(config, folder, watch=watch)


def outcome(folder: Path) -> tuple[bytes, list[dict[str, float]]]:
    """The bytes of the weights, and every metric but time."""
    rows = journal.read(folder)
    metrics = [{key: value for key, value in row["metrics"].items() if not key.startswith("time/")} for row in rows]
    return (folder / "weights.safetensors").read_bytes(), metrics


def tasks(configs: Sequence[Config], folder: str) -> list[Task]:
    return [Task(config, Path(folder) / str(i)) for i, config in enumerate(configs)]


def losses(folder: Path) -> list[list[float]]:
    """Training, validation and test loss of each epoch."""
    return [[row["metrics"][f"{s}/loss"] for s in ("train", "val", "test")] for row in journal.read(folder)]


def assert_alike(together: Path, alone: Path) -> None:
    """In float32 the order of sums differs; measured: below 1e-6 of the loss after four epochs of seven steps."""
    ours, theirs = losses(together), losses(alone)
    assert len(ours) == len(theirs)
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(expected, rel=1e-4)


class Listener(Observer):
    """Keeps all events."""

    def __init__(self) -> None:
        self.epochs: list[EpochEnd] = []
        self.ends: list[LaneEnd] = []

    def on_epoch(self, event: EpochEnd) -> None:
        self.epochs.append(event)

    def on_end(self, event: LaneEnd) -> None:
        self.ends.append(event)


def trained(
    stack: Stack,
    splits: Splits,
    epochs: int = 2,
    lr: float | list[float] = 0.05,
    schedule: Schedule = Constant(),  # noqa: B008  # it has no state
    control: Control | None = None,
    momentum: float = 0.0,
) -> Listener:
    """Trains *stack* with SGD; returns the observer with its events."""
    rates = lr if isinstance(lr, list) else [lr]
    groups = [{**g, "lr": r, "initial_lr": r} for g, r in zip(stack.groups(), rates, strict=True)]
    listener, order = Listener(), Order(splits.train.rows, 16, 0)
    optimizer = Fused(torch.optim.SGD, groups, momentum=momentum)
    descent = Descent(optimizer, schedule, Average(optimizer, decay=0), [rates[group] for group in stack.sets])
    observers = {lane: [listener] for lane in range(stack.lanes)}
    fit(stack, descent, splits, order, Progress(epochs, set(observers)), observers, control or Control())
    return listener


def networks(*widths: int) -> list[MLP]:
    torch.manual_seed(0)
    return [MLP(width) for width in widths]


Compose = Callable[..., Config]


RATE = ("schedule=constant", "lr=0.00390625")  # a power of two: the same number in float32, which a graph has


OTHER = ("schedule=constant", "lr=0.015625")


def lanes(composed: Compose, *overrides: str) -> list[Config]:
    common = [*TINY, "data.order_seed=0", "epochs=3", *overrides]
    own = [["seed=0", *RATE], ["seed=1", *OTHER], ["hidden=9", *RATE], ["model.dropout=0.4", *OTHER]]
    return [composed(*common, *mine) for mine in own]


KINDS = {
    "closed form": [],
    "two layers": ["hidden=[16,8]", "model.activation=tanh"],
    "adamw": ["optimizer=adamw"],
    "sgd": ["optimizer=sgd", "+optimizer.dampening=0.1"],
    "dropout": ["model.dropout=0.4", "model.input_dropout=0.2"],
    "options": ["training.clip=0.5", "training.max_norm=1.0", "training.label_smoothing=0.1", "training.ema=0.9"],
    "augmentation": ["augment=combined"],
    "autograd": ["model.norm=batch", "model.dropout=0.3", "training.clip=0.5", "training.max_norm=1.0"],
    "convolutions": ["model=small_cnn", "hidden=null"],
    "bf16": ["precision=bf16"],
}

LIBRARIES = [pytest.param(TORCH, id="torch")]
if torch.backends.mkldnn.is_available():
    LIBRARIES.append(pytest.param(ONEDNN, id="onednn"))
