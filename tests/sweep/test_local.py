"""Sweeps through the real command line: how its jobs affect each other, and what is printed."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hydra.core.singleton import Singleton
from kit import processes, wait_for
from samples import once

from mnist_exp import system
from mnist_exp.disk import ledger, plan
from mnist_exp.errors import Interrupted
from mnist_exp.sweep.display import Display
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.launching import Stop
from mnist_exp.sweep.local import pool as pools
from mnist_exp.sweep.local import worker
from mnist_exp.sweep.local.pool import Capacity, Pool, Worker

HERE = Path(__file__).parents[1] / "support"
SMALL = ["data=synthetic", "epochs=3", "threads=1"]
OWN = ["model=custom", "model._target_=faulty.Faulty"]


def sweep(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mnist_exp.train", *once("-m", *arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def only_sweep(folder: Path) -> Path:
    (sweep_folder,) = (path.parent for path in folder.glob("outputs/sweeps/*/*/sweep.json"))
    return sweep_folder


def states(folder: Path) -> list[str]:
    home = only_sweep(folder)
    return [ledger.read(home / str(i)).state for i in range(len(plan.read(home).points))]


def test_ctrl_c_while_a_job_is_being_set_up_is_no_failure_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "run_job", interrupted)
    runner = worker.Runner(cloudpickle.dumps((None, None, Singleton.get_state())), threads=1)
    assert isinstance(runner.run_one(Job(0, ["lr=1"]))._return_value, Interrupted)


def test_what_is_missing_of_a_sweep_has_no_more_threads_than_the_rest_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "cores", lambda: 8)
    assert [Capacity(None, 1, [], total=4).threads(most=missing) for missing in (4, 1)] == [2, 2]
    assert [Capacity(2, 1, [], total=4).threads(most=missing) for missing in (4, 1)] == [4, 4]
    assert Capacity(None, 1, [], total=100).threads(most=1) == 1


AHEAD = """
import sys
from mnist_exp.models import Classifier, MLP, export
from mnist_exp.sweep.finish import load_ahead
assert "matplotlib" not in sys.modules and "torch.export._trace" not in sys.modules
assert load_ahead() is load_ahead()
load_ahead().join()
loaded = set(sys.modules)
assert "mnist_exp.report.page" in loaded
assert export(Classifier(MLP(8), mean=0.1, std=0.3))
assert not {name for name in set(sys.modules) - loaded if name.startswith("torch")}
"""


@pytest.mark.slow  # an interpreter of its own
def test_what_the_end_of_a_sweep_needs_is_loaded_ahead() -> None:
    subprocess.run([sys.executable, "-c", AHEAD], check=True, timeout=120)


LEAVING = """
import threading
from mnist_exp import models
from mnist_exp.sweep import finish

def export(classifier):
    threading.main_thread().join()  # until that leaves
    print("exported")
    raise RuntimeError("can't register atexit after shutdown")

models.export = export
finish.load_ahead()
"""


@pytest.mark.slow  # an interpreter of its own
def test_leaving_while_it_loads_neither_aborts_nor_prints_an_error() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "exported\n", "")


def test_the_first_jobs_are_under_way_before_any_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the end of a sweep needs is loaded between the two."""
    anything: Any = None
    options = {"workers": 2, "on_error": "continue", "max_failures": None}
    pool = Pool(options, anything, Capacity(2, 1, []), Display(3, set()), Stop())

    def assign(to: Worker, pack: list[Job]) -> None:
        to.jobs = pack

    def listen(to: Worker) -> list[list[Job]]:
        to.jobs = []
        return []

    monkeypatch.setattr(pool, "start_worker", lambda slot: Worker(anything, anything, anything, slot))
    monkeypatch.setattr(pool, "assign", assign)
    monkeypatch.setattr(pool, "ready", lambda: pool.workers)
    monkeypatch.setattr(pool, "listen", listen)
    pool.begin([[Job(number, [])] for number in range(3)])
    assert [w.jobs[0].number for w in pool.workers] == [0, 1]
    pool.follow()
    assert not pool.waiting


@pytest.mark.slow
def test_a_bad_job_costs_only_itself(tmp_path: Path) -> None:
    modes = "fine,raise,fine_2,exit,fine_3,sigkill,diverge,fine_4"
    done = sweep(tmp_path, *OWN, f"+model.mode={modes}", *SMALL, "tracking=off")
    assert done.returncode == 1
    assert states(tmp_path) == ["finished", "failed", "finished", "failed", "finished", "killed", "failed", "finished"]
    errors = done.stderr
    assert "4 of 8 runs did not finish" in errors
    for reason in ("RuntimeError: boom", "SystemExit: 3", "killed by SIGKILL", "The loss is not finite somewhere in"):
        assert reason in errors
    assert errors.count("    again: python -m mnist_exp.train") == 4
    assert "FAILED: RuntimeError: boom" in done.stdout  # when it happened, too
    assert "boom" in (only_sweep(tmp_path) / "1" / "train.log").read_text()
    assert (only_sweep(tmp_path) / "report.html").exists()
    assert "Traceback" not in done.stdout + errors


