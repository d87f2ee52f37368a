"""A pool of worker processes that outlives anything its jobs do.

A job that raises, exits, is killed or hangs does not affect the others: its worker is replaced.
A job's config is composed when a worker is free for it, and its outcome stays pickled, so that a sweep of
thousands starts at once and does not fill the memory.
Jobs that can train together are given to a worker as one pack. When a pack's process dies, nobody knows which job
ended it. So the pack runs again from its last epochs, and after a second death each job alone. Neither uses up a
job's `retries`.
"""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Any, final

import cloudpickle
from hydra.core.utils import JobStatus

from mnist_exp import system
from mnist_exp.console.formats import seconds
from mnist_exp.errors import Interrupted
from mnist_exp.sweep.composing import Composer
from mnist_exp.sweep.display import Display
from mnist_exp.sweep.job import Job, JobDied, Source, died_of
from mnist_exp.sweep.launching import STOP_GRACE, Handover, Stop, conclude, drawn
from mnist_exp.sweep.local import worker

LOOK = 0.5  # seconds until a Ctrl-C is passed on, at most
LONGEST_FOLDER = 70  # bytes, for those below which multiprocessing makes a folder with a socket


@final
@dataclass(eq=False)
class Worker:
    """The driver's handle on a worker process."""

    process: Any
    pipe: Any
    lifeline: Any
    """Its closing tells the process that the driver is gone; a number, which signal it is to handle."""
    slot: dict[str, str]
    jobs: list[Job] = field(default_factory=list)
    """Its pack, without those that have an outcome."""
    gpu: str = ""
    """The GPU that its jobs ask for by number, now or last: it has memory there."""
    deadline: float = field(default=float("inf"))


