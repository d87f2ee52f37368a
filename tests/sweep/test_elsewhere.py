"""The real command line on a simulated Windows or Mac (`elsewhere.py`): spawned workers, and their faults."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import clusters
import kit
import psutil
import pytest
import warm
from hooks import held
from kit import OFF, QUIET, SMALL, end, only_sweep, processes, states, wait_for, whole
from samples import REPO

from mnist_exp.disk import checkpoint, lanes, ledger

pytestmark = pytest.mark.slow

on_both = pytest.mark.parametrize("system", ["win32", "darwin"])
TWO = ["hydra.launcher.workers=2", "hydra.launcher.pack=off", QUIET, OFF]
FAULTY = [
    *(word for word in SMALL if word != "hidden=16"),
    "model=custom",
    "model._target_=faulty.Faulty",
    "+model.after=8",
]


def environment(platform: str) -> dict[str, str]:
    """The variables of a command there."""
    path = os.pathsep.join([str(kit.HERE / "hook"), str(kit.HERE), os.environ["PYTHONPATH"]])
    return {**os.environ, "PYTHONPATH": path, "MNIST_EXP_ELSEWHERE": platform, **warm.COLD}


def start(platform: str, *typed: str, module: str = "train", **more: str) -> "subprocess.Popen[str]":
    """Starts the command there, in an interpreter and a session of its own."""
    command = [sys.executable, "-m", f"mnist_exp.{module}", *kit.once(*typed)]
    pipe, environ = subprocess.PIPE, {**environment(platform), **more}
    return subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def there(platform: str, *typed: str, module: str = "train") -> tuple[int, str, str]:
    """`start`, then `kit.end`."""
    return end(start(platform, *typed, module=module))


def ctrl_c(driver: "subprocess.Popen[str]") -> None:
    """What a console does: the signal comes to all that have not left."""
    os.killpg(driver.pid, signal.SIGINT)


def workers(driver: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The driver's processes that train."""
    children = psutil.Process(driver.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def under_way(number: int) -> Callable[[], bool]:
    """Whether so many runs of the only sweep have finished an epoch."""
    return lambda: len(list(Path().glob("outputs/sweeps/*/*/*/metrics.jsonl"))) >= number


@on_both
def test_a_run_is_tracked_reported_and_examined_there(system: str) -> None:
    code, out, err = there(system, *SMALL)
    assert code == 0, err
    assert "Tracked in MLflow; to see it:" in out
    assert ledger.read(kit.only_run()).state == "finished"
    code, out, err = there(system, module="doctor")
    assert code == 0, out + err
    assert "spawn" in out


@on_both
def test_a_sweep_with_workers_that_are_killed_and_a_report(system: str) -> None:
    code, _, err = there(system, "-m", *FAULTY, "+model.mode=fine,sigkill", "seed=0,1", *TWO)
    assert code == 1, err
    assert sorted(states()) == ["finished", "finished", "killed", "killed"]
    code, out, err = there(system, "last", module="report")
    assert code == 0, err
    assert "4 runs (2 finished, 2 killed)" in out


@pytest.mark.long
def test_what_the_workflow_types_on_other_systems() -> None:
    """A sweep of four with a worker that is killed, its resume, report and doctor."""
    script = [sys.executable, str(REPO / ".ci" / "elsewhere.py")]
    done = subprocess.run(script, env=environment("win32"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    longest = max(len(str(path)) for path in Path("outputs").rglob("*"))
    assert longest < 100, "Windows takes 260, of which some are the project's own folder"


def test_a_spawned_worker_loads_its_modules_once_for_all_its_jobs(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So torch, too, is not imported again for the next job."""
    monkeypatch.setenv("PYTHONPATH", f"{scratch}{os.pathsep}{os.environ['PYTHONPATH']}")
    Path("counted.py").write_text(
        "import os\nfrom faulty import Faulty\nwith open('loads', 'a') as file:\n    print(os.getpid(), file=file)\n"
    )
    one = ["hydra.launcher.workers=1", "hydra.launcher.pack=off", QUIET, OFF]
    code, _, err = there("win32", "-m", *FAULTY, "model._target_=counted.Faulty", "seed=0,1,2", *one)
    assert code == 0, err
    (worker,) = {ledger.read(only_sweep() / str(number)).pid for number in range(3)}
    assert Path("loads").read_text().split().count(str(worker)) == 1


@on_both
def test_runs_of_a_pack_go_on_after_its_worker_was_killed(system: str) -> None:
    typed = ["-m", *kit.LONG, "hidden=16,24", "epochs=6", "hydra.launcher.workers=1", QUIET, OFF]
    with held() as hold:
        driver = start(system, *typed, **hold)
        wait_for(under_way(2))
        (worker,) = workers(driver)
        worker.kill()
    code, out, err = end(driver)
    assert code == 0, out + err
    assert "It was in a pack" in out
    assert states() == ["finished", "finished"]
    for folder in (only_sweep() / "0", only_sweep() / "1"):
        whole(folder)
        assert lanes.read(folder)


@on_both
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(times: int, system: str) -> None:
    driver = start(system, "-m", *kit.LONG, "epochs=3000", "hidden=16,24", *TWO)
    wait_for(under_way(2))
    ctrl_c(driver)
    if times == 2:
        with contextlib.suppress(ProcessLookupError):
            ctrl_c(driver)
    code, _, err = end(driver)
    assert code == 130, err
    assert "resume=" in err
    wait_for(lambda: not processes())
    assert {ledger.status(only_sweep() / str(i))[1] for i in (0, 1)} == {"killed"}


@on_both
def test_a_job_that_hangs_is_killed_when_its_time_is_up(system: str) -> None:
    limit = ["hydra.launcher.job_timeout=15", *TWO]
    code, out, err = there(system, "-m", *FAULTY, "+model.mode=hang", *limit)
    assert code == 1, out + err
    assert states() == ["killed"]
    assert "It was still running after 15 s (job_timeout)." in out


@on_both
def test_workers_and_the_publisher_end_after_their_driver_was_killed(system: str) -> None:
    driver = start(system, "-m", *kit.LONG, "epochs=3000", "hidden=16,24", *TWO[:-1])
    wait_for(under_way(2))
    assert len(workers(driver)) == 2
    driver.kill()
    driver.communicate()
    wait_for(lambda: not processes())
    assert {ledger.read(only_sweep() / str(i)).state for i in (0, 1)} == {"killed"}, "each has ended its epoch"


@pytest.mark.long
@on_both
def test_a_search_prunes(system: str) -> None:
    code, _, err = there(system, "-m", *clusters.SEARCH, *TWO[:-1])
    assert code == 0, err
    ends = clusters.ends(Path.cwd())
    assert set(ends) == {"COMPLETE", "PRUNED"}
    assert ends.total() == 8


@pytest.mark.long
@on_both
def test_a_race(system: str) -> None:
    typed = ["search=race", "hidden=4,32", "lr=1e-2", "seed=range(0,9)", "n_trials=8", *TWO]
    code, out, err = there(system, "-m", *SMALL, *typed)
    assert code == 0, err
    assert "The race ended after" in out
    assert 6 <= states().count("finished") == len(states()) <= 8


@pytest.mark.long
def test_a_closed_terminal_of_a_mac_ends_nothing() -> None:
    driver = start("darwin", "-m", *kit.LONG, "epochs=100", "hidden=16,24", *TWO[:-1])
    wait_for(under_way(2))
    os.killpg(driver.pid, signal.SIGHUP)
    code, _, err = end(driver)
    assert code == 0, err
    assert states() == ["finished", "finished"]
    assert clusters.tracked(Path.cwd()) == {"FINISHED": 2}


@pytest.mark.long
def test_a_closed_console_of_windows_costs_an_epoch_and_mlflow_gets_the_rest() -> None:
    """It ends the driver and its workers; the publisher has a console of its own."""
    driver = start("win32", "-m", *kit.LONG, "epochs=200", "hidden=16,24", *TWO[:-1])
    wait_for(under_way(2))
    for process in (*workers(driver), driver):  # none ends by itself before
        process.kill()
    driver.communicate()
    wait_for(lambda: not processes())
    assert clusters.tracked(Path.cwd()) == {"KILLED": 2}
    code, _, err = there("win32", "-m", "resume=last")
    assert code == 0, err
    assert states() == ["finished", "finished"]
    assert clusters.tracked(Path.cwd()) == {"FINISHED": 2}


def test_files_that_another_program_reads_are_replaced_and_deleted_when_it_has_closed_them() -> None:
    run = start("win32", *kit.LONG, "epochs=30", OFF)
    held: set[str] = set()

    def read() -> None:
        while run.poll() is None:
            for path in (*Path().glob("outputs/runs/*/*/*.json"), *Path().glob("outputs/runs/*/*/checkpoints/*.pt")):
                with contextlib.suppress(FileNotFoundError), path.open("rb"):
                    held.add(path.name)
                    time.sleep(0.05)

    reader = threading.Thread(target=read)
    reader.start()
    code, _, err = end(run)
    reader.join()
    assert code == 0, err
    folder = kit.only_run()
    whole(folder)
    kit.clean()
    checkpoints = {path.name for path in folder.glob("checkpoints/*.pt")}
    assert len(checkpoints) == checkpoint.KEPT
    assert len(held - checkpoints) > 3, "it held some that were deleted"


BELIEVES = """
import sys
from mnist_exp import system
system.sys.__dict__["platform"] = "linux"
from mnist_exp.train import cli
sys.argv[1:] = {typed}
cli()
"""


def test_meta_a_command_that_believes_it_is_on_linux_fails_there() -> None:
    text = BELIEVES.format(typed=[*SMALL, OFF])
    done = subprocess.run(
        [sys.executable, "-c", text], env=environment("win32"), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "SIGHUP" in done.stderr
