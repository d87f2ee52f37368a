"""The driver's side of the workers of this machine: who gets what, what is tried again, what ends."""

import itertools
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
from hydra.core.utils import JobReturn, JobStatus

from mnist_exp import system
from mnist_exp.errors import Interrupted
from mnist_exp.sweep.display import Display
from mnist_exp.sweep.job import Job, JobDied
from mnist_exp.sweep.launching import Stop
from mnist_exp.sweep.local import pool as pools
from mnist_exp.sweep.local.pool import Capacity, Pool, Worker

OPTIONS = {"job_timeout": None, "retries": 0, "on_error": "continue", "max_failures": None}


class Process:
    """A worker's process that has ended, or was killed."""

    def __init__(self, exitcode: int = 0) -> None:
        self.exitcode, self.killed = exitcode, 0
        self.listens, self.lifeline = multiprocessing.Pipe(duplex=False)

    def join(self, seconds: float) -> None:
        """It has ended."""

    def kill(self) -> None:
        self.killed += 1


@pytest.fixture
def pool() -> Iterator[Pool]:
    handover: Any = SimpleNamespace(prepared=lambda job: job.number)
    made = Pool(dict(OPTIONS), handover, Capacity(2, 1, []), Display(9, set()), Stop())
    yield made
    made.close()


def jobs(*numbers: int) -> list[Job]:
    return [Job(number, [f"hidden={number}"], Path("sweep")) for number in numbers]


def worker(pool: Pool, *numbers: int, exitcode: int = 0) -> tuple[Worker, Connection]:
    """A worker of *pool* that has these jobs, and its end of the pipe."""
    ours, theirs = multiprocessing.Pipe()
    process = Process(exitcode)
    made = Worker(process, ours, process.lifeline, {})
    pool.workers.append(made)
    if numbers:
        pool.assign(made, jobs(*numbers))
        theirs.recv()
    return made, theirs


def returned(value: Any, status: JobStatus = JobStatus.COMPLETED) -> bytes:
    packed: bytes = cloudpickle.dumps(JobReturn(status=status, _return_value=value))
    return packed


def numbers(packs: list[list[Job]]) -> list[list[int]]:
    return [[job.number for job in pack] for pack in packs]


def test_a_worker_gets_its_pack_prepared(pool: Pool) -> None:
    pool.options["job_timeout"] = 10.0
    idle, theirs = worker(pool)
    pack = jobs(3, 4)
    before = pools.time.monotonic()
    pool.assign(idle, pack)
    assert cloudpickle.loads(theirs.recv_bytes()) == [3, 4]
    assert before + 20 <= idle.deadline <= pools.time.monotonic() + 20
    assert [job.tries for job in pack] == [1, 1]
    assert pool.display.status() == "0/9 done · 2 running"
    assert pool.display.now() == "hidden=3 · hidden=4"


def test_results_arrive_one_by_one(pool: Pool) -> None:
    pool.options["job_timeout"] = 10.0
    busy, theirs = worker(pool, 3, 4)
    theirs.send(("epoch", 3, 1, 2, {"val/accuracy": 0.5}))
    assert pool.listen(busy) == []
    assert "hidden=3 1/2 50.00 %" in pool.display.now()
    theirs.send(("done", 4, returned(0.25)))
    assert pool.listen(busy) == []
    assert [job.number for job in busy.jobs] == [3]
    assert busy.deadline < float("inf")
    theirs.send(("pruned", 3, "Pruned."))
    theirs.send(("done", 3, returned(0.5)))
    assert pool.listen(busy) == pool.listen(busy) == []
    assert (busy.jobs, busy.deadline) == ([], float("inf"))
    assert pool.display.status() == "2/9 done · 1 pruned · best val 25.00 % (hidden=4)"


@pytest.mark.parametrize(("retries", "again"), [(0, []), (1, [[3]]), (2, [[3]])])
def test_a_job_whose_process_died_is_tried_again_as_often_as_is_permitted(
    retries: int, again: list[list[int]], pool: Pool
) -> None:
    pool.options["retries"] = retries
    dead, theirs = worker(pool, 3, exitcode=-9)
    (job,) = dead.jobs
    theirs.close()
    assert numbers(pool.listen(dead)) == again
    assert pool.workers == []
    error = cloudpickle.loads(job.outcome)._return_value
    assert isinstance(error, JobDied)
    assert "killed by SIGKILL (out of memory?)" in str(error)
    assert pool.failures == (0 if again else 1)
    job.tries = retries + 1
    assert pool.on_result(job) == []


def test_a_pack_whose_process_died_runs_again_and_the_second_time_each_alone(pool: Pool) -> None:
    dead, theirs = worker(pool, 3, 4)
    pack = list(dead.jobs)
    theirs.close()
    assert numbers(pool.listen(dead)) == [[3, 4]]
    assert [(job.tries, job.deaths) for job in pack] == [(0, 1), (0, 1)]
    dead, theirs = worker(pool)
    pool.assign(dead, pack)
    theirs.close()
    assert numbers(pool.listen(dead)) == [[3], [4]]
    assert [(job.tries, job.deaths) for job in pack] == [(0, 2), (0, 2)]
    assert pool.failures == 0


