"""The driver's side of every scheduler: jobs are followed to their ends, whatever the scheduler says of them."""

import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import cloudpickle
import pytest
from hydra.core.utils import JobReturn, JobStatus

from mnist_exp.disk.layout import State
from mnist_exp.disk.ledger import Ledger, find
from mnist_exp.errors import Interrupted
from mnist_exp.sweep.cluster.driver import Driver, Scheduler
from mnist_exp.sweep.display import Display
from mnist_exp.sweep.job import Job, JobDied
from mnist_exp.sweep.launching import Handover, Stop


class Fake(Scheduler):
    """Has the endings that a test wants, one list at each look."""

    def __init__(self, *endings: list[tuple[Job, JobReturn | str]], way: str = "") -> None:
        self.endings, self.way = list(endings), way
        self.submitted: list[int] = []

    def submit(self, jobs: Sequence[Job], handover: Handover) -> None:
        self.submitted += [job.number for job in jobs]

    def ended(self) -> Iterable[tuple[Job, JobReturn | str]]:
        return self.endings.pop(0) if self.endings else []

    def stop(self) -> str:
        return self.way

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_exp.sweep.cluster.driver.PAUSE", 0.001)


def job(number: int = 0, **entry: Any) -> Job:
    """A job; with an *entry*, its ledger says so."""
    made = Job(number, [f"hidden={8 + number}"], Path("sweep"))
    if entry:
        made.folder.mkdir(parents=True)
        Ledger(**entry).write(made.folder)
    return made


def driver(scheduler: Scheduler, total: int = 1, stop: int | None = None, source: Any = None) -> Driver:
    watched = Stop()
    watched.signal = stop or 0
    return Driver(scheduler, cast(Handover, None), Display(total, set()), watched, source)


def returned(made: Job, value: Any, status: JobStatus = JobStatus.COMPLETED) -> JobReturn:
    return JobReturn(overrides=made.overrides, status=status, _return_value=value)


def outcome(made: Job) -> JobReturn:
    kept: JobReturn = cloudpickle.loads(made.outcome)
    return kept


def test_a_job_that_returns_is_done() -> None:
    one, other = job(0, state="finished"), job(1, state="pruned", reason="Pruned after epoch 1.")
    fake = Fake([], [(other, returned(other, 0.5))], [(one, returned(one, 0.75))])
    following = driver(fake, total=2)
    following.follow([one, other])
    assert (outcome(one).return_value, outcome(other).return_value) == (0.75, 0.5)
    assert following.display.status() == f"2/2 done · 1 pruned · best val 75.00 % ({one.overrides[0]})"
    assert fake.submitted == [0, 1]


def test_a_job_that_fails_is_failed_and_not_tried_again() -> None:
    one = job(state="failed")
    fake = Fake([(one, returned(one, ValueError("no luck"), JobStatus.FAILED))])
    fake.retries = 2
    following = driver(fake)
    following.follow([one])
    assert outcome(one).status == JobStatus.FAILED
    assert following.display.status() == "1/1 done · 1 failed"
    assert fake.submitted == [0]


def test_a_job_that_dies_is_submitted_again_as_often_as_is_permitted() -> None:
    one = job(state="running")
    fake = Fake([(one, "Its node failed.")], [(one, "Its node failed again.")])
    fake.retries = 1
    following = driver(fake)
    following.follow([one])
    assert fake.submitted == [0, 0]
    assert isinstance(outcome(one)._return_value, JobDied)
    assert str(outcome(one)._return_value) == "Its node failed again."
    entry = find(one.folder)
    assert entry is not None
    assert (entry.state, entry.reason) == (State.KILLED, "Its node failed.")
    assert following.display.status() == "1/1 done · 1 failed"


def test_a_job_that_had_finished_before_its_process_died_is_done() -> None:
    one = job(state="finished", summary={"final/val_accuracy": 0.5})
    fake = Fake([(one, "Its node failed.")])
    driver(fake).follow([one])
    assert (outcome(one).status, outcome(one).return_value) == (JobStatus.COMPLETED, 0.5)
    assert fake.submitted == [0]


