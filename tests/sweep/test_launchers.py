"""The eight points under the launchers that need no service; tests/services/ has the others."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import clusters
import pytest
from clusters import EPOCHS, GRID, SIZE, VICTIM
from hooks import held
from kit import processes, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

POOL = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
QUIET = "hydra.sweeper.report=false"
APART = (QUIET, "hydra.launcher.pack=off")  # together, the others of its pack would die with the victim


def test_local_one_of_them_killed(tmp_path: Path) -> None:
    """Only that one is missing; resuming finishes it from its last epoch."""
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    assert clusters.run(calm, *GRID, *SIZE, "tracking=off", *APART).returncode == 0
    done = clusters.run(wild, *GRID, *SIZE, *APART, kill=True)
    assert done.returncode == 1, done.stderr
    assert clusters.states(wild) == ["finished"] * VICTIM + ["killed"] + ["finished"] * 4
    assert clusters.tracked(wild) == {"FINISHED": 7, "KILLED": 1}
    assert clusters.run(wild, "resume=last", *APART).returncode == 0
    assert clusters.results(wild) == clusters.results(calm)
    assert clusters.epochs(wild, VICTIM) == list(range(1, EPOCHS + 1))
    assert clusters.tracked(wild) == {"FINISHED": 8}


@pytest.mark.long
def test_joblib_one_of_them_killed(tmp_path: Path) -> None:
    """Hydra's joblib launcher gives up the whole sweep; our resume finishes it all the same."""
    done = clusters.run(tmp_path, *GRID, *SIZE, *POOL, QUIET, kill=True)
    assert done.returncode == 1
    assert "TerminatedWorkerError" in done.stderr
    assert "never started" in clusters.states(tmp_path)
    assert clusters.run(tmp_path, "resume=last", *POOL, QUIET).returncode == 0
    assert clusters.states(tmp_path) == ["finished"] * 8
    # Here each job has a publisher of its own, and joblib may have killed one that had something left to say.
    subprocess.run([sys.executable, "-m", "mnist_exp.sync"], cwd=tmp_path, check=True, capture_output=True)
    assert clusters.tracked(tmp_path) == {"FINISHED": 8}


@contextlib.contextmanager
def joblib_training(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The driver of the eight points, in a session of its own, while the first of them trains: no longer than this."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = clusters.command(*GRID, *SIZE, *POOL, QUIET, "tracking=off")
    with held() as hold:
        environ = {**os.environ, **hold}
        driver = subprocess.Popen(command, cwd=folder, env=environ, start_new_session=True, **quiet)  # type: ignore[call-overload]
        wait_for(lambda: driver.poll() is not None or clusters.reached(folder) > 0, "it trains")
        yield driver


def test_joblib_driver_killed(tmp_path: Path) -> None:
    """Jobs that run go on to their ends; resuming adds the others."""
    with joblib_training(tmp_path) as driver:
        driver.kill()
        driver.wait()
        assert clusters.states(tmp_path)[0] == "running"
    wait_for(lambda: "running" not in clusters.states(tmp_path), "those that run end")
    assert clusters.states(tmp_path)[0] == "finished"
    assert "never started" in clusters.states(tmp_path)
    done = clusters.run(tmp_path, "resume=last", *POOL, QUIET)
    assert done.returncode == 0, done.stderr
    assert clusters.states(tmp_path) == ["finished"] * 8


@pytest.mark.long
def test_joblib_ctrl_c(tmp_path: Path) -> None:
    """It reaches all processes of the terminal: none of those that run finishes, and the sweep can be resumed."""
    with joblib_training(tmp_path) as driver:
        os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait() == 130
    wait_for(lambda: not processes(), "its jobs end, too")
    assert "finished" not in clusters.states(tmp_path)
    done = clusters.run(tmp_path, "resume=last", *POOL, QUIET)
    assert done.returncode == 0, done.stderr
    assert clusters.states(tmp_path) == ["finished"] * 8
