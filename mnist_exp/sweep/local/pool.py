"""The local launcher: a pool of worker processes that outlives anything its jobs do.

A job that raises, exits, is killed or hangs costs only itself: its worker is replaced and the others go on.
A job's config is composed when a worker is free for it, and what came of it stays pickled, so that a sweep of
thousands starts at once and does not fill the memory.
Jobs that can train together are given to a worker as one pack. When its process dies, nobody knows which of
them it was: they go on together from their last epochs, and if it dies again, each in a process of its own. That
does not count as one of their `retries`.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from omegaconf import DictConfig, open_dict

from mnist_exp.config import Config, parse
from mnist_exp.errors import ConfigError, ExperimentError, Interrupted, first_line
from mnist_exp.sweep.composing import Composer
from mnist_exp.sweep.display import Display
from mnist_exp.sweep.local import worker
from mnist_exp.sweep.stop import STOP_GRACE, Stop

if TYPE_CHECKING:
    from mnist_exp.sweep.cluster import driver as remote

log = logging.getLogger(__name__)

LOOK = 0.5  # seconds until a Ctrl-C is passed on, at most


class JobDied(RuntimeError):
    """A job's process ended without a result."""


@final
@dataclass
class Job:
    """One job and what is known of it."""

    number: int
    overrides: list[str]
    own: Config | None = None
    """Its config without Hydra's part; only of jobs that train, and not of another task function's."""
    pack: str = ""
    """The pack that it began in, if an earlier attempt was interrupted."""
    config: DictConfig | None = None
    """As Hydra composed it; only while it runs."""
    tries: int = 0
    deaths: int = 0
    """Times that its process died while it was in a pack."""
    outcome: bytes = b""
    """Its JobReturn, pickled."""


@final
class Returns(Sequence[JobReturn]):
    """What became of each job: what Hydra wants of a launcher, unpickled only where it is looked at."""

    def __init__(self, outcomes: Sequence[bytes]) -> None:
        self.outcomes = outcomes

    def __len__(self) -> int:
        return len(self.outcomes)

    def __getitem__(self, i: Any) -> Any:
        chosen = self.outcomes[i]
        return Returns(chosen) if isinstance(i, slice) else cloudpickle.loads(chosen)


@final
@dataclass(eq=False)
class Worker:
    """The driver's handle on a worker process."""

    process: Any
    pipe: Connection
    slot: dict[str, str]
    jobs: list[Job] = field(default_factory=list)
    """Its pack, without those that have an outcome."""
    deadline: float = field(default=float("inf"))


class Source(Protocol):
    """Jobs that are not known beforehand: those of a search, which depend on how others went."""

    @property
    def total(self) -> int:
        """How many there will be, by what is known now."""
        ...

    @property
    def coming(self) -> int:
        """How many of these are still to be given."""
        ...

    @property
    def fixed(self) -> set[str]:
        """The overrides that all of them share."""
        ...

    def next(self) -> Any:
        """The next one, with its `number`, `overrides` and `config`; None while there is none."""
        ...

    def end(self, number: int) -> None:
        """That job is over, for good."""
        ...


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_early() -> None:
    """Begins to load torch for the workers in the background: they are forked from there, loaded and ready."""
    if _context(gpus=0).get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.set_forkserver_preload(["mnist_exp.sweep.local.preload"])
        forkserver.ensure_running()


