"""Sweeps that outgrow one machine: the driver's side of jobs that a scheduler runs on others.

Their folders lie on a file system that all machines share. So the driver reads there how far each job is, and
tells MLflow; the scheduler is asked only which jobs have ended, and why if they left no word.
"""

import abc
import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from omegaconf import OmegaConf, open_dict

from mnist_exp.config import Config, parse
from mnist_exp.data import fetch
from mnist_exp.disk import journal, ledger
from mnist_exp.errors import ExperimentError, Interrupted
from mnist_exp.sweep.composing import Composer
from mnist_exp.sweep.display import Display
from mnist_exp.sweep.local import worker
from mnist_exp.sweep.local.pool import JobDied, costs, reason
from mnist_exp.sweep.stop import STOP_GRACE, Stop

PAUSE = 1.0  # seconds between two looks at the jobs

Common = tuple[Any, Any, dict[Any, Any]]
"""What all jobs share: Hydra's context, the task function, Hydra's globals."""


@final
@dataclass
class Job:
    """One job and what is known of it."""

    number: int
    overrides: list[str]
    own: Config
    """Its config without Hydra's part."""
    folder: Path
    config: bytes
    """As Hydra composed it, pickled."""
    tries: int = 0
    """Times that its process died."""
    outcome: JobReturn | None = None

    def failed(self, error: BaseException) -> JobReturn:
        """What Hydra is told if the job left no word of its own."""
        done = JobReturn(overrides=self.overrides, status=JobStatus.FAILED)
        done.return_value = error
        return done


class Scheduler(abc.ABC):
    """Runs jobs somewhere."""

    retries = 0
    """Times that a job whose process died is submitted again."""

    @abc.abstractmethod
    def submit(self, jobs: Sequence[Job], common: Common) -> None:
        """Has *jobs* run, or follows those that an earlier driver has submitted and that still go on.

        Raises:
            ExperimentError: the scheduler does not take them.
        """

    @abc.abstractmethod
    def ended(self) -> Iterable[tuple[Job, JobReturn | str]]:
        """The jobs that have ended since the last call: what each returned, or in a sentence what it died of."""

    @abc.abstractmethod
    def stop(self) -> str:
        """The user leaves: what he can do about the jobs, which go on; nothing, if they were told to end."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of the scheduler."""


def launch(
    launcher: Any, scheduler: Scheduler, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
) -> list[JobReturn]:
    """Runs every job; returns what became of each, in order.

    Raises:
        DataError: this machine could not fetch the images; nothing was submitted.
        ExperimentError: see `Scheduler.submit`.
        Interrupted: Ctrl-C or SIGTERM; its `help` says what becomes of the jobs.
    """
    setup_globals()
    configure_log(launcher.config.hydra.hydra_logging, launcher.config.hydra.verbose)
    composer = Composer(launcher.hydra_context.config_loader, launcher.config)
    jobs = [prepare(composer, list(o), initial_job_idx + i) for i, o in enumerate(job_overrides)]
    have_data(job.own for job in jobs)
    fixed = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    common = (launcher.hydra_context, launcher.task_function, Singleton.get_state())
    with contextlib.closing(scheduler), Display(len(jobs), fixed) as display, Stop() as stop:
        display.costs |= costs(jobs)
        scheduler.submit(jobs, common)
        Driver(scheduler, common, display, stop).follow(jobs)
    return [job.outcome for job in jobs if job.outcome]


def prepare(composer: Composer, overrides: list[str], number: int) -> Job:
    """The job with those *overrides*, whatever folder its process will start in.

    Args:
        number: Unless the folder is called by another one, as after a resume.
    """
    config = composer.job(overrides)
    home = Path(str(config.hydra.sweep.dir)).absolute()
    with open_dict(config):
        config.hydra.sweep.dir, config.hydra.job.num = str(home), number
        name = str(OmegaConf.select(config, "hydra.sweep.subdir"))
        number = int(name) if name.isdecimal() else number
        config.hydra.job.id, config.hydra.job.num = f"{config.hydra.job.name}_{number}", number
    return Job(number, overrides, parse(composer.own(overrides)), home / name, cloudpickle.dumps(config))


