"""What our launchers share: how jobs are drawn, handed over and concluded, and how Ctrl-C and SIGTERM stop them."""

import dataclasses
import itertools
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

import mnist_exp
from mnist_exp.config import parse
from mnist_exp.console import terminal
from mnist_exp.errors import Interrupted
from mnist_exp.sweep.composing import Composer
from mnist_exp.sweep.display import Display
from mnist_exp.sweep.job import Job, JobDied, Source, costs, reason
from mnist_exp.sweep.shell import OurLauncher

STOP_GRACE = 30.0  # seconds for running jobs to finish their batch and save after Ctrl-C
BATCH = 4  # trials of a search that others than the local launcher have at a time, where nothing else says how many


def drawn(source: Source, free: int, display: Display) -> list[list[Job]]:
    """The next packs of *source*, at most as many as places are *free*; *display* then counts them."""
    packs = list(itertools.islice(iter(source.next, []), max(0, free)))
    display.costs |= costs([*itertools.chain(*packs)])
    display.total, display.coming = source.total, source.coming
    return packs


@final
class Handover:
    """Prepares the *jobs* of *launcher*; those from other sweepers, which are overrides only, get folder and config.

    Raises:
        HydraException, OmegaConfBaseException: an override does not fit.
    """

    def __init__(self, launcher: OurLauncher, jobs: Sequence[Job]) -> None:
        setup_globals()
        configure_log(launcher.config.hydra.hydra_logging, launcher.config.hydra.verbose)
        self.composer = Composer(launcher.hydra_context.config_loader, launcher.config)
        code = getattr(launcher.task_function, "__code__", None)
        self.trains = code is not None and Path(code.co_filename) == Path(mnist_exp.__file__).with_name("train.py")
        """Whether the jobs train our networks: by `train.main`, which only does what the config says, and has no name
        as `__main__`. Otherwise Hydra's task function runs them."""
        task_function = None if self.trains else launcher.task_function
        self.common: bytes = cloudpickle.dumps((launcher.hydra_context, task_function, Singleton.get_state()))
        """What all jobs share, pickled: Hydra's context, the task function if it is not ours, Hydra's globals."""
        for job in jobs:
            if job.parsed is None:
                composed = self.compose(job)
                job.sweep = Path(str(composed.hydra.sweep.dir))
                job.subdir = str(OmegaConf.select(composed, "hydra.sweep.subdir"))
                job.parsed = parse(self.composer.own(job.overrides)) if self.trains else None

    def compose(self, job: Job) -> DictConfig:
        """The whole config of *job*, with its number."""
        config = self.composer.job(job.overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = f"{config.hydra.job.name}_{job.number}", job.number
        return config

    def prepared(self, job: Job) -> Job:
        """*job* as it goes to another process, which may start in another folder."""
        composed = self.compose(job)
        if job.sweep.is_absolute():
            with open_dict(composed):
                composed.hydra.sweep.dir = str(job.sweep)
        return dataclasses.replace(job, parsed=None, composed=composed, outcome=b"")


@final
class Stop:
    """While it lasts, Ctrl-C and SIGTERM are noted, which the screen says; the second one ends everything at once.

    Raises:
        Interrupted: at its end, if one came, also where it was handled meanwhile.
    """

    signal = 0

    def __enter__(self) -> "Stop":
        self.before = {n: signal.signal(n, self.note) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.signal and (error is None or isinstance(error, KeyboardInterrupt)):
            raise Interrupted("The sweep was stopped.", signal=self.signal) from None

    def note(self, number: int, frame: Any) -> None:
        again, self.signal = self.signal, number
        if again:
            raise KeyboardInterrupt
        terminal.stopping()


def conclude(job: Job, returned: JobReturn, again: bool, display: Display, stop: Stop, source: Source | None) -> None:
    """Shows how *job* has ended. *source* hears of it, unless it is tried *again*, or goes on when the sweep does."""
    error = returned._return_value
    if returned.status == JobStatus.COMPLETED:
        display.finished(job.number, job.overrides, returned.return_value)
    elif stop.signal and isinstance(error, (Interrupted, JobDied)):  # by a signal to it or to this process
        display.stopped(job.number)
        return
    else:
        display.failed(job.number, job.overrides, reason(error), again)
    if source and not again:
        source.end(job.number)