def test_a_job_that_takes_too_long_is_killed_and_the_reason_said(pool: Pool) -> None:
    pool.options["job_timeout"] = 2.5
    hung, _ = worker(pool, 3)
    (job,) = hung.jobs
    hung.deadline = 0.0
    assert pool.ready() == [hung]
    assert pool.listen(hung) == []
    assert hung.process.killed == 1
    assert str(cloudpickle.loads(job.outcome)._return_value) == "It was still running after 2.5 s (job_timeout)."


def test_a_message_that_came_in_time_counts_after_the_deadline(pool: Pool) -> None:
    late, theirs = worker(pool, 3)
    late.deadline = 0.0
    theirs.send(("done", 3, returned(0.5)))
    assert pool.listen(late) == []
    assert late.process.killed == 0
    assert pool.display.done == 1


def test_the_user_stops_the_sweep(pool: Pool) -> None:
    busy, theirs = worker(pool, 3)
    idle, _ = worker(pool)
    (job,) = busy.jobs
    pool.stop.signal = signal.SIGTERM
    assert pool.stopping
    before = pools.time.monotonic()
    pool.ask_to_stop()
    assert busy.process.listens.recv() == signal.SIGINT
    assert not idle.process.listens.poll()
    assert before + pools.STOP_GRACE <= busy.deadline < float("inf") == idle.deadline
    pool.waiting.extend([jobs(5)])
    pool.hand_out()
    assert numbers(list(pool.waiting)) == [[5]]
    job.outcome = returned(Interrupted("Stopped."), JobStatus.FAILED)
    assert pool.on_result(job) == []
    assert pool.failures == 0, "it was stopped, and has not failed"
    busy.deadline = 0.0
    assert not theirs.closed
    pool.listen(busy)
    assert str(cloudpickle.loads(job.outcome)._return_value) == "It did not stop within 30 s."


def test_failures_end_a_sweep_where_that_is_wanted(pool: Pool) -> None:
    (job,) = jobs(3)
    job.outcome, job.tries = returned(ValueError("no luck"), JobStatus.FAILED), 1
    assert pool.on_result(job) == []
    assert (pool.failures, pool.stopping) == (1, False)
    pool.options["max_failures"] = 2
    assert not pool.stopping
    pool.on_result(job)
    assert pool.stopping
    pool.failures, pool.options = 1, {**OPTIONS, "on_error": "stop", "retries": 5}
    assert pool.stopping
    assert pool.on_result(job) == [], "nothing is tried again when the sweep stops"


@pytest.mark.parametrize(("error", "again"), [(JobDied("Killed."), True), (ValueError("no luck"), False)])
def test_a_trial_whose_worker_died_has_one_more_try(error: Exception, again: bool, pool: Pool) -> None:
    over: list[int] = []
    pool.source = SimpleNamespace(end=over.append, total=9, coming=0, fixed=set(), next=list)  # type: ignore[assignment]
    (job,) = jobs(3)
    job.outcome, job.tries = returned(error, JobStatus.FAILED), 1
    assert pool.on_result(job) == ([[job]] if again else [])
    assert over == ([] if again else [3])
    job.tries = 2
    assert pool.on_result(job) == []
    assert over[-1:] == [3]


def test_a_source_is_asked_for_as_many_jobs_as_there_are_free_workers(pool: Pool) -> None:
    coming = itertools.count(10)
    source: Any = SimpleNamespace(next=lambda: jobs(next(coming)), total=20, coming=7, fixed=set())
    pool.source, pool.slots = source, [{}, {}]
    worker(pool)
    worker(pool, 3)
    pool.draw()
    assert numbers(list(pool.waiting)) == [[10], [11], [12]]
    assert (pool.display.total, pool.display.coming) == (20, 7)
    assert set(pool.display.costs) == {10, 11, 12}
    pool.stop.signal = signal.SIGINT
    pool.waiting.clear()
    pool.draw()
    assert not pool.waiting


def test_close_kills_those_that_are_busy(pool: Pool) -> None:
    busy, _ = worker(pool, 3)
    idle, _ = worker(pool)
    pool.close()
    assert (busy.process.killed, idle.process.killed) == (1, 0)
    pool.workers.clear()  # the fixture closes it again


@pytest.mark.parametrize(
    ("capacity", "most", "slots", "threads"),
    [
        (Capacity(None, 1, []), 9, 4, 1),
        (Capacity(None, 1, []), 3, 3, 1),
        (Capacity(2, 1, []), 9, 2, 2),
        (Capacity(8, 1, []), 9, 8, 1),
        (Capacity(None, 1, [], total=1), 1, 1, 4),
        (Capacity(None, 1, [], total=4), 1, 1, 1),
        (Capacity(None, 2, ["0", "1"]), 9, 4, 1),
        (Capacity(3, 2, ["0", "1"]), 9, 3, 1),
        (Capacity(None, 2, ["0", "1"]), 1, 1, 4),
    ],
)
def test_workers_and_their_threads(
    capacity: Capacity, most: int, slots: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "cores", lambda: 4)
    assert len(capacity.slots(most)) == slots
    assert capacity.threads(most) == threads
    visible = [slot.get("CUDA_VISIBLE_DEVICES") for slot in capacity.slots(most)]
    assert visible == ([*capacity.gpus, *capacity.gpus][:slots] if capacity.gpus else [None] * slots)


def test_gpus_are_given_to_processes_that_start_afresh() -> None:
    assert pools.context(gpus=1).get_start_method() == "spawn"
    assert pools.context(gpus=0).get_start_method() in ("forkserver", "spawn")