@final
@dataclass(frozen=True)
class Capacity:
    """How many workers may run at once, and what each of them may use."""

    workers: int | None
    per_gpu: int
    gpus: list[str]
    """Those to share; none where jobs train on the CPU."""
    total: int = 0
    """Jobs of the sweep, with those that are done already."""
    numbered: bool = False
    """Whether jobs ask for GPUs by number, `cuda:N`: then each worker sees all of them."""
    pack: str | int = "off"
    """Which jobs may train together; see `packing.divide`."""

    def slots(self, most: int) -> list[dict[str, str]]:
        """One environment for each worker, *most* or fewer: its GPU if it is to see no other, else nothing."""
        if self.gpus:
            seen = [{} if self.numbered else {"CUDA_VISIBLE_DEVICES": g} for g in self.gpus]
            slots = seen * min(self.per_gpu, most)
        else:
            slots = [{}] * min(self.workers or system.cores(), most)
        return slots[: min(self.workers or len(slots), most)]

    def threads(self, most: int) -> int:
        """CPU threads for each worker, of which there are *most* at present."""
        return max(1, system.cores() // max(1, len(self.slots(max(most, self.total)))))


@final
@dataclass(eq=False)
class Pool:
    """Workers, the jobs they have, and the jobs that wait."""

    options: dict[str, Any]
    """Those of the launcher."""
    handover: Handover
    capacity: Capacity
    display: Display
    stop: Stop
    source: Source | None = None
    """Gives a pack to each worker that is free when all others are under way."""
    failures: int = 0
    asked: bool = False
    """Whether the workers were asked to stop."""
    workers: list[Worker] = field(default_factory=list)
    waiting: deque[list[Job]] = field(default_factory=deque)
    slots: list[dict[str, str]] = field(default_factory=list)
    """The environments of workers that may still be started."""

    def begin(self, packs: list[list[Job]]) -> None:
        """Hands out the first of *packs*."""
        self.waiting.extend(packs)
        most = max(len(packs), self.source.total if self.source else 0)
        self.slots = self.capacity.slots(most)
        self.context = context(gpus=len(self.capacity.gpus))
        self.threads = self.capacity.threads(most)
        self.draw()
        self.hand_out()

    def follow(self) -> None:
        """Returns when each job has an outcome, or the sweep was asked to stop."""
        while (self.waiting and not self.stopping) or any(w.jobs for w in self.workers):
            self.hand_out()
            if self.stop.signal and not self.asked:
                self.ask_to_stop()
            for worker_ in self.ready():
                self.waiting.extend(self.listen(worker_))
                if worker_ not in self.workers:
                    self.slots.append(worker_.slot)
            self.draw()

    def draw(self) -> None:
        """Adds packs of the source, if there is one, to those that wait, until there is one for each free worker."""
        if self.source and not self.stopping:
            free = len(self.slots) + sum(not w.jobs for w in self.workers)
            self.waiting.extend(drawn(self.source, free - len(self.waiting), self.display))

    def hand_out(self) -> None:
        """Gives the packs that wait to free workers."""
        while self.waiting and self.slots and not self.stopping:
            self.workers.append(self.start_worker(self.slots.pop()))
        for pack in [] if self.stopping else list(self.waiting):
            gpu, idle = self.gpu_of(pack), [w for w in self.workers if not w.jobs]
            busy = sum(w.gpu == gpu for w in self.workers if w.jobs)
            if idle and (not gpu or busy < self.capacity.per_gpu):
                self.waiting.remove(pack)
                to = min(idle, key=lambda w: (w.gpu != gpu, w.gpu != ""))  # one that was there, or nowhere yet
                to.gpu = gpu
                self.assign(to, pack)

    def gpu_of(self, pack: list[Job]) -> str:
        """The GPU that *pack* asks for by number; `cuda` is the first. Empty where workers need not be told apart."""
        if not self.capacity.numbered:
            return ""
        device = device_of(pack[0], self.handover.composer)
        return "cuda:0" if device in ("auto", "cuda") else device if device.startswith("cuda") else ""

    @property
    def stopping(self) -> bool:
        """Whether no further job is to be started."""
        limit = 1 if self.options["on_error"] == "stop" else self.options["max_failures"]
        return bool(self.stop.signal) or (limit is not None and self.failures >= limit)

    def start_worker(self, slot: dict[str, str]) -> Worker:
        ours, theirs = multiprocessing.Pipe()
        listens, lifeline = multiprocessing.Pipe(duplex=False)
        process = self.context.Process(  # type: ignore[attr-defined]
            target=worker.main, args=(theirs, listens, self.handover.common, self.threads, slot), daemon=False
        )
        with starting():  # the fork server may have died
            process.start()
        theirs.close()  # else its death would not close the pipe
        listens.close()
        return Worker(process, ours, lifeline, slot)

    def assign(self, to: Worker, pack: list[Job]) -> None:
        to.jobs, prepared = list(pack), [self.handover.prepared(job) for job in pack]
        limit = self.options["job_timeout"]
        to.deadline = time.monotonic() + limit * len(pack) if limit else float("inf")
        for job in pack:
            job.tries += 1
            self.display.started(job.number, job.overrides)
        with contextlib.suppress(OSError):  # it has died: `listen` will see that
            to.pipe.send_bytes(cloudpickle.dumps(prepared))

    def ask_to_stop(self) -> None:
        """Asks the workers that have jobs to finish their batch."""
        self.asked = True
        for w in self.workers:
            if w.jobs:
                w.deadline = time.monotonic() + STOP_GRACE
                with contextlib.suppress(OSError):  # it has died: `listen` will see that
                    w.lifeline.send(signal.SIGINT)

    def ready(self) -> list[Worker]:
        """The workers that have something to say, have died, or are out of time; does not wait for long."""
        soonest = min((w.deadline for w in self.workers), default=float("inf")) - time.monotonic()
        talking = wait([w.pipe for w in self.workers], timeout=min(LOOK, max(0.0, soonest)))
        self.display.refresh()
        return [w for w in self.workers if w.pipe in talking or time.monotonic() > w.deadline]

    def listen(self, to: Worker) -> list[list[Job]]:
        """Receives one message of a worker, or removes a dead one; returns the packs that have to run again."""
        if time.monotonic() > to.deadline and not to.pipe.poll():
            to.process.kill()
            if self.asked:
                return self.on_death(to, f"It did not stop within {seconds(STOP_GRACE)}.")
            limit = seconds(self.options["job_timeout"])
            return self.on_death(to, f"It was still running after {limit} (job_timeout).")
        try:
            kind, number, *rest = to.pipe.recv()
        except (EOFError, OSError):
            return self.on_death(to)
        if kind != "done":
            (self.display.epoch if kind == "epoch" else self.display.pruned)(number, *rest)
            if kind == "pruned" and self.source:
                self.source.end(number)  # the rest of its pack may train for long
            return []
        job = next(job for job in to.jobs if job.number == number)
        (job.outcome,) = rest
        to.jobs.remove(job)
        if not to.jobs:
            to.deadline = float("inf")
        return self.on_result(job)

    def on_death(self, dead: Worker, why: str = "") -> list[list[Job]]:
        """Removes a worker that has died; its job failed, or those of its pack go on, the second time alone."""
        dead.process.join(5)
        dead.pipe.close()
        dead.lifeline.close()
        self.workers.remove(dead)
        why = why or died_of(dead.process.exitcode)
        for job in dead.jobs:
            job.died(why)
        if len(dead.jobs) == 1 or self.stopping:
            return [pack for job in dead.jobs for pack in self.on_result(job)]
        for job in dead.jobs:
            job.tries, job.deaths = job.tries - 1, job.deaths + 1
            self.display.failed(job.number, job.overrides, f"{why} It was in a pack", again=True)
        if any(job.deaths > 1 for job in dead.jobs):
            return [[job] for job in dead.jobs]
        return [dead.jobs]

    def on_result(self, job: Job) -> list[list[Job]]:
        """Counts and shows the outcome of *job*; returns it as a pack if it is tried again."""
        returned = cloudpickle.loads(job.outcome)
        failed = returned.status != JobStatus.COMPLETED
        # A search's trial gets one more try if its worker was killed or stopped by a signal, even with retries=0.
        died = self.source is not None and isinstance(returned._return_value, (Interrupted, JobDied))
        again = failed and not self.stopping and job.tries <= max(self.options["retries"], died)
        self.failures += failed and not (again or self.stop.signal)
        conclude(job, returned, again, self.display, self.stop, self.source)
        return [[job]] if again else []

    def close(self) -> None:
        """Ends all workers: idle ones by closing their pipes, busy ones by force."""
        for w in self.workers:
            w.pipe.close()
            if w.jobs:
                w.process.kill()
        for w in self.workers:
            w.process.join(5)
            w.lifeline.close()


def device_of(job: Job, composer: Composer) -> str:
    return job.parsed.device if job.parsed else str(composer.own(job.overrides).get("device", "cpu"))


def context(gpus: int) -> BaseContext:
    """How workers start: as the system has it, but afresh where each needs its own GPU."""
    return multiprocessing.get_context("spawn" if gpus else system.start_method())


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """While a process of multiprocessing starts: it imports nothing from this folder, and finds a path for its socket.

    Python runs it with `-c`, which would look into the working folder first, where a `signal.py` may lie. The path of a
    socket has at most 107 bytes, so a long $TMPDIR is none for it.
    """
    own, folder = {"PYTHONSAFEPATH": "1", "PYTHONPATH": system.python_path()}, tempfile.tempdir
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    if system.start_method() == "forkserver" and len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
        tempfile.tempdir = "/tmp"  # multiprocessing makes a folder of its own there, for this process
    try:
        yield
    finally:
        tempfile.tempdir = folder
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