def test_a_user_who_leaves_sees_how_the_jobs_end() -> None:
    one = job()
    with pytest.raises(Interrupted, match=r"no longer watched; 1 jobs go on") as left:
        driver(Fake(way="scancel 7"), stop=signal.SIGTERM).follow([one])
    assert left.value.help == "scancel 7"
    assert left.value.signal == signal.SIGTERM


def test_jobs_that_were_asked_to_stop_have_their_time_and_count_as_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = job(0), job(1)
    stopped = returned(one, Interrupted("Stopped.", "", signal.SIGINT), JobStatus.FAILED)
    fake = Fake([], [(one, stopped)], [(other, "Killed.")])
    fake.retries = 3
    following = driver(fake, total=2, stop=signal.SIGINT)
    following.follow([one, other])
    assert isinstance(outcome(other)._return_value, JobDied)
    assert fake.submitted == [0, 1]
    assert following.display.status() == "0/2 done"
    monkeypatch.setattr("mnist_exp.sweep.cluster.driver.STOP_GRACE", 0.05)
    began = time.monotonic()
    driver(Fake(), stop=signal.SIGINT).follow([job(2)])  # it never ends
    assert time.monotonic() < began + 60


def test_what_a_job_has_trained_is_shown_once() -> None:
    one = job(state="running", epoch=1, epochs=4)
    row = '{"epoch": 1, "step": 1, "time_ms": 1, "metrics": {"val/accuracy": 0.5, "time/epoch": 1}}\n'
    (one.folder / "metrics.jsonl").write_text(row)
    following = driver(Fake())
    following.show(one)
    assert following.display.status().startswith("0/1 done · 1 running")
    assert following.display.now() == "hidden=8 1/4 50.00 %"
    following.display.running.clear()
    following.show(one)
    assert not following.display.running, "the same epoch again"


class Trials:
    """A source of jobs that hears how they end."""

    fixed: ClassVar[set[str]] = set()

    def __init__(self, jobs: Sequence[Job], batch: int | None = None) -> None:
        self.left, self.batch, self.ended = list(jobs), batch, list[int]()
        self.total = len(jobs)

    @property
    def coming(self) -> int:
        return len(self.left)

    def next(self) -> list[Job]:
        return [self.left.pop(0)] if self.left else []

    def end(self, number: int) -> None:
        self.ended.append(number)


def test_the_next_trial_begins_when_one_has_ended_whatever_the_others_do() -> None:
    slow, *quick = jobs = [job(number, state="finished") for number in range(5)]
    fake = Fake([], *([(each, returned(each, 0.5))] for each in quick), [(slow, returned(slow, 0.5))])
    source, seen = Trials(jobs, batch=2), list[list[int]]()
    following = driver(fake, source=source)
    fake.pause = lambda: seen.append(list(following.submitted))  # type: ignore[method-assign]
    following.follow(source.next())
    assert seen == [[0, 1], [0, 1], [0, 2], [0, 3], [0, 4], [0]]
    assert source.ended == [1, 2, 3, 4, 0]
    assert following.display.status().startswith("5/5 done")


def test_a_search_that_says_no_number_has_as_many_trials_as_there_is_room_for() -> None:
    source = Trials([job(number, state="finished") for number in range(7)])
    fake = Fake([(each, returned(each, 0.5)) for each in source.left])
    following = driver(fake, source=source)
    following.submit([])
    assert fake.submitted == [0, 1, 2, 3]
    assert following.display.coming == 3


def test_a_search_hears_of_a_job_when_it_has_no_further_try_and_not_of_one_that_was_stopped() -> None:
    died, failed, stopped = jobs = [job(number, state="running") for number in range(3)]
    fake = Fake()
    fake.retries = 1
    source = Trials([])
    following = driver(fake, source=source)
    following.submit(jobs)
    assert following.on_result(died, "Its node failed.")
    following.submit([died])
    assert source.ended == []
    assert not following.on_result(died, "Its node failed.")
    assert not following.on_result(failed, returned(failed, ValueError("no luck"), JobStatus.FAILED))
    assert source.ended == [0, 1]
    following.stop.signal = signal.SIGINT
    source.left = [job(3)]
    assert not following.on_result(stopped, returned(stopped, Interrupted("Stopped."), JobStatus.FAILED))
    following.submit([])
    assert source.ended == [0, 1]
    assert fake.submitted == [0, 1, 2, 0], "after Ctrl-C no further trial begins"
