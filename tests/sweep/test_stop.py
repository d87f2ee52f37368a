"""Ctrl-C and SIGTERM while a sweep runs: what its jobs do, what is printed, and the exit code."""

import contextlib
import multiprocessing
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

import cloudpickle
import pytest
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from samples import TINY
from trainings import run

from mnist_exp.config import Config
from mnist_exp.disk import ledger
from mnist_exp.errors import ExperimentError, Interrupted
from mnist_exp.sweep import finish
from mnist_exp.sweep.display import Display
from mnist_exp.sweep.job import Job, JobDied
from mnist_exp.sweep.launching import Stop
from mnist_exp.sweep.local import pool as pools
from mnist_exp.sweep.local import worker
from mnist_exp.sweep.local.pool import Pool, Worker

Command = Callable[..., tuple[int, str, str]]
OWN = [setting for setting in TINY if not setting.startswith("hidden=")]
OWN += ["model=custom", "model._target_=faulty.Faulty", "+model.after=7"]


@contextlib.contextmanager
def signalled(number: int, run: Path, epoch: int) -> Iterator[None]:
    """While it lasts, this process gets that signal once *run* has come so far."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            with contextlib.suppress(ExperimentError):
                if ledger.read(run).epoch == epoch:
                    os.kill(os.getpid(), number)
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.integration
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_job_that_hangs_does_not_keep_a_sweep_from_stopping(
    number: int, code: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "STOP_GRACE", 0.5)
    home = Path("sweep").absolute()
    with signalled(number, home / "0", epoch=1):
        left, out, err = command("-m", *OWN, "+model.mode=hang,fine", f"hydra.sweep.dir={home}")
    assert left == code, err
    assert out.count("Stopping… Ctrl-C again leaves at once.") == 1
    assert "FAILED" not in out
    assert re.search(r"help: Go on with:\n    python -m mnist_exp\.train -m resume=sweep$", err, re.MULTILINE)
    entry = ledger.read(home / "0")
    assert (entry.state, entry.reason) == ("killed", "It did not stop within 0.50 s.")


def test_a_worker_that_has_just_died_is_not_asked() -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    nothing: Any = None
    pool = Pool({}, nothing, nothing, Display(1, set()), Stop())
    listens, lifeline = multiprocessing.Pipe(duplex=False)
    listens.close()
    pool.workers = [Worker(dead, nothing, lifeline, {}, [Job(0, [])])]
    pool.ask_to_stop()
    assert pool.workers[0].deadline < float("inf")


@final
class Trials:
    """A search that gives no jobs, and notes which are over."""

    total = coming = 0

    def __init__(self) -> None:
        self.fixed: set[str] = set()
        self.over: list[int] = []

    def next(self) -> list[Job]:
        """There is none."""
        return []

    def end(self, number: int) -> None:
        self.over.append(number)


@pytest.mark.parametrize("error", [Interrupted("Stopped in epoch 1."), JobDied("Killed.")], ids=["stopped", "killed"])
def test_a_search_loses_no_trial_with_a_worker_or_with_its_driver(error: Exception) -> None:
    trials, stop, job = Trials(), Stop(), Job(3, [])
    nothing: Any = None
    options = {"retries": 0, "on_error": "continue", "max_failures": None}
    pool = Pool(options, nothing, nothing, Display(1, set()), stop, trials)

    def ends(tries: int, number: int = 0) -> tuple[list[list[Job]], list[int]]:
        job.tries, stop.signal, job.outcome = tries, number, cloudpickle.dumps(job.failed(error))
        return pool.on_result(job), trials.over

    assert ends(tries=1) == ([[job]], [])
    assert ends(tries=2, number=signal.SIGTERM) == ([], [])  # it goes on with resume=
    assert ends(tries=2) == ([], [3])


def stopped_by(*signals: int, error: Exception | None = None) -> None:
    with Stop():
        for number in signals:
            signal.raise_signal(number)
        if error:
            raise error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_a_sweep_at_once(number: int) -> None:
    with pytest.raises(Interrupted) as caught:
        stopped_by(number, number, error=RuntimeError("it goes on"))
    assert caught.value.exit_code == 128 + number


def test_what_else_ends_a_sweep_is_not_hidden_by_a_signal() -> None:
    with pytest.raises(RuntimeError, match="boom"):
        stopped_by(signal.SIGINT, error=RuntimeError("boom"))


@pytest.mark.parametrize("first", ["set-up", "training"])
def test_ctrl_c_before_a_pack_trains_stops_all_of_it(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the second lane is set up, or before training handles it."""
    setups: list[int] = []

    def set_up(config: Any, **_: object) -> JobReturn:
        setups.append(config.hydra.job.num)
        if first == "set-up" and len(setups) == 2:
            raise KeyboardInterrupt
        done = JobReturn(overrides=[], hydra_cfg=config, status=JobStatus.COMPLETED)
        done.return_value = "a task"
        return done

    def train(runner: object, tasks: object) -> list[Any]:
        assert first == "training"
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "run_job", set_up)
    monkeypatch.setattr(worker, "configure_log", lambda *_: None)
    monkeypatch.setattr(worker.Runner, "_train_together", train)
    logs = {"job_logging": {}, "verbose": False}
    configs = [OmegaConf.create({"hydra": {**logs, "job": {"name": "train", "num": i}}}) for i in range(3)]
    jobs = [Job(i, [], Path("sweep"), composed=config) for i, config in enumerate(configs)]
    ends = worker.Runner(cloudpickle.dumps((None, None, Singleton.get_state())), threads=1).run(jobs)
    assert [type(done._return_value) for done in ends] == [Interrupted] * 3
    assert setups == ([0, 1] if first == "set-up" else [0, 1, 2])


def test_a_second_ctrl_c_is_no_failure_of_the_run(tiny: Callable[..., Config]) -> None:
    def watch(about: object, control: object) -> list[Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny(), Path("run"), watch=watch)
    assert ledger.read(Path("run")).state == "killed"


@pytest.mark.integration
def test_ctrl_c_after_the_last_job_ends_with_the_command_that_goes_on(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(finish, "present", interrupted)
    code, _, err = command("-m", *OWN[:-3], "hidden=8,9", "hydra/launcher=basic", "hydra.sweep.dir=sweep")
    assert code == 130
    assert err.endswith(
        "error: The sweep was stopped.\n  help: Go on with:\n    python -m mnist_exp.train -m resume=sweep\n"
    )
