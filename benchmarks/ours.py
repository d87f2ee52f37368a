"""This project's own training, in parts and as a whole, in this process."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

import torch
from hydra import compose, initialize_config_dir

from mnist_exp import config, data
from mnist_exp.config import Config
from mnist_exp.data import Order, Splits
from mnist_exp.engine.average import Average
from mnist_exp.engine.events import Control, EpochEnd, LaneEnd, Observer
from mnist_exp.engine.loop import WINDOW, Descent, Progress, Tally, fit
from mnist_exp.run import build
from mnist_exp.run.pack import set_up_torch
from mnist_exp.run.session import Result, Task, Watch, run_many


def configure(*overrides: str) -> Config:
    """The config of a command line with *overrides*."""
    config.register()
    with initialize_config_dir(config.conf_dir(), version_base="1.3"):
        return config.parse(compose("train", overrides=["device=cpu", *overrides]))


def train(chosen: Config, folder: Path, watch: Watch = lambda run, control: ()) -> Result:
    """Trains *chosen* in *folder*; raises what ended it."""
    (result,) = run_many([Task(chosen, folder)], watch)
    if isinstance(result, Exception):
        raise result
    return result


@final
class Clock(Observer):
    """Keeps the seconds of an epoch, as the loop measures them."""

    seconds = 0.0

    def on_epoch(self, event: EpochEnd) -> None:
        self.seconds = event.metrics["time/epoch"]

    def on_end(self, event: LaneEnd) -> None:
        assert event.state == "finished", event.reason


@final
class Training:
    """One network on loaded images."""

    def __init__(self, chosen: Config, splits: Splits) -> None:
        self.config, self.splits = chosen, splits
        self.device = build.device(chosen)
        set_up_torch(chosen, self.device, chosen.threads or torch.get_num_threads())
        self.stack, self.method = build.stack([chosen], [build.model(chosen)], self.device)
        self.optimizer = build.optimizer(chosen, self.stack.groups())
        self.order = Order(splits.train.rows, chosen.batch_size, chosen.seed)
        self.epoch = 0

    def seconds(self) -> float:
        """Seconds of an epoch of the loop, with evaluation on any validation and test images.

        On CUDA it is the second of two: the first records the graph.
        """
        clock = Clock()
        descent = Descent(self.optimizer, build.schedule(self.config), Average(self.optimizer, 0.0), [self.config.lr])
        progress = Progress(self.epoch + (2 if self.device.type == "cuda" else 1), {0})
        progress.epoch, self.epoch = self.epoch, progress.epochs
        torch.set_num_threads(self.config.threads or torch.get_num_threads())
        fit(self.stack, descent, self.splits, self.order, progress, {0: [clock]}, Control())
        return clock.seconds

    def pieces(self) -> dict[str, Callable[[], object]]:
        """The parts of a step, each as a function that can be called repeatedly."""
        rows = itertools.cycle(self.order.batches(0)[:-1])
        images, labels = self.splits.train.take(next(rows))
        logits = self.stack.gradient(images, labels)
        return {
            "take": lambda: self.splits.train.take(next(rows)),
            "gradient": lambda: self.stack.gradient(images, labels),
            "optimizer": self.optimizer.step,
            "tally": _tallying(logits, labels).__next__,
        }


def _tallying(logits: torch.Tensor, labels: torch.Tensor) -> Iterator[None]:
    """Each item adds one batch to a tally; every `WINDOW` batches it also closes a window."""
    tally = Tally(len(logits))
    while True:
        tally.add(logits, labels)
        if tally.steps == WINDOW:
            tally.close_window()
            tally.settle()
        yield


def load(chosen: Config) -> Splits:
    """The images of *chosen*, on its device."""
    return data.load(chosen.data, build.device(chosen))


def sample(splits: Splits, images: int) -> Splits:
    """A random sample of *images* training images, without validation and test images: an epoch is only its steps."""
    rng = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(splits.train), generator=rng)[:images]
    nothing = splits.val.select(torch.arange(0))
    return dataclasses.replace(splits, train=splits.train.select(chosen), val=nothing, test=nothing)


def epoch_seconds(folder: Path) -> list[float]:
    """Seconds of each epoch of the newest run below *folder*."""
    from mnist_exp.disk import journal

    newest = max(folder.glob("outputs/runs/*/*/metrics.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [row["metrics"]["time/epoch"] for row in journal.read(newest.parent)]
