"""Sweeps that outgrow one machine: the driver's side of jobs that a scheduler runs on others.

Their folders lie on a file system that all machines share. So the driver reads there how far each job is, and
reports to MLflow; the scheduler is asked only which jobs have ended, and why if they left no result.
"""

import abc
import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import final

import cloudpickle
from hydra.core.utils import JobReturn, JobStatus

from mnist_exp.disk import journal, ledger
from mnist_exp.disk.layout import State
from mnist_exp.errors import Interrupted
from mnist_exp.sweep import points
from mnist_exp.sweep.display import Display
from mnist_exp.sweep.job import Job, JobDied, Returns, costs, reason, shared
from mnist_exp.sweep.launching import STOP_GRACE, Handover, Stop
from mnist_exp.sweep.shell import OurLauncher

PAUSE = 1.0  # seconds between two looks at the jobs


class Scheduler(abc.ABC):
    """Runs jobs somewhere."""

    retries = 0
    """Times that a job whose process died is submitted again."""

    @abc.abstractmethod
    def submit(self, jobs: Sequence[Job], handover: Handover) -> None:
        """Has *jobs* run, or follows those that an earlier driver has submitted and that still go on.

        Raises:
            ExperimentError: the scheduler does not take them.
        """

    @abc.abstractmethod
    def ended(self) -> Iterable[tuple[Job, JobReturn | str]]:
        """The jobs that have ended since the last call: what each returned, or in a sentence what it died of."""

    @abc.abstractmethod
    def stop(self) -> str:
        """The user leaves: how to end the jobs, which go on; empty, if they were asked to stop."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of the scheduler."""


def launch(launcher: OurLauncher, scheduler: Scheduler, jobs: Sequence[Job]) -> Returns:
    """Runs every job; returns what each returned, in order.

    Raises:
        DataError: this machine could not fetch the images; nothing was submitted.
        ExperimentError: see `Scheduler.submit`.
        Interrupted: Ctrl-C or SIGTERM; its `help` says what becomes of the jobs.
    """
    handover = Handover(launcher, jobs)
    for job in jobs:
        job.sweep = job.sweep.absolute()  # wherever its process will start
    points.check_images(jobs)  # the other machines may see the file system, but no network
    fixed = shared([job.overrides for job in jobs])
    with contextlib.closing(scheduler), Display(len(jobs), fixed) as display, Stop() as stop:
        display.costs |= costs(jobs)
        scheduler.submit(jobs, handover)
        Driver(scheduler, handover, display, stop).follow(jobs)
    return Returns([job.outcome for job in jobs if job.outcome])


@final
class Driver:
    """Follows jobs to their ends."""

    def __init__(self, scheduler: Scheduler, handover: Handover, display: Display, stop: Stop) -> None:
        self.scheduler, self.handover, self.display, self.stop = scheduler, handover, display, stop
        self.epochs: dict[int, int] = {}

    def follow(self, jobs: Sequence[Job]) -> None:
        """Returns when all *jobs* have ended, or have had their time to stop.

        Raises:
            Interrupted: the user leaves, and they go on.
        """
        waiting, deadline = {job.number: job for job in jobs}, float("inf")
        while waiting and time.monotonic() < deadline:
            for job, outcome in self.scheduler.ended():
                if self.on_result(job, outcome):
                    del waiting[job.number]
            for job in waiting.values():
                self.show(job)
            self.display.refresh()
            if self.stop.signal and deadline == float("inf"):
                if way := self.scheduler.stop():
                    text = f"The sweep is no longer watched; {len(waiting)} jobs go on."
                    raise Interrupted(text, way, self.stop.signal)
                deadline = time.monotonic() + STOP_GRACE
            time.sleep(PAUSE)

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
        """Whether that was the end of *job*."""
        self.epochs.pop(job.number, None)
        if isinstance(outcome, str):
            ledger.reap(job.folder, outcome)  # unless it had ended before, its ledger now says that it was killed
            entry = ledger.find(job.folder)
            if entry is None or not entry.state.done:
                return self.on_death(job, outcome)
            outcome = JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=entry.objective)
        job.outcome = cloudpickle.dumps(outcome)
        if outcome.status == JobStatus.COMPLETED:
            if (entry := ledger.find(job.folder)) and entry.state == State.PRUNED:
                self.display.pruned(job.number, entry.reason)
            self.display.finished(job.number, job.overrides, outcome.return_value)
        elif self.stop.signal and isinstance(outcome._return_value, Interrupted):
            self.display.stopped(job.number)
        else:
            self.display.failed(job.number, job.overrides, reason(outcome._return_value), again=False)
        return True

    def on_death(self, job: Job, why: str) -> bool:
        """Whether *job*, whose process died, has no further try."""
        job.tries += 1
        if self.stop.signal:
            job.outcome = cloudpickle.dumps(job.failed(JobDied(why)))
            self.display.stopped(job.number)
            return True
        job.died(why)
        again = job.tries <= self.scheduler.retries
        self.display.failed(job.number, job.overrides, why, again)
        if again:
            self.scheduler.submit([job], self.handover)
        return not again
