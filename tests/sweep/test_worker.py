"""What a worker process does with its jobs, in this process."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from handovers import TRAIN, handed_over
from hydra.core.utils import JobStatus
from hydra.types import TaskFunction
from samples import TINY

from mnist_exp import system
from mnist_exp.disk import ledger
from mnist_exp.disk.layout import State
from mnist_exp.engine.events import Control, Observer
from mnist_exp.errors import Interrupted
from mnist_exp.run.session import Run
from mnist_exp.sweep.job import Job, JobDied, died_of, reason
from mnist_exp.sweep.local import worker
from mnist_exp.sweep.local.worker import Forward, JobLog, Runner

Ran = Callable[..., list[Any]]


@pytest.fixture
def ran() -> Ran:
    """`ran([["hidden=8"]])`: what a worker returns for a pack of such jobs."""

    def work(points: list[list[str]], task: TaskFunction = TRAIN, **options: Any) -> list[Any]:
        common, jobs = handed_over(points, task)
        return Runner(common, 1, **options).run(jobs)

    return work


def log_of(number: int) -> str:
    return Path("sweep", str(number), "train.log").read_text()


def test_a_job_trains_in_its_folder_and_returns_its_objective(ran: Ran) -> None:
    seen: list[int] = []

    def listen(job: Job, about: Run, control: Control) -> list[Observer]:
        seen.append(job.number)
        return []

    (done,) = ran([["hidden=8", "epochs=1"]], listen=listen)
    entry = ledger.read(Path("sweep/0"))
    assert done.status == JobStatus.COMPLETED
    assert done.return_value == entry.objective
    assert (entry.state, entry.sweep, entry.threads) == (State.FINISHED, "sweep", 1)
    assert entry.overrides == [*TINY, "hidden=8", "epochs=1"]
    assert seen == [0]
    assert "Epoch 1/1, Train Loss" in log_of(0)
    assert "The run has finished." in log_of(0)
    assert "Trained in one process" not in log_of(0)


def test_the_jobs_of_a_pack_train_together_each_with_its_log(ran: Ran) -> None:
    done = ran([["lr=1e-3"], ["lr=2e-3"]])
    assert [each.status for each in done] == [JobStatus.COMPLETED] * 2
    for number, each in enumerate(done):
        assert each.return_value == ledger.read(Path("sweep", str(number))).objective
        assert log_of(number).count("Epoch 2/2") == 1
        assert "Trained in one process: #0, #1;" in log_of(number)


def test_one_that_diverges_fails_and_its_neighbour_does_not(ran: Ran) -> None:
    good, bad = ran([["lr=0.01", "optimizer=sgd"], ["lr=1e38", "optimizer=sgd"]])
    assert (bad.status, good.status) == (JobStatus.FAILED, JobStatus.COMPLETED)
    assert "The loss is not finite" in str(bad._return_value)
    assert "The job failed." in log_of(1)
    assert "The job failed." not in log_of(0)
    assert ledger.read(Path("sweep/0")).state == State.FINISHED


class NotSent(Exception):
    """An error that pickle cannot restore."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("It cannot be sent.")


ERRORS: dict[str, Callable[[], BaseException]] = {
    "value": lambda: ValueError("no luck"),
    "exit": lambda: SystemExit(3),
    "stop": KeyboardInterrupt,
    "own": lambda: NotSent(1, 2),
}


def fail(kind: str) -> None:
    os.write(1, b"what the process prints\n")
    raise ERRORS[kind]()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "becomes", "text"),
    [
        ("value", ValueError, "no luck"),
        ("exit", RuntimeError, "SystemExit: 3"),
        ("stop", Interrupted, "Stopped before it began."),
        ("own", RuntimeError, "It cannot be sent."),
    ],
)
def test_nothing_that_a_job_raises_ends_the_worker(kind: str, becomes: type, text: str, ran: Ran) -> None:
    (done,) = ran([["hidden=8"]], task=lambda cfg: fail(kind))
    assert done.status == JobStatus.FAILED
    assert type(done._return_value) is becomes
    assert text in str(done._return_value)
    assert "what the process prints" in log_of(0)


def test_a_stop_while_a_pack_is_set_up_stops_all_of_it(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(self: Runner, job: Job, cfg: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, "_task", stopped)
    done = ran([["hidden=8"], ["hidden=16"]])
    assert [type(each._return_value) for each in done] == [Interrupted] * 2


def test_output_goes_to_the_log_and_then_back(capfd: pytest.CaptureFixture[str]) -> None:
    job = Job(3, [], Path("sweep"))
    job.composed = SimpleNamespace(hydra=SimpleNamespace(job=SimpleNamespace(name="train")))  # type: ignore[assignment]
    with worker.output_to_log(job):
        os.write(1, b"one\n")
        os.write(2, b"two\n")
    os.write(1, b"three\n")
    assert log_of(3) == "one\ntwo\n"
    assert capfd.readouterr() == ("three\n", "")


def test_the_end_of_a_run_is_forwarded_where_it_was_pruned() -> None:
    ours, theirs = multiprocessing.Pipe()
    forward = Forward(theirs, 7, 4)
    forward.on_epoch(SimpleNamespace(epoch=2, metrics={"val/accuracy": 0.5}))  # type: ignore[arg-type]
    forward.on_end(SimpleNamespace(state=State.FINISHED, reason=""))  # type: ignore[arg-type]
    forward.on_end(SimpleNamespace(state=State.PRUNED, reason="Pruned."))  # type: ignore[arg-type]
    assert [ours.recv(), ours.recv()] == [("epoch", 7, 2, 4, {"val/accuracy": 0.5}), ("pruned", 7, "Pruned.")]
    assert not ours.poll()
    ours.close()
    forward.send("epoch")  # the driver is gone: no error
    JobLog(Path("nowhere/train.log"), 1).write("line")  # nor is a log that cannot be written


def test_why_a_process_ended_is_a_sentence() -> None:
    assert died_of(-9) == "Its process was killed by SIGKILL (out of memory?)."
    assert died_of(-15) == "Its process was killed by SIGTERM."
    assert died_of(0) == "Its process ended with exit code 0 and left no result."
    assert died_of(None) == "Its process ended with exit code None and left no result."
    assert reason(JobDied("It died.")) == "It died."
    assert reason(Interrupted("Stopped.")) == "Stopped."
    assert reason(ValueError("no luck\nat all")) == "ValueError: no luck"


def test_a_worker_handles_what_its_driver_passes_on_and_does_not_outlive_it(monkeypatch: pytest.MonkeyPatch) -> None:
    listens, lifeline = multiprocessing.Pipe(duplex=False)
    done: list[int] = []
    monkeypatch.setattr(system, "interrupt", done.append)
    monkeypatch.setattr(worker.os, "_exit", done.append)
    monkeypatch.setattr(worker, "GRACE", 0)
    lifeline.send(signal.SIGINT)
    lifeline.close()
    worker._follow(listens)
    assert done == [signal.SIGINT, signal.SIGTERM, 143]
