"""One run as people start it: a header, a line for each epoch, a result, and the way to MLflow."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from mnist_exp.config import Config, command, override
from mnist_exp.config.overrides import steers
from mnist_exp.console import terminal
from mnist_exp.console.terminal import say, shown
from mnist_exp.engine.events import Control, EpochEnd, LaneEnd, Observer
from mnist_exp.errors import ConfigError, Interrupted
from mnist_exp.run import resume
from mnist_exp.search import reporter
from mnist_exp.tracking.publisher import Publisher

if TYPE_CHECKING:
    from mnist_exp.run.session import Result, Run


def train(config: Config) -> float:
    """Trains *config* in Hydra's output folder; returns the objective.

    Raises:
        ConfigError: a cluster was chosen without a sweep.
        ExperimentError: see `run.run`.
    """
    hydra = HydraConfig.get()
    if hydra.mode is RunMode.RUN and (cluster := hydra.runtime.choices["cluster"]) != "local":
        raise ConfigError(f"cluster={cluster} is for the jobs of a sweep.", "Add -m; it may be a sweep of one.")
    typed = [override for override in hydra.overrides.task if not steers(override)]
    return execute(config, Path(hydra.runtime.output_dir), typed, sweep_of(hydra)).objective


def execute(config: Config, folder: Path, overrides: list[str], sweep: str = "") -> "Result":
    """Trains *config* in *folder* and says how it goes; MLflow is told meanwhile.

    Raises:
        ExperimentError: see `run.run`.
    """
    if config.resume:
        config = resume.stored(folder, config, overrides)
    publisher = Publisher(config.tracking) if config.tracking.enabled else None
    if publisher:
        publisher.follow(folder)
    progress = Screen(config)
    from mnist_exp.run import build  # torch: the publisher loads mlflow on another core meanwhile
    from mnist_exp.run import session as run

    with publisher or contextlib.nullcontext():
        try:
            build.rehearse(config)
            with progress:
                result = run.run(config, folder, overrides, progress.watch, sweep=sweep)
        except Interrupted as stop:
            again = command([override("resume", shown(folder))])
            raise Interrupted(stop.message, f"Go on with: {again}", stop.signal) from None
        if not progress.begun:
            say(f"Nothing was trained: this run is {result.state} already.")
        show(result)
        say(f"Run folder: {shown(folder)}")
    if publisher:
        say(publisher.where_to_look(folder))
    return result


def show(result: "Result") -> None:
    """What came out, and why training ended early, if it did."""
    if result.reason:
        say(result.reason)
    summary = result.summary
    final = {s: summary[f"final/{s}_accuracy"] for s in ("train", "val", "test") if f"final/{s}_accuracy" in summary}
    say("Final accuracy: " + ", ".join(f"{name} {percent(value)}" for name, value in final.items()))


def sweep_of(hydra: HydraConf) -> str:
    """Id of the sweep that a job belongs to; empty for a run of its own."""
    return Path(str(hydra.sweep.dir)).name if hydra.mode is RunMode.MULTIRUN else ""


@final
class Screen(Observer):
    """Header, epoch lines and a progress bar for one run."""

    def __init__(self, config: Config) -> None:
        self.config, self.control = config, Control()
        self.begun = False
        """Whether there was something to train."""
        self.total = 1
        self.bar = terminal.progress(lambda: self.total, "steps", lambda: self.control.step)

    def __enter__(self) -> "Screen":
        self.bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.__exit__(*error)  # type: ignore[arg-type]

    def watch(self, about: "Run", control: Control) -> Sequence[Observer]:
        """Prints the header; from here on the bar follows *control*."""
        entry, config = about.ledger, about.config
        self.begun = True
        images = config.data.train_images - config.data.val_size
        self.total = config.epochs * -(-images // config.batch_size)
        self.control = control
        say(f"{entry.name}")
        say(
            f"{entry.params['model']} with {entry.parameters:,} parameters, {entry.params['optimizer']} "
            f"lr {config.lr:g}, batch {config.batch_size}, {about.method}"
        )
        say(
            f"{config.data.name}: {images:,} training, {config.data.val_size:,} validation, "
            f"{config.data.test_images:,} test images; {about.device}, {about.threads} threads"
        )
        if entry.epoch:
            say(f"Going on after epoch {entry.epoch}.")
        return [self, *reporter.watch(about.folder, config, entry.epoch, control)]

    def on_epoch(self, event: EpochEnd) -> None:
        say(epoch_line(event, self.config.epochs))

    def on_end(self, event: LaneEnd) -> None:
        """What follows is said by `train`."""


def epoch_line(event: EpochEnd, epochs: int) -> str:
    """`Epoch 1/10, Train Loss: 0.2875, Test Loss: 0.1422, ...`, as the beginner's script had it, and more."""
    m = event.metrics
    losses = [f"{s.title()} Loss: {m[f'{s}/loss']:.4f}" for s in ("train", "val", "test") if f"{s}/loss" in m]
    hits = [f"{s} {percent(m[f'{s}/accuracy'])}" for s in ("train", "val", "test") if f"{s}/accuracy" in m]
    return f"Epoch {event.epoch}/{epochs}, {', '.join(losses)}, Accuracy: {', '.join(hits)}, {m['time/epoch']:.2f} s"


def percent(share: float) -> str:
    """0.9783 as `97.83 %`."""
    return f"{100 * share:.2f} %"
