"""A worker process of the local launcher: receives jobs, runs them one pack after another, sends their outcomes.

Torch is imported once for all its jobs. Whatever a job prints goes to the job's own log. The driver may be
killed at any time: then the lifeline breaks and the worker stops as after SIGTERM.
"""

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, final

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.types import TaskFunction

from mnist_exp import system
from mnist_exp.config import parse
from mnist_exp.disk.layout import RunFolder, State
from mnist_exp.engine.events import Control, EpochEnd, LaneEnd, Observer
from mnist_exp.errors import ExperimentError, Interrupted
from mnist_exp.run.one import epoch_line
from mnist_exp.search import reporter
from mnist_exp.sweep.job import Job

if TYPE_CHECKING:
    from mnist_exp.run.session import Result, Run, Task

log = logging.getLogger(__name__)

GRACE = 10.0  # seconds between the driver's death and the worker's
Listen = Callable[[Job, "Run", Control], Sequence[Observer]]
"""Returns further observers of a job that is about to train."""


@final
class JobLog(Observer):
    """Writes epochs and end of a run into its own log, whichever log has what the process prints."""

    def __init__(self, path: Path, epochs: int) -> None:
        self.path, self.epochs = path, epochs

    def on_epoch(self, event: EpochEnd) -> None:
        self.write(epoch_line(event, self.epochs))

    def on_end(self, event: LaneEnd) -> None:
        self.write(event.reason or "The run has finished.")

    def write(self, line: str) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError), self.path.open("a", encoding="utf-8") as file:
            file.write(f"[{now}] {line}\n")


@final
class Forward(Observer):
    """Sends events of one job to the driver."""

    def __init__(self, pipe: Connection, number: int, epochs: int) -> None:
        self.pipe, self.number, self.epochs = pipe, number, epochs

    def on_epoch(self, event: EpochEnd) -> None:
        self.send("epoch", event.epoch, self.epochs, event.metrics)

    def on_end(self, event: LaneEnd) -> None:
        if event.state == State.PRUNED:  # the job's return has the rest
            self.send("pruned", event.reason)

    def send(self, kind: str, *values: object) -> None:
        """Sends one message. If the driver is gone, that is no fault of the job: the lifeline will stop it."""
        with contextlib.suppress(OSError):
            self.pipe.send((kind, self.number, *values))