def have_data(configs: Iterable[Config]) -> None:
    """Fetches what the jobs train on: the other machines may see the file system, but no network.

    Raises:
        DataError: it cannot be fetched.
    """
    wanted = {repr(data): data for data in (config.data for config in configs)}
    for data in wanted.values():
        if data.name != "synthetic":
            fetch.ensure(data)


@final
class Driver:
    """Follows jobs to their ends."""

    def __init__(self, scheduler: Scheduler, common: Common, display: Display, stop: Stop) -> None:
        self.scheduler, self.common, self.display, self.stop = scheduler, common, display, stop
        self.epochs: dict[int, int] = {}

    def follow(self, jobs: Sequence[Job]) -> None:
        """Returns when all *jobs* have ended, or have had their time to stop.

        Raises:
            Interrupted: the user leaves, and they go on.
        """
        waiting, deadline = {job.number: job for job in jobs}, float("inf")
        while waiting and time.monotonic() < deadline:
            for job, outcome in self.scheduler.ended():
                if self.judge(job, outcome):
                    del waiting[job.number]
            for job in waiting.values():
                self.show(job)
            self.display.refresh()
            if self.stop.signal and deadline == float("inf"):
                if way := self.scheduler.stop():
                    raise Interrupted(
                        f"The sweep is no longer watched; {len(waiting)} jobs go on.", way, self.stop.signal
                    )
                self.display.stopping()
                deadline = time.monotonic() + STOP_GRACE
            time.sleep(PAUSE)

    def show(self, job: Job) -> None:
        """Displays how far a job is, by its folder."""
        with contextlib.suppress(ExperimentError):  # it has not begun
            entry = ledger.read(job.folder)
            if entry.state != "running" or entry.epoch == self.epochs.get(job.number):
                return
            if job.number not in self.epochs:
                self.display.started(job.number, job.overrides)
            self.epochs[job.number] = entry.epoch
            if rows := journal.read(job.folder):
                self.display.epoch(job.number, entry.epoch, entry.epochs, rows[-1]["metrics"])

    def judge(self, job: Job, outcome: JobReturn | str) -> bool:
        """Whether that was the end of *job*."""
        self.epochs.pop(job.number, None)
        if isinstance(outcome, str) and not self.had_finished(job, outcome):
            return self.bury(job, outcome)
        if isinstance(outcome, JobReturn):
            job.outcome = outcome
        assert job.outcome
        if job.outcome.status == JobStatus.COMPLETED:
            if (entry := ledger.find(job.folder)) and entry.state == "pruned":
                self.display.pruned(job.number, entry.reason)
            self.display.finished(job.number, job.overrides, job.outcome.return_value)
        elif self.stop.signal and isinstance(job.outcome._return_value, Interrupted):
            self.display.stopped(job.number)
        else:
            self.display.failed(job.number, job.overrides, reason(job.outcome._return_value), again=False)
        return True

    def had_finished(self, job: Job, why: str) -> bool:
        """Whether a job that has died had said its last word before; else its ledger now says that it was killed."""
        ledger.reap(job.folder, why)
        try:
            entry = ledger.read(job.folder)
        except ExperimentError:
            return False
        if entry.state not in ("finished", "pruned"):
            return False
        job.outcome = JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED)
        job.outcome.return_value = entry.objective
        return True

    def bury(self, job: Job, why: str) -> bool:
        """Whether *job*, whose process died, has no further try."""
        job.outcome = job.failed(JobDied(why))
        job.tries += 1
        if self.stop.signal:
            self.display.stopped(job.number)
            return True
        worker.lost(job.own, cloudpickle.loads(job.config), why)
        again = job.tries <= self.scheduler.retries
        self.display.failed(job.number, job.overrides, why, again)
        if again:
            self.scheduler.submit([job], self.common)
        return not again
