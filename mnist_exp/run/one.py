"""One run as people start it: a header, a line for each epoch, a result, and where to see it in MLflow."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from mnist_exp import data
from mnist_exp.config import Config, command, override
from mnist_exp.config.overrides import is_control, steers
from mnist_exp.console import terminal
from mnist_exp.console.formats import count, loss, percent, plural, seconds, short, value
from mnist_exp.console.terminal import offer, say, shown
from mnist_exp.disk import trust
from mnist_exp.disk.layout import RunFolder
from mnist_exp.engine.events import Control, EpochEnd, Observer
from mnist_exp.errors import ConfigError, Interrupted
from mnist_exp.run import resume, warm
from mnist_exp.run.sharing import Sharing
from mnist_exp.search import reporter
from mnist_exp.tracking.publisher import Publisher

if TYPE_CHECKING:
    from mnist_exp.run.session import Result, Run


def from_hydra() -> tuple[Path, list[str], str]:
    """Output folder, overrides and sweep of the run that Hydra has set up; no sweep (an empty id) without -m.

    Raises:
        ConfigError: a cluster was chosen without a sweep.
    """
    hydra = HydraConfig.get()
    single = hydra.mode is RunMode.RUN
    if single and (cluster := hydra.runtime.choices["cluster"]) != "local":
        raise ConfigError(f"cluster={cluster} is for the jobs of a sweep.", "Add -m; it may be a sweep of one.")
    typed = [override for override in hydra.overrides.task if not steers(override)]
    return Path(hydra.runtime.output_dir), typed, "" if single else Path(str(hydra.sweep.dir)).name


def train(
    config: Config,
    folder: Path,
    overrides: list[str],
    sweep: str = "",
    changes: Mapping[str, int] | None = None,
) -> "Result":
    """Trains *config* in *folder* and shows its progress; a publisher reports it to MLflow meanwhile.

    Args:
        changes: Numbers of threads to repeat, by the epoch after which they changed.

    Raises:
        ExperimentError: see `session.run_many`.
    """
    if config.resume:
        config = resume.stored(folder, config, overrides)
    elif config.init:
        config.init, overrides = warm.resolved(config.init), warm.typed(overrides)
    publisher = Publisher(config.tracking) if config.tracking.enabled else None
    if publisher:
        publisher.follow(folder)
    screen, sharing = Screen(config), Sharing(config.threads, changes or {})
    from mnist_exp.run import build  # torch: the publisher loads mlflow on another core meanwhile
    from mnist_exp.run.session import Task, run_many

    def watch(about: "Run", control: Control) -> list[Observer]:
        return [*screen.watch(about, control), sharing.watch(about)]

    with _stopped_at_once(folder, overrides), publisher or contextlib.nullcontext():
        build.rehearse(config)
        for note in data.check(config.data):
            say(note)
        with screen.bar:
            task = Task(dataclasses.replace(config, threads=sharing.begin()), folder, overrides)
            (outcome,) = run_many([task], watch, sweep, stopping=terminal.stopping)
        if isinstance(outcome, Interrupted):
            raise Interrupted(outcome.message, going_on(folder, overrides), outcome.signal)
        if isinstance(outcome, Exception):
            raise outcome
        if not screen.begun:
            say(f"Nothing was trained: this run is {outcome.state} already.")
        show(outcome)
        offer("Run folder:", shown(folder))
    if publisher:
        offer(*publisher.where_to_look(folder))
    return outcome


@contextlib.contextmanager
def _stopped_at_once(folder: Path, overrides: list[str]) -> Iterator[None]:
    """Makes a second Ctrl-C, or one that came before or after training, an error that says how the run goes on."""
    try:
        yield
    except KeyboardInterrupt:
        if not RunFolder(folder).ledger.exists():
            raise
        raise Interrupted("Stopped at once.", going_on(folder, overrides)) from None


def going_on(folder: Path, overrides: Sequence[str]) -> str:
    """How one goes on with the run in *folder*; if that is foreign, with the *overrides* that are not taken from there.

    Args:
        overrides: What was typed; what the folder's own records say is never a part of a command to copy.
    """
    further = [] if trust.own(folder) else [o for o in overrides if trust.reaches(o) and not is_control(o)]
    return f"Go on with:\n{command([override('resume', shown(folder)), *further])}"


def show(result: "Result") -> None:
    """Prints the final accuracies, and why training ended early, if it did."""
    if result.reason:
        say(result.reason)
    summary = result.summary
    final = {s: summary[f"final/{s}_accuracy"] for s in ("train", "val", "test") if f"final/{s}_accuracy" in summary}
    say("Final accuracy: " + ", ".join(f"{name} {percent(value)}" for name, value in final.items()))


@final
class Screen(Observer):
    """Header, epoch lines and a progress bar for one run."""

    def __init__(self, config: Config) -> None:
        self.config, self.control = config, Control()
        self.begun = False
        """Whether there was something to train."""
        self.total = 1
        self.bar = terminal.progress(lambda: self.total, lambda: self.control.step)

    def watch(self, about: "Run", control: Control) -> Sequence[Observer]:
        """Prints the header; the bar follows *control* from now on."""
        entry, config = about.ledger, about.config
        self.begun = True
        images = config.data.training
        self.total = config.epochs * -(-images // config.batch_size)
        self.control = control
        say(short(entry.name))
        optimizer = f"{entry.params['optimizer']} lr {value(config.lr)}, batch {config.batch_size}, {about.method}"
        say(f"{entry.params['model']} with {count(entry.parameters)} parameters, {optimizer}")
        fold = f" (fold {config.data.fold} of {config.data.folds})" if config.data.folds else ""
        held_out = f"{config.data.validating:,} validation{fold}, {config.data.test_images:,} test images"
        say(f"{config.data.name}: {images:,} training, {held_out}; {about.device}, {plural(about.threads, 'thread')}")
        from mnist_exp.run import build  # torch

        if note := build.advice(config, about.device):
            say(note)
        if entry.epoch:
            say(f"Going on after epoch {entry.epoch}.")
        elif config.init:
            say(f"Starting from the weights of {config.init}.")
        return [self, *reporter.watch(about.folder, config, entry.epoch, control)]

    def on_epoch(self, event: EpochEnd) -> None:
        say(epoch_line(event, self.config.epochs))


def epoch_line(event: EpochEnd, epochs: int) -> str:
    """`Epoch 1/10, Train Loss: 0.2875, Test Loss: 0.1422, val 96.10 %, 0.28 s`, which fits 80 columns.

    It begins as the beginner's script had it. Without validation it has the test accuracy, which nothing depends on.
    """
    m = event.metrics
    losses = [f"{s.title()} Loss: {loss(m[f'{s}/loss'])}" for s in ("train", "test") if f"{s}/loss" in m]
    split = next(s for s in ("val", "test", "train") if f"{s}/accuracy" in m)
    accuracy, time = percent(m[f"{split}/accuracy"]), seconds(m["time/epoch"])
    return f"Epoch {event.epoch}/{epochs}, {', '.join(losses)}, {split} {accuracy}, {time}"