@pytest.mark.slow
def test_a_job_that_hangs_is_killed_and_tried_again(tmp_path: Path) -> None:
    options = ["hydra.launcher.job_timeout=15", "hydra.launcher.retries=1", "hydra.sweeper.report=false"]
    done = sweep(tmp_path, *OWN, "+model.mode=hang", *SMALL, *options, "tracking=off")
    assert done.returncode == 1
    assert "trying again: It was still running after 15 s" in done.stdout
    assert states(tmp_path) == ["killed"]


@pytest.mark.slow
def test_stop_at_the_first_error(tmp_path: Path) -> None:
    options = ["hydra.launcher.on_error=stop", "hydra.launcher.workers=1", "hydra.sweeper.report=false"]
    done = sweep(tmp_path, *OWN, "+model.mode=fine,raise,fine_2,fine_3", *SMALL, *options, "tracking=off")
    assert done.returncode == 1
    assert "3 of 4 runs did not finish" in done.stderr
    assert done.stderr.count("it was never started") == 2


@pytest.mark.slow
def test_other_launchers_come_to_the_same(tmp_path: Path) -> None:
    losses = {}
    for launcher in ("local", "basic", "joblib"):
        folder = tmp_path / launcher
        folder.mkdir()
        jobs = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
        done = sweep(folder, "hidden=8,16", *SMALL, f"hydra/launcher={launcher}", *jobs, "tracking=off")
        assert done.returncode == 0, done.stderr
        home = only_sweep(folder)
        entries = [ledger.read(home / str(i)) for i in range(2)]
        assert all(entry.sweep == home.name for entry in entries)
        losses[launcher] = [entry.summary["final/test_loss"] for entry in entries]
    assert losses["basic"] == losses["joblib"] == losses["local"]


@pytest.mark.slow
def test_ctrl_c_stops_gently_and_says_how_to_go_on(tmp_path: Path) -> None:
    long = [
        "hidden=16,32,64",
        "data=synthetic",
        "data.train_images=20000",
        "epochs=300",
        "tracking=off",
        "hydra.launcher.pack=off",
        "hydra.launcher.workers=2",
    ]
    driver = subprocess.Popen(
        command(*long), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: list(tmp_path.glob("outputs/sweeps/*/*/2/metrics.jsonl")))  # the widest, which starts first
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=240)
    assert driver.returncode == 130
    (command_line,) = re.findall(r"Go on with:\n +python -m mnist_exp.train -m (resume=\S+)", errors)
    home = only_sweep(tmp_path)
    assert ledger.read(home / "2").state == "killed"
    assert not (home / "0").exists()
    wait_for(lambda: not processes())
    assert command_line == f"resume={home.name}"


@pytest.mark.slow
def test_no_worker_outlives_the_driver_and_a_second_one_learns_who_has_it(tmp_path: Path) -> None:
    long = ["hidden=16,32", "data=synthetic", "data.train_images=20000", "epochs=3000", "tracking=off"]
    long += ["hydra.launcher.workers=2"]
    driver = subprocess.Popen(command(*long), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    wait_for(lambda: list(tmp_path.glob("outputs/sweeps/*/*/1/metrics.jsonl")))
    second = sweep(tmp_path, "resume=last")
    assert second.returncode == 2
    assert f"is being run by process {driver.pid} on " in second.stderr
    assert len(processes()) >= 3  # the driver and two workers
    driver.kill()
    driver.wait()
    wait_for(lambda: not processes())


@pytest.mark.slow
def test_bad_points_are_all_reported_before_anything_starts(tmp_path: Path) -> None:
    done = sweep(tmp_path, "hidden=8,-1", "lr=1e-3,0", "data=synthetic")
    assert done.returncode == 2
    assert "3 of 4 points cannot run; nothing was started." in done.stderr
    assert "lr must be a finite number > 0 in float32, but got 0" in done.stderr
    assert not list(tmp_path.glob("outputs/sweeps/*/*/*/ledger.json"))


@pytest.mark.slow
def test_points_that_come_to_the_same_run_once(tmp_path: Path) -> None:
    done = sweep(tmp_path, "hidden=8,8", "lr=1e-3,0.001", *SMALL, "tracking=off", "hydra.sweeper.report=false")
    assert done.returncode == 0, done.stderr
    assert "3 of 4 points are the same as others; each runs once." in done.stdout
    assert len(plan.read(only_sweep(tmp_path)).points) == 1
    more = sweep(tmp_path, "hidden=8,16", "lr=1e-3", "resume=last", "hydra.sweeper.report=false")
    assert more.returncode == 0, more.stderr
    assert "2 runs, 1 of them done already" in more.stdout
    assert states(tmp_path) == ["finished", "finished"]


@pytest.mark.not_on("win32 darwin", "where processes start afresh, multiprocessing makes no socket")
def test_a_process_imports_nothing_from_the_working_folder_and_has_a_short_path_for_its_socket(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Multiprocessing starts Python with `-c`; a socket's path has at most 107 bytes."""
    Path("signal.py").write_text("raise SystemExit('the wrong one')")
    (scratch / ("x" * 90)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch / ("x" * 90)))
    monkeypatch.setenv("PYTHONPATH", "mine")
    child = [sys.executable, "-c", "import signal, mnist_exp"]
    with pools.starting():
        assert subprocess.run(child, check=False).returncode == 0
        assert tempfile.gettempdir() == "/tmp"
    assert tempfile.gettempdir() == str(scratch / ("x" * 90))
    assert os.environ["PYTHONPATH"] == "mine"
    assert "PYTHONSAFEPATH" not in os.environ
