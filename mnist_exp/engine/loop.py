"""The training loop: one page, from the first batch to the last epoch.

It trains one model or many (`stack.py`) and knows no tracker, no checkpoint and no progress bar: it emits events
(`events.py`), and a flag asks it to stop.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mnist_exp.config.numerals import brief
from mnist_exp.data import Order, Split, Splits
from mnist_exp.disk.layout import State
from mnist_exp.engine import graph
from mnist_exp.engine.average import Average
from mnist_exp.engine.events import Control, EpochEnd, LaneEnd, Observer
from mnist_exp.engine.fused import Optimizer
from mnist_exp.engine.schedules import Schedule
from mnist_exp.engine.stack import Stack
from mnist_exp.errors import Interrupted

WINDOW = 256  # steps between two looks at the loss: often enough to stop soon, seldom enough to cost nothing
AT_ONCE = {"cpu"}  # devices where a window is looked at as it closes; others would have to finish all steps so far
DOUBLE = {"cpu", "cuda"}  # devices with float64, which add up losses themselves; for others, such as mps, the host does
EVALUATION = 1000  # images a pass: hidden layers of this many rows still fit into the cache


@final
@dataclass(frozen=True)
class Descent:
    """How weights follow their gradients."""

    optimizer: Optimizer
    schedule: Schedule
    """The learning rate over time."""
    average: Average
    """Of the weights, for evaluation."""
    rates: Sequence[float]
    """The learning rate of each lane that the schedule starts from, for messages."""


@final
@dataclass
class Progress:
    """How far each lane has come, and how far it goes; what a checkpoint restores besides the weights."""

    epochs: int
    """How many to train."""
    alive: set[int]
    """The lanes to train; the others are placeholders."""
    patience: int | None = None
    """Epochs without a better validation accuracy after which a lane ends; None: it trains all epochs."""
    pauses: Collection[int] = ()
    """Epochs after which other lanes leave."""
    epoch: int = 0
    """Epochs finished."""
    best: dict[int, float] = field(default_factory=lambda: defaultdict(lambda: -1.0))
    """Each lane's highest validation accuracy so far."""
    best_epoch: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """The epoch, counting from 1, that first had it; 0: none yet."""

    def stopped(self, lane: int) -> bool:
        """Whether its patience has run out."""
        return self.patience is not None and self.epoch - self.best_epoch[lane] >= self.patience

    def chosen(self, lane: int) -> str:
        """The sentence about the epoch that validation has chosen."""
        best = self.best_epoch[lane]
        return f"Validation accuracy was best after epoch {best} of {self.epoch}: its weights are kept."


