"""A worker process of the local launcher: gets jobs, runs them one pack after another, says how they go.

Torch is imported once for all its jobs. Whatever a job prints goes to the job's own log. The driver may be
killed at any time: then the lifeline breaks and the worker stops as after SIGTERM.
"""

import contextlib
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
from typing import TYPE_CHECKING, Any, final

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from omegaconf import OmegaConf

from mnist_exp.config import Config, parse
from mnist_exp.config.overrides import key_of
from mnist_exp.engine.events import Control, EpochEnd, LaneEnd, Observer
from mnist_exp.errors import Interrupted
from mnist_exp.run import one as single
from mnist_exp.search import reporter

if TYPE_CHECKING:
    from mnist_exp.run.session import Result, Run, Task

log = logging.getLogger(__name__)

GRACE = 10.0  # seconds between the driver's death and the worker's


Listen = Callable[[int, "Run", Control], Sequence[Observer]]
"""Who hears the events of the job with that number; called when it is about to train."""


@final
class Host:
    """What a job may use of the process that runs it for a sweep, whose driver looks after MLflow.

    Args:
        threads: CPU threads for each job.
    """

    def __init__(self, threads: int, listen: Listen) -> None:
        self.threads, self.listen = threads, listen
        self.sweep = ""
        self.numbers: dict[Path, int] = {}

    def train(self, config: Config) -> float:
        """Trains one job; returns the objective."""
        (outcome,) = self.train_together([self.task(config)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome.objective

    def task(self, config: Config) -> "Task":
        """The job that Hydra has set up just now, ready to train."""
        from mnist_exp.run.session import Task

        hydra = HydraConfig.get()
        config.threads = config.threads or self.threads
        folder, self.sweep = Path(hydra.runtime.output_dir), Path(hydra.sweep.dir).name
        self.numbers[folder] = hydra.job.num
        return Task(config, folder, typed(hydra))

    def train_together(self, tasks: "Sequence[Task]") -> "list[Result | Exception]":
        """As `run.run_many`."""
        from mnist_exp.run import session as run

        return run.run_many(tasks, self.watch, sweep=self.sweep, extras=False)

    def watch(self, about: "Run", control: Control) -> Sequence[Observer]:
        listeners = self.listen(self.numbers[about.folder], about, control)
        return [Diary(about.folder / "train.log", about.config.epochs), *listeners, *reporter.watch(about, control)]


def typed(hydra: Any) -> list[str]:
    """The overrides of a job that say what it runs, not where."""
    return [o for o in hydra.overrides.task if key_of(o) != "cluster"]


def folder_of(config: Any) -> Path:
    """Where the job with that composed config runs."""
    return Path(str(config.hydra.sweep.dir)) / str(OmegaConf.select(config, "hydra.sweep.subdir"))


def lost(own: Config, config: Any, why: str) -> None:
    """Has the ledger of a job whose process has died say why, also where it had not begun.

    Args:
        own: What it was to train.
        config: As Hydra composed it.
    """
    from mnist_exp.run import session as run

    hydra = config.hydra
    run.lost(run.Task(own, folder_of(config), typed(hydra)), Path(str(hydra.sweep.dir)).name, why)


@final
class Diary(Observer):
    """Writes epochs and end of one job into its own log, whoever's has what the process prints."""

    def __init__(self, path: Path, epochs: int) -> None:
        self.path, self.epochs = path, epochs

    def on_epoch(self, event: EpochEnd) -> None:
        self.write(single.epoch_line(event, self.epochs))

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
        self.tell("epoch", event.epoch, self.epochs, event.metrics)

    def on_end(self, event: LaneEnd) -> None:
        if event.state == "pruned":  # the rest the job's return says
            self.tell("pruned", event.reason)

    def tell(self, kind: str, *what: object) -> None:
        """Sends one word. If the driver is gone, that is no fault of the job: the lifeline will stop it."""
        with contextlib.suppress(OSError):
            self.pipe.send((kind, self.number, *what))


_host: Host | None = None


def packable(task_function: Any) -> Any:
    """Marks a task function whose jobs may train together, since it does nothing but `Host.train`."""
    task_function.packable = True
    return task_function


def host() -> Host | None:
    """The worker that this process is, if it is one."""
    return _host


def become(host: Host) -> None:
    """From now on the jobs of this process are those of *host*."""
    global _host
    _host = host


def main(pipe: Connection, lifeline: Connection, common: bytes, threads: int, environment: dict[str, str]) -> None:
    """The process's main: runs each pack of jobs that comes through *pipe* until it closes.

    Args:
        lifeline: Readable only when the driver is gone.
        common: What all jobs share, pickled: Hydra's context, the task function, Hydra's globals.
        threads: CPU threads for each job.
        environment: Set before anything looks at it, such as CUDA_VISIBLE_DEVICES.
    """
    os.setpgid(0, 0)  # Ctrl-C in the terminal is for the driver, which then tells us
    os.environ.update(environment)
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    hydra_context, task_function, state = cloudpickle.loads(common)
    Singleton.set_state(state)
    setup_globals()
    here = Host(threads, lambda number, about, control: [Forward(pipe, number, about.config.epochs)])
    become(here)
    while True:
        try:
            configs = cloudpickle.loads(pipe.recv_bytes())
        except (EOFError, OSError, KeyboardInterrupt):  # the driver is gone, or told to stop before the job began
            return
        if len(configs) == 1:
            with output_to_log(configs[0]):
                ends = [run_one(hydra_context, task_function, configs[0])]
        else:
            ends = _run_pack(hydra_context, here, configs)
        for config, done in zip(configs, ends, strict=True):
            with contextlib.suppress(OSError):  # the driver is gone
                pipe.send(("done", config.hydra.job.num, cloudpickle.dumps(done)))


def _watch(lifeline: Connection) -> None:
    """Waits for the driver's death, then stops this process: gently, and after a while at once."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(143)


@contextlib.contextmanager
def output_to_log(config: Any) -> Iterator[None]:
    """While it lasts, standard output and error of this process go to the job's log file."""
    path = folder_of(config) / f"{config.hydra.job.name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = [os.dup(1), os.dup(2)]
    with path.open("ab") as file:
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


def run_one(hydra_context: Any, task_function: Any, config: Any) -> JobReturn:
    """Hydra's `run_job`, except that nothing a job does ends the worker, and its error survives pickling."""
    try:
        done: JobReturn = run_job(
            hydra_context=hydra_context,
            task_function=task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except BaseException as error:  # SystemExit, and what Hydra itself raises
        log.exception("The job ended the hard way.")
        return _failed(config, _hard(error))
    if done.status == JobStatus.FAILED:
        _log_failure(done)
    return done


def _run_pack(hydra_context: Any, host: Host, configs: list[Any]) -> list[JobReturn]:
    """Sets up each job as Hydra does, then trains all of them together, unless Ctrl-C came meanwhile.

    What the process prints then is in the log of the first.
    """
    ends: list[JobReturn] = []
    names, stop = ", ".join(f"#{config.hydra.job.num}" for config in configs), None
    for config in configs:
        if stop:
            ends.append(_failed(config, stop))
            continue
        with output_to_log(config):
            ends.append(run_one(hydra_context, lambda cfg: host.task(parse(cfg)), config))
            log.info("Trained in one process: %s; what it prints is in the log of the first.", names)
        if isinstance(said := ends[-1]._return_value, Interrupted):
            stop = said
    ready = [done for done in ends if done.status == JobStatus.COMPLETED]
    outcomes = [stop] * len(ready) if stop else _train_pack(host, [done.return_value for done in ready], configs[0])
    for done, outcome in zip(ready, outcomes, strict=True):
        if not isinstance(outcome, Exception):
            done.return_value = outcome.objective
            continue
        done.status, done.return_value = JobStatus.FAILED, outcome
        with output_to_log(done.hydra_cfg):
            configure_log(done.hydra_cfg.hydra.job_logging, done.hydra_cfg.hydra.verbose)
            _log_failure(done)
    return ends


def _train_pack(host: Host, tasks: "list[Task]", first: Any) -> "list[Result | Exception]":
    """Trains *tasks*; what the process prints is in the log of the job with the composed config *first*."""
    with output_to_log(first):
        configure_log(first.hydra.job_logging, first.hydra.verbose)
        try:
            return host.train_together(tasks)
        except BaseException as error:
            log.exception("The jobs ended the hard way.")
            return [_hard(error)] * len(tasks)


def _failed(config: Any, error: Exception) -> JobReturn:
    """What the driver is told of a job that has not said anything itself."""
    done = JobReturn(overrides=list(config.hydra.overrides.task), status=JobStatus.FAILED)
    done.return_value = error
    return done


def _hard(error: BaseException) -> Exception:
    """What the driver is told of something that would have ended the worker."""
    if isinstance(error, KeyboardInterrupt):  # what Ctrl-C is while nobody handles it
        return Interrupted("Stopped before it began.")
    return RuntimeError(f"{type(error).__name__}: {error}")


def _log_failure(done: JobReturn) -> None:
    """Writes the error into the job's log, and sees to it that it can be sent."""
    raised = done._return_value
    log.error("The job failed.", exc_info=raised)
    try:
        cloudpickle.loads(cloudpickle.dumps(raised))
    except Exception:  # a class that cannot be sent
        done.return_value = RuntimeError("".join(traceback.format_exception_only(raised)).strip())