@final
class Runner:
    """Runs jobs in this process as Hydra does: ours by `run.session`, another application's by its task function.

    Args:
        common: See `Handover`.
        threads: CPU threads for each job.
        listen: Who else observes the jobs that train.
    """

    def __init__(self, common: bytes, threads: int, listen: Listen = lambda job, about, control: ()) -> None:
        self.hydra_context, self.task_function, state = cloudpickle.loads(common)
        Singleton.set_state(state)
        setup_globals()
        self.threads, self.listen = threads, listen
        self.jobs: dict[Path, Job] = {}
        """Those that train now, by their folders."""

    def run(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """Runs *jobs*, several of them as a pack; what the process prints is in their logs."""
        self.jobs.clear()
        if len(jobs) > 1:
            return self._run_pack(jobs)
        with output_to_log(jobs[0]):
            return [self.run_one(jobs[0])]

    def run_one(self, job: Job) -> JobReturn:
        return self._by_hydra(job, self.task_function or functools.partial(self._train, job))

    def _by_hydra(self, job: Job, task_function: TaskFunction) -> JobReturn:
        """Hydra's `run_job`, except that nothing a job does ends the process, and its error survives pickling."""
        try:
            returned: JobReturn = run_job(
                hydra_context=self.hydra_context,
                task_function=task_function,
                config=job.composed,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        except BaseException as error:  # SystemExit, and what Hydra itself raises
            log.exception("The job ended the hard way.")
            return job.failed(_hard(error))
        if returned.status == JobStatus.FAILED:
            _log_failure(returned)
        return returned

    def _train(self, job: Job, cfg: Any) -> float:
        (outcome,) = self._train_together([self._task(job, cfg)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome.objective

    def _task(self, job: Job, cfg: Any) -> "Task":
        """The job that Hydra has set up just now with the config *cfg*, ready to train."""
        from mnist_exp.run.session import Task

        config, folder = parse(cfg), Path(HydraConfig.get().runtime.output_dir)
        config.threads = config.threads or self.threads
        self.jobs[folder] = job
        return Task(config, folder, job.settings)

    def _train_together(self, tasks: "Sequence[Task]") -> "list[Result | Exception]":
        """As `session.run_many`."""
        from mnist_exp.run import session

        return session.run_many(tasks, self._watch, sweep=self.jobs[tasks[0].folder].sweep.name, extras=False)

    def _watch(self, about: "Run", control: Control) -> Sequence[Observer]:
        return [
            JobLog(RunFolder(about.folder).log, about.config.epochs),
            *self.listen(self.jobs[about.folder], about, control),
            *reporter.watch(about.folder, about.config, about.ledger.epoch, control),
        ]

    def _run_pack(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """Sets up each job as Hydra does, then trains all of them together, unless Ctrl-C came meanwhile."""
        returns: list[JobReturn] = []
        numbers, stop = ", ".join(f"#{job.number}" for job in jobs), None
        for job in jobs:
            if stop:
                returns.append(job.failed(stop))
                continue
            with output_to_log(job):
                returns.append(self._by_hydra(job, functools.partial(self._task, job)))
                log.info("Trained in one process: %s; what it prints is in the log of the first.", numbers)
            if isinstance(error := returns[-1]._return_value, Interrupted):
                stop = error
        ready = [(job, done) for job, done in zip(jobs, returns, strict=True) if done.status == JobStatus.COMPLETED]
        tasks = [done.return_value for _, done in ready]
        outcomes = [stop] * len(ready) if stop else self._train_pack(tasks, jobs[0])
        for (job, done), outcome in zip(ready, outcomes, strict=True):
            if not isinstance(outcome, Exception):
                done.return_value = outcome.objective
                continue
            done.status, done.return_value = JobStatus.FAILED, outcome
            with output_to_log(job):
                configure_log(done.hydra_cfg.hydra.job_logging, done.hydra_cfg.hydra.verbose)
                _log_failure(done)
        return returns

    def _train_pack(self, tasks: "list[Task]", first: Job) -> "list[Result | Exception]":
        """Trains *tasks*; what the process prints is in the log of the job *first*."""
        with output_to_log(first):
            configure_log(first.composed.hydra.job_logging, first.composed.hydra.verbose)
            try:
                return self._train_together(tasks)
            except BaseException as error:
                log.exception("The jobs ended the hard way.")
                return [_hard(error)] * len(tasks)


def main(pipe: Connection, lifeline: Connection, common: bytes, threads: int, environment: dict[str, str]) -> None:
    """The process's main: runs each pack of jobs that comes through *pipe* until it closes; see `Runner`.

    Args:
        lifeline: Says which signal to handle; closes when the driver is gone.
        environment: Set before anything looks at it, such as CUDA_VISIBLE_DEVICES.
    """
    system.ignore_interrupts()
    os.environ.update(environment)
    threading.Thread(target=_follow, args=(lifeline,), daemon=True).start()
    runner = Runner(common, threads, lambda job, about, control: [Forward(pipe, job.number, about.config.epochs)])
    while True:
        try:
            jobs: list[Job] = cloudpickle.loads(pipe.recv_bytes())
        except (EOFError, OSError, KeyboardInterrupt):  # the driver is gone, or a Ctrl-C came before the job began
            return
        for job, returned in zip(jobs, runner.run(jobs), strict=True):
            with contextlib.suppress(OSError):  # the driver is gone
                pipe.send(("done", job.number, cloudpickle.dumps(returned)))


def _follow(lifeline: Connection) -> None:
    """Passes the driver's signals on. After its death it stops this process: gently, and after a while at once."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            system.interrupt(lifeline.recv())
    system.interrupt(signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(143)


@contextlib.contextmanager
def output_to_log(job: Job) -> Iterator[None]:
    """While it lasts, standard output and error of this process go to the job's log file.

    They are dropped where there can be none, as on a full disk: what the job itself writes decides its outcome.
    """
    path = job.folder / f"{job.composed.hydra.job.name}.log"
    before = [os.dup(1), os.dup(2)]
    with _appended(path) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in zip((1, 2), before, strict=True):
            os.dup2(saved, number)
            os.close(saved)


def _appended(path: Path) -> BinaryIO:
    """The file *path*, open for writing at its end; one that keeps nothing where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError:
        return Path(os.devnull).open("ab")


def _hard(error: BaseException) -> Exception:
    """The error in place of one that would have ended the worker."""
    if isinstance(error, KeyboardInterrupt):  # what Ctrl-C is while nobody handles it
        return Interrupted("Stopped before it began.")
    if isinstance(error, OSError) and error.filename:  # Hydra makes the job's folder
        return ExperimentError(f"{error.filename} cannot be written: {error.strerror}.")
    return RuntimeError(f"{type(error).__name__}: {error}")


def _log_failure(done: JobReturn) -> None:
    """Writes the error into the job's log, and replaces one that cannot be sent."""
    raised = done._return_value
    log.error("The job failed.", exc_info=raised)
    try:
        cloudpickle.loads(cloudpickle.dumps(raised))
    except Exception:  # a class that cannot be sent
        done.return_value = RuntimeError("".join(traceback.format_exception_only(raised)).strip())
