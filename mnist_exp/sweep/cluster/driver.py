"""Sweeps that outgrow one machine: the driver's side of jobs that a scheduler runs on others.

Their folders lie on a file system that all machines share. So the driver reads there how far each job is, and
reports to MLflow; the scheduler is asked only which jobs have ended, and why if they left no result.
"""

import abc
import contextlib
import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import final

import cloudpickle
from hydra.core.utils import JobReturn, JobStatus

from mnist_exp.disk import journal, ledger
from mnist_exp.disk.layout import State
from mnist_exp.errors import Interrupted
from mnist_exp.sweep import points
from mnist_exp.sweep.display import Display
from mnist_exp.sweep.job import Job, JobDied, Returns, Source, costs, shared
from mnist_exp.sweep.launching import BATCH, STOP_GRACE, Handover, Stop, conclude, drawn
from mnist_exp.sweep.shell import OurLauncher

PAUSE = 1.0  # seconds between two looks at the jobs, at most


class Scheduler(abc.ABC):
    """Runs jobs somewhere."""

    retries = 0
    """Times that a job whose process died is submitted again."""

    @property
    def room(self) -> int:
        """Jobs of a search that it has at a time."""
        return BATCH

    @abc.abstractmethod
    def submit(self, jobs: Sequence[Job], handover: Handover) -> None:
        """Has *jobs* run, or follows those that an earlier driver has submitted and that still go on.

        Raises:
            ExperimentError: the scheduler does not take them.
        """

    @abc.abstractmethod
    def ended(self) -> Iterable[tuple[Job, JobReturn | str]]:
        """The jobs that have ended since the last call: what each returned, or in a sentence what it died of."""

    def pause(self) -> None:
        """Returns when a job may have ended, after `PAUSE` at the latest."""
        time.sleep(PAUSE)

    @abc.abstractmethod
    def stop(self) -> str:
        """The user leaves: how to end the jobs, which go on; empty, if they were asked to stop."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of the scheduler."""


def launch(launcher: OurLauncher, scheduler: Scheduler, jobs: Sequence[Job], source: Source | None = None) -> Returns:
    """Runs every job, and those of *source*; see `OurLauncher.run_jobs`.

    Raises:
        DataError: this machine could not fetch the images; nothing was submitted.
        ExperimentError: see `Scheduler.submit`.
        Interrupted: Ctrl-C or SIGTERM; its `help` says what becomes of the jobs.
    """
    handover = Handover(launcher, jobs)
    points.check_images(jobs)  # the other machines may see the file system, but no network
    fixed = source.fixed if source else shared([job.overrides for job in jobs])
    with contextlib.closing(scheduler), Display(len(jobs), fixed) as display, Stop() as stop:
        display.costs |= costs(jobs)
        Driver(scheduler, handover, display, stop, source).follow(jobs)
    return Returns([job.outcome for job in jobs if job.outcome])


@final
@dataclass(eq=False)
class Driver:
    """Submits jobs and follows them to their ends."""

    scheduler: Scheduler
    handover: Handover
    display: Display
    stop: Stop
    source: Source | None = None
    """Has the next job when one has ended."""
    submitted: dict[int, Job] = field(default_factory=dict)
    """Those that have not ended, by their numbers."""
    epochs: dict[int, int] = field(default_factory=dict)

    def follow(self, jobs: Sequence[Job]) -> None:
        """Returns when all *jobs*, and those of the source, have ended, or have had their time to stop.

        Raises:
            ExperimentError: see `Scheduler.submit`.
            Interrupted: the user leaves, and they go on.
        """
        deadline = float("inf")
        self.submit(jobs)
        while self.submitted and time.monotonic() < deadline:
            for job in self.submitted.values():
                self.show(job)
            self.display.refresh()
            if self.stop.signal and deadline == float("inf"):
                if way := self.scheduler.stop():
                    text = f"The sweep is no longer watched; {len(self.submitted)} jobs go on."
                    raise Interrupted(text, way, self.stop.signal)
                deadline = time.monotonic() + STOP_GRACE
            self.scheduler.pause()
            self.submit([job for job, outcome in self.scheduler.ended() if self.on_result(job, outcome)])

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submits *jobs*, and of the source as many more as there is room for."""
        if self.source and not self.stop.signal:
            free = (self.source.batch or self.scheduler.room) - len(self.submitted) - len(jobs)
            jobs = [*jobs, *itertools.chain(*drawn(self.source, free, self.display))]
        self.submitted |= {job.number: job for job in jobs}
        for job in jobs:
            job.tries, job.sweep = job.tries + 1, job.sweep.absolute()  # wherever its process will start
        if jobs:
            self.scheduler.submit(jobs, self.handover)

    def show(self, job: Job) -> None:
        """Displays how far a job is, by its folder."""
        entry = ledger.find(job.folder)
        if not entry or entry.state != State.RUNNING or entry.epoch == self.epochs.get(job.number):
            return
        if job.number not in self.epochs:
            self.display.started(job.number, job.overrides)
        self.epochs[job.number] = entry.epoch
        if rows := journal.read(job.folder):
            self.display.epoch(job.number, entry.epoch, entry.epochs, rows[-1]["metrics"])

    def on_result(self, job: Job, outcome: JobReturn | str) -> bool:
        """Whether *job*, which has ended so, is to be submitted again."""
        del self.submitted[job.number]
        self.epochs.pop(job.number, None)
        again = False
        if isinstance(outcome, str):
            ledger.reap(job.folder, outcome)  # unless it had ended before, its ledger now says that it was killed
            entry = ledger.find(job.folder)
            if entry and entry.state.done:
                outcome = JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=entry.objective)
            else:
                if not self.stop.signal:
                    job.died(outcome)
                    again = job.tries <= self.scheduler.retries
                outcome = job.failed(JobDied(outcome))
        job.outcome = cloudpickle.dumps(outcome)
        if (entry := ledger.find(job.folder)) and entry.state == State.PRUNED:
            self.display.pruned(job.number, entry.reason)
        conclude(job, outcome, again, self.display, self.stop, self.source)
        return again