def launch(
    launcher: Any,
    jobs: Sequence[Job],
    source: Source | None = None,
    total: int = 0,
    aside: Callable[[], object] | None = None,
) -> Returns:
    """Runs every job; returns what became of each, in order.

    Args:
        total: Jobs of the sweep, with those that are done already: the cores are shared as if all were to run, because
            the number of threads decides the last bits.
        source: Gives a job to each worker that is free when *jobs* are all under way; they are not returned.
        aside: Called when the first jobs are under way; should return at once.

    Raises:
        ConfigError: an option of the launcher is out of range.
        HydraException, OmegaConfBaseException: an override of some job does not fit; none was started.
        Interrupted: Ctrl-C or SIGTERM; what was running has saved its epochs.
    """
    setup_globals()
    configure_log(launcher.config.hydra.hydra_logging, launcher.config.hydra.verbose)
    options = check(launcher.options)
    composer = Composer(launcher.hydra_context.config_loader, launcher.config)
    Path(str(launcher.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    common = cloudpickle.dumps((launcher.hydra_context, launcher.task_function, Singleton.get_state()))
    fixed = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    fixed |= source.fixed if source else set()
    gpus = gpus_for(jobs, composer)
    with Display(len(jobs), fixed) as display, Stop() as stop:
        pool = Pool(options, common, display, stop, composer, gpus, source, total, aside)
        packs = packed(launcher, jobs, composer, workers=len(pool.slots(len(jobs))), gpu=bool(gpus))
        display.costs |= costs(jobs)
        try:
            pool.run(packs)
        finally:
            pool.close()
    never = ExperimentError("It was not started: the sweep stopped before.")
    return Returns([job.outcome or failed(job, never) for job in jobs])


def check(options: dict[str, Any]) -> dict[str, Any]:
    """The launcher's options, each in its range.

    Raises:
        ConfigError: one is not.
    """
    rules: dict[str, Callable[[Any], bool]] = {
        "workers": lambda v: v is None or v >= 1,
        "per_gpu": lambda v: v >= 1,
        "pack": lambda v: v in ("auto", "off", False) or (isinstance(v, int) and v >= 1),
        "job_timeout": lambda v: v is None or v > 0,
        "retries": lambda v: v >= 0,
        "on_error": lambda v: v in ("continue", "stop"),
        "max_failures": lambda v: v is None or v >= 1,
    }
    words = {
        "on_error": "continue or stop",
        "pack": "auto, off, or 1 or more",
        "retries": "0 or more",
        "job_timeout": "a number > 0 or null",
    }
    for key, holds in rules.items():
        if not holds(options[key]):
            rule = words.get(key, "1 or more" + ("" if key == "per_gpu" else ", or null"))
            raise ConfigError(f"hydra.launcher.{key} must be {rule}, but got {options[key]!r}.")
    return options


def packed(launcher: Any, jobs: Sequence[Job], composer: Composer, workers: int, gpu: bool) -> list[list[Job]]:
    """The jobs in the packs that they are given out in, the longest first; other task functions' as they come.

    One by one where jobs would notice: with callbacks (but the guard, which looks at the sweep), or an environment or a
    working directory of their own.
    """
    if not getattr(launcher.task_function, "packable", False):
        return [[job] for job in jobs]
    from mnist_exp.sweep import packing as pack  # torch

    hydra, option = launcher.config.hydra, launcher.options["pack"]
    if hydra.callbacks.keys() - {"guard"} or hydra.job.env_set or hydra.job.chdir:
        option = "off"
    configs = []
    for job in jobs:
        job.own = job.own or parse(composer.own(job.overrides))
        configs.append(job.own)
    packs = pack.divide(configs, max(1, workers), option, gpu, before=[job.pack for job in jobs])
    return [[jobs[i] for i in positions] for positions in packs]


def costs(jobs: "Sequence[Job | remote.Job]") -> dict[int, float]:
    """About how long each of *jobs* trains, by its number; all the same for another task function's."""
    configs = [job.own for job in jobs if job.own]
    if len(configs) < len(jobs):
        return {job.number: 1.0 for job in jobs}
    from mnist_exp.sweep import packing as pack  # torch

    return dict(zip((job.number for job in jobs), pack.costs(configs), strict=True))


def failed(job: Job, error: BaseException) -> bytes:
    """What Hydra is told of a job that left no word of its own."""
    done = JobReturn(overrides=job.overrides, cfg=job.config, status=JobStatus.FAILED)
    done.return_value = error
    pickled: bytes = cloudpickle.dumps(done)
    return pickled


@final
class Pool:
    """Workers, the jobs they have, and the jobs that wait."""

    def __init__(
        self,
        options: dict[str, Any],
        common: bytes,
        display: Display,
        stop: Stop,
        composer: Composer,
        gpus: list[str],
        source: Source | None = None,
        total: int = 0,
        aside: Callable[[], object] | None = None,
    ) -> None:
        self.options, self.common, self.display, self.stop = options, common, display, stop
        self.composer, self.gpus, self.source, self.total, self.aside = composer, gpus, source, total, aside
        self.failures = 0
        self.told = False
        """Whether the workers know that they are to stop."""
        self.workers: list[Worker] = []
        self.lifeline, self.our_end = multiprocessing.Pipe(duplex=False)

    def run(self, packs: list[list[Job]]) -> None:
        """Runs all jobs of *packs* until each has an outcome, or the sweep is told to stop."""
        waiting = deque(packs)
        most = max(len(packs), self.source.total if self.source else 0)
        slots = self.slots(most)
        self.context = _context(gpus=sum(bool(s) for s in slots))
        self.threads = self.share(most)
        self.draw(waiting, len(slots))
        while (waiting and not self.stopping) or any(w.jobs for w in self.workers):
            while waiting and slots and not self.stopping:
                self.workers.append(self.hire(slots.pop()))
            for idle in [w for w in self.workers if not w.jobs]:
                if waiting and not self.stopping:
                    self.assign(idle, waiting.popleft())
            if self.aside:
                self.aside()
                self.aside = None
            if self.stop.signal and not self.told:
                self.tell()
            for worker_ in self.ready():
                waiting.extend(self.listen(worker_))
                if worker_ not in self.workers:
                    slots.append(worker_.slot)
            self.draw(waiting, len(slots) + sum(not w.jobs for w in self.workers))

    def draw(self, waiting: deque[list[Job]], free: int) -> None:
        """Adds jobs of the source, if there is one, to those that wait, until there is one for each free worker."""
        if self.source is None or self.stopping:
            return
        while len(waiting) < free and (point := self.source.next()):
            job = Job(point.number, point.overrides, point.config)
            waiting.append([job])
            self.display.costs |= costs([job])
        self.display.total, self.display.coming = self.source.total, self.source.coming

    def slots(self, most: int) -> list[dict[str, str]]:
        """One environment for each worker, *most* or fewer: a GPU's number where GPUs are used, else nothing."""
        wanted = self.options["workers"]
        if self.gpus:
            slots = [{"CUDA_VISIBLE_DEVICES": g} for _ in range(min(self.options["per_gpu"], most)) for g in self.gpus]
        else:
            slots = [{}] * min(wanted or cores(), most)
        return slots[: min(wanted or len(slots), most)]

    def share(self, most: int) -> int:
        """CPU threads for each worker, of which there are *most* at present."""
        return max(1, cores() // max(1, len(self.slots(max(most, self.total)))))

    @property
    def stopping(self) -> bool:
        """Whether no further job is to be started."""
        limit = 1 if self.options["on_error"] == "stop" else self.options["max_failures"]
        return bool(self.stop.signal) or (limit is not None and self.failures >= limit)

    def hire(self, slot: dict[str, str]) -> Worker:
        """A new worker process."""
        ours, theirs = multiprocessing.Pipe()
        process = self.context.Process(  # type: ignore[attr-defined]
            target=worker.main, args=(theirs, self.lifeline, self.common, self.threads, slot), daemon=False
        )
        process.start()
        theirs.close()  # else its death would not close the pipe
        return Worker(process, ours, slot)

    def assign(self, to: Worker, pack: list[Job]) -> None:
        """Gives *pack* to an idle worker."""
        to.jobs = list(pack)
        limit = self.options["job_timeout"]
        to.deadline = time.monotonic() + limit * len(pack) if limit else float("inf")
        for job in pack:
            job.tries += 1
            job.config = self.compose(job)
            self.display.started(job.number, job.overrides)
        with contextlib.suppress(OSError):  # it has died: `listen` will see that
            to.pipe.send_bytes(cloudpickle.dumps([job.config for job in pack]))

    def compose(self, job: Job) -> DictConfig:
        """The whole config of *job*, with its number."""
        config = self.composer.job(job.overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = f"{config.hydra.job.name}_{job.number}", job.number
        return config

    def tell(self) -> None:
        """Asks the workers that have jobs to finish their batch."""
        self.told = True
        self.display.stopping()
        for w in self.workers:
            if w.jobs:
                w.deadline = time.monotonic() + STOP_GRACE
                with contextlib.suppress(ProcessLookupError):  # it has died: `listen` will see that
                    os.kill(w.process.pid, signal.SIGINT)

    def ready(self) -> list[Worker]:
        """The workers that have something to say, have died, or are out of time; does not wait for long."""
        soonest = min((w.deadline for w in self.workers), default=float("inf")) - time.monotonic()
        talking = wait([w.pipe for w in self.workers], timeout=min(LOOK, max(0.0, soonest)))
        self.display.refresh()
        return [w for w in self.workers if w.pipe in talking or time.monotonic() > w.deadline]

    def listen(self, to: Worker) -> list[list[Job]]:
        """Hears one worker, and forgets a dead one; returns the packs that have to run again."""
        if time.monotonic() > to.deadline and not to.pipe.poll():
            to.process.kill()
            return self.bury(to, self.overdue())
        try:
            kind, number, *rest = to.pipe.recv()
        except (EOFError, OSError):
            return self.bury(to, "")
        if kind == "epoch":
            self.display.epoch(number, *rest)
            return []
        if kind == "pruned":
            self.display.pruned(number, *rest)
            return []
        assert kind == "done"
        job = next(job for job in to.jobs if job.number == number)
        (job.outcome,) = rest
        to.jobs.remove(job)
        if not to.jobs:
            to.deadline = float("inf")
        return self.judge(job)

    def overdue(self) -> str:
        """Why a worker was killed that was out of time."""
        if self.told:
            return f"It did not stop within {STOP_GRACE:g} s."
        return f"It was still running after {self.options['job_timeout']:g} s (job_timeout)."

    def bury(self, dead: Worker, reason: str) -> list[list[Job]]:
        """Forgets a worker that has died; its job failed, or those of its pack go on, the second time alone."""
        dead.process.join(5)
        dead.pipe.close()
        self.workers.remove(dead)
        why = reason or died_of(dead.process.exitcode)
        for job in dead.jobs:
            if job.own:
                worker.lost(job.own, job.config, why)
            job.outcome = failed(job, JobDied(why))
        if len(dead.jobs) == 1 or self.stopping:
            return [pack for job in dead.jobs for pack in self.judge(job)]
        for job in dead.jobs:
            job.tries, job.deaths = job.tries - 1, job.deaths + 1
            self.display.failed(job.number, job.overrides, f"{why} It was in a pack", again=True)
        if any(job.deaths > 1 for job in dead.jobs):
            return [[job] for job in dead.jobs]
        return [dead.jobs]

    def judge(self, job: Job) -> list[list[Job]]:
        """Counts and shows what became of *job*; returns it as a pack if it is tried again."""
        done, job.config = cloudpickle.loads(job.outcome), None
        error, again = done._return_value, False
        if done.status == JobStatus.COMPLETED:
            self.display.finished(job.number, job.overrides, done.return_value)
        elif isinstance(error, (Interrupted, JobDied)) and self.stop.signal:  # whoever heard of it first
            self.display.stopped(job.number)
            return []
        else:
            # A search loses no trial because a worker was killed, or told to stop by somebody else.
            died = self.source is not None and isinstance(error, (Interrupted, JobDied))
            again = not self.stopping and job.tries <= max(self.options["retries"], died)
            self.failures += not again
            self.display.failed(job.number, job.overrides, reason(error), again)
        if self.source and not again:
            self.source.end(job.number)
        return [[job]] if again else []

    def close(self) -> None:
        """Ends all workers: idle ones by closing their pipes, busy ones by force."""
        for w in self.workers:
            w.pipe.close()
            if w.jobs:
                w.process.kill()
        for w in self.workers:
            w.process.join(5)
        self.our_end.close()
        self.lifeline.close()


def died_of(exitcode: int | None) -> str:
    """In words, how a process ended that left no result."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        guess = " (out of memory?)" if name == "SIGKILL" else ""
        return f"Its process was killed by {name}{guess}."
    return f"Its process ended with exit code {exitcode} and left no result."


def reason(error: BaseException) -> str:
    """Why a job failed, in one line."""
    text = first_line(error)
    return text if isinstance(error, (ExperimentError, JobDied)) else f"{type(error).__name__}: {text}"


def gpus_for(jobs: Sequence[Job], composer: Composer) -> list[str]:
    """The GPUs to share among *jobs*; none where they train on the CPU, or ask for one GPU by number."""
    devices = {job.own.device if job.own else composer.own(job.overrides).get("device", "cpu") for job in jobs}
    if not devices & {"auto", "cuda"}:
        return []
    import torch

    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # CUDA uses those before the first one that does not exist
    named = map(str, range(usable)) if visible is None else visible.split(",")
    return [name.strip() for name in named][:usable]


def _context(gpus: int) -> BaseContext:
    """How workers start: forked from a server that has loaded torch, or afresh where each needs its own GPU."""
    fork = "forkserver" in multiprocessing.get_all_start_methods() and not gpus
    return multiprocessing.get_context("forkserver" if fork and sys.platform == "linux" else "spawn")