@torch.no_grad()  # once for all steps: at each it costs as much as a small product
def fit(
    stack: Stack,
    descent: Descent,
    splits: Splits,
    order: Order,
    progress: Progress,
    observers: Mapping[int, Sequence[Observer]],
    control: Control,
) -> None:
    """Trains *stack* from `progress.epoch` up to `progress.epochs`; the *observers* of a lane receive its events.

    A lane ends as failed if its loss stops being finite, as finished after `progress.patience` epochs without a better
    validation accuracy, as pruned if an observer has put it into `control.pruned`, as finished if one has put it into
    `control.stopped`. It stays in the stack, without events, while the others continue.

    Returns early, with `progress.alive`, where the stack is to lose lanes: after `progress.pauses`, and when some were
    pruned. The caller then calls it again with a smaller one.

    Raises:
        Interrupted: `control.signal` was set; the epoch at hand is lost, the finished ones are not.
    """
    optimizer, schedule, average = descent.optimizer, descent.schedule, descent.average

    def update(images: Tensor, labels: Tensor, factor: float | Tensor) -> tuple[Tensor, Tensor]:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        logits = stack.gradient(images, labels)
        optimizer.step()
        stack.constrain()
        return logits, labels  # (lane, class, batch), (batch,)

    def take_and_update(rows: Tensor, factor: float | Tensor) -> tuple[Tensor, Tensor]:
        return update(*splits.train.take(rows), factor)

    # On CUDA a step is one launch, which takes the images of its rows, too, unless they are varied before.
    recorded = graph.fits(stack, optimizer)
    takes = recorded and order.augment is None
    train: graph.Step = graph.Graphed(take_and_update if takes else update, stack.generators()) if recorded else update
    at_once = splits.train.images.device.type in AT_ONCE
    total, alive = progress.epochs * order.steps, progress.alive
    control.forget()
    for epoch in range(progress.epoch, progress.epochs):
        pruned = end_early(progress, control, observers)
        if not alive or pruned or epoch in progress.pauses:
            return

        # Train on each batch.
        began, busy = time.perf_counter(), time.process_time()
        stack.reseed(epoch)
        tally = Tally(stack.lanes, epoch * order.steps)
        batches = zip(order.batches(epoch), strict=True) if takes else order.feed(splits.train, epoch)
        for step, batch in enumerate(batches, start=epoch * order.steps):  # on the device: the host copies nothing
            logits, labels = train(*batch, schedule(step / total))
            average.update(step + 1)
            tally.add(logits, labels)  # no .item() here: on a GPU it would wait for every step
            control.step = step + 1
            if control.signal:
                raise Interrupted(f"Stopped in epoch {epoch + 1}.", signal=control.signal)
            last = control.step % order.steps == 0  # of the epoch
            if tally.steps == WINDOW or last:
                tally.close_window()
                for lane, before, to in tally.settle() if at_once or last else ():
                    if lane in alive:
                        alive.discard(lane)
                        emit(observers, diverged(lane, before, to, descent.rates[lane]))
        if not alive:
            return

        # Score each split, validation and test with the averaged weights if there are such.
        losses, accuracies = dict[str, list[float]](), dict[str, list[float]]()  # of each lane
        answers: dict[str, list[Tensor]] = {}
        losses["train"], accuracies["train"] = tally.means()
        with average.in_use():
            for name, split in (("val", splits.val), ("test", splits.test)):
                if len(split):
                    losses[name], accuracies[name], *answers[name] = evaluate(stack, split)
        seconds, cpu = (time.perf_counter() - began) / stack.lanes, (time.process_time() - busy) / stack.lanes

        # Tell the observers of each lane.
        now = time.time_ns() // 1_000_000
        progress.epoch = epoch + 1
        for lane in sorted(alive):
            metrics: dict[str, float] = {}
            for name in ("test", "val", "train"):  # MLflow's compare page preselects the metric that was logged first
                if name in losses:
                    metrics |= {f"{name}/accuracy": accuracies[name][lane], f"{name}/loss": losses[name][lane]}
            chosen_by = metrics.get("val/accuracy", float(epoch))  # without validation the last is best
            best = chosen_by > progress.best[lane]
            if best:
                progress.best[lane], progress.best_epoch[lane] = chosen_by, epoch + 1
            event = EpochEnd(
                lane=lane,
                epoch=epoch + 1,
                step=control.step,
                metrics={**metrics, "time/epoch": seconds, "time/epoch_cpu": cpu},
                time_ms=now,
                best=best,
                hits={name: right[lane].clone() for name, (right, _) in answers.items()},
                answers={name: taken_for[lane].clone() for name, (_, taken_for) in answers.items()},
            )
            for observer in observers[lane]:
                observer.on_epoch(event)
        control.decide()
    for lane in sorted(alive):
        reason = progress.chosen(lane) if progress.patience else ""
        emit(observers, LaneEnd(lane=lane, state=State.FINISHED, reason=reason))


def end_early(progress: Progress, control: Control, observers: Mapping[int, Sequence[Observer]]) -> bool:
    """Ends the lanes that are not to train on after the epochs so far; returns whether some of them were pruned."""
    stopped = {lane: (State.FINISHED, reason) for lane, reason in control.stopped.items()}
    pruned = {lane: (State.PRUNED, reason) for lane, reason in control.pruned.items()}
    waited = {lane: (State.FINISHED, progress.chosen(lane)) for lane in progress.alive if progress.stopped(lane)}
    ends = {lane: end for lane, end in (stopped | pruned | waited).items() if lane in progress.alive}
    for lane, (state, reason) in sorted(ends.items()):
        progress.alive.discard(lane)
        emit(observers, LaneEnd(lane=lane, state=state, reason=reason))
    return any(state == State.PRUNED for state, _ in ends.values())


def evaluate(stack: Stack, split: Split) -> tuple[list[float], list[float], Tensor, Tensor]:
    """Each lane's mean loss and accuracy (0 to 1) on *split*, without dropout, and on the CPU its hits and answers.

    Hits (lane, n) are booleans, answers (lane, n) the classes as uint8.
    """
    tally = Tally(stack.lanes, keeps=True)
    for images, labels in split.chunks(EVALUATION):
        tally.add(stack.logits(images), labels)
        tally.close_window()
    answers = torch.cat(tally.answers, 1)
    return *tally.means(), (answers == split.labels[split.rows]).cpu(), answers.to("cpu", torch.uint8)


@final
class Tally:
    """Loss and hits of many batches; logits are kept and scored a window at a time, not step by step.

    Args:
        lanes: How many lanes there are.
        step: Steps taken before the first batch.
        keeps: Whether it keeps what each image was taken for.
    """

    def __init__(self, lanes: int, step: int = 0, keeps: bool = False) -> None:
        self.keeps = keeps
        self.loss = torch.zeros(lanes, dtype=torch.float64)
        self.hits = torch.zeros(lanes, dtype=torch.float64)
        self.images, self.step = 0, step
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.answers: list[Tensor] = []
        """For each window, the class that each image was taken for: (lane, image)."""
        self.windows: list[tuple[int, int, Tensor, Tensor]] = []
        """Scored, but still on the device: steps before it, steps up to its end, losses (lane, some), hits (lane,)."""

    @property
    def steps(self) -> int:
        """Batches added since the last window was closed."""
        return len(self.labels)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Adds one batch: (lane, class, batch) and (batch,)."""
        self.logits.append(logits)
        self.labels.append(labels)

    def close_window(self) -> None:
        """Scores what was added, on the device."""
        logits, labels = torch.cat(self.logits, 2), torch.cat(self.labels)
        losses = cross_entropy(logits, labels.expand(len(logits), -1), reduction="none")  # (lane, image)
        answers = logits.max(1).indices  # argmax takes 5 times as long
        if self.keeps:
            self.answers.append(answers)
        if losses.device.type in DOUBLE:
            losses = losses.sum(1, keepdim=True, dtype=torch.float64)
        self.windows.append((self.step, self.step + self.steps, losses, (answers == labels).sum(1)))
        self.images, self.step = self.images + len(labels), self.step + self.steps
        self.logits, self.labels = [], []

    def settle(self) -> list[tuple[int, int, int]]:
        """Adds up the windows closed so far; this waits for a GPU to finish them.

        Returns:
            For each loss that is not finite: lane, steps before the window, steps up to its end.
        """
        windows, self.windows, bad = self.windows, [], []
        for before, to, losses, hits in windows:
            loss = losses.cpu().sum(1, dtype=torch.float64)
            self.loss += loss
            self.hits += hits.cpu()
            bad += [(lane, before, to) for lane, ok in enumerate(loss.isfinite().tolist()) if not ok]
        return bad

    def means(self) -> tuple[list[float], list[float]]:
        """Each lane's mean loss and share of hits."""
        self.settle()
        return (self.loss / self.images).tolist(), (self.hits / self.images).tolist()


def diverged(lane: int, last_ok: int, step: int, rate: float) -> LaneEnd:
    """The sentence about a loss that is not finite: when, and at which learning rate."""
    reason = f"The loss is not finite somewhere in steps {last_ok + 1} to {step}. Lower lr, now {brief(rate)}."
    return LaneEnd(lane=lane, state=State.FAILED, reason=reason)


def emit(observers: Mapping[int, Sequence[Observer]], event: LaneEnd) -> None:
    """Sends the end of a lane to its observers."""
    for observer in observers[event.lane]:
        observer.on_end(event)
