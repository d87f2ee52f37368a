"""`cluster=slurm` on a real Slurm of one node: the same results, and what happens to jobs that are killed or moved."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import clusters
import psutil
import pytest
import services
from clusters import EPOCHS, GRID, SIZE, VICTIM
from hooks import held
from kit import wait_for

from mnist_exp.disk import ledger
from mnist_exp.disk.files import read_json

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm"), pytest.mark.timeout(600)]

ON = ("cluster=slurm", "hydra.sweeper.report=false")


@pytest.fixture(scope="module", autouse=True)
def slurm() -> Iterator[None]:
    pytest.importorskip("submitit", reason='submitit is not installed: pip install -e ".[slurm]"')
    with services.slurm(largest=5):  # arrays of five at most
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight points under the local launcher."""
    folder = tmp_path_factory.mktemp("reference")
    done = clusters.run(folder, *GRID, *SIZE, "tracking=off", "hydra.sweeper.report=false", "hydra.launcher.pack=off")
    assert done.returncode == 0, done.stderr
    return folder


def test_eight_points_one_of_them_killed(reference: Path, tmp_path: Path) -> None:
    done = clusters.run(tmp_path, *GRID, *SIZE, *ON, kill=True)
    assert done.returncode == 1, done.stderr
    assert re.search(
        r"Slurm takes 5 jobs as \d+\.\nSlurm takes 3 jobs as \d+\.\n", done.stdout
    )  # as many as an array may have
    assert "hidden=16 lr=0.003  FAILED: Its process was killed by SIGKILL (out of memory?)." in done.stdout
    assert f"  #{VICTIM} hidden=16 lr=0.003: Its process was killed by SIGKILL" in done.stderr
    assert clusters.states(tmp_path) == ["finished"] * VICTIM + ["killed"] + ["finished"] * 4
    assert clusters.tracked(tmp_path) == {"FINISHED": 7, "KILLED": 1}
    (again,) = re.findall(r"All of them again:\n +python -m mnist_exp.train -m (.*)", done.stderr)
    assert again == f"resume={clusters.home(tmp_path).name} cluster=slurm retry_failed=true"

    done = clusters.run(tmp_path, *again.split(), ON[1])
    assert done.returncode == 0, done.stderr
    assert "Slurm takes 1 job as" in done.stdout
    assert clusters.results(tmp_path) == clusters.results(reference)
    assert clusters.epochs(tmp_path, VICTIM) == list(range(1, EPOCHS + 1))
    assert clusters.tracked(tmp_path) == {"FINISHED": 8}
    overrides = ledger.read(clusters.home(tmp_path) / "0").overrides
    assert not [o for o in overrides if o.startswith("cluster")]  # where it ran is no part of what it is


def test_a_job_that_has_to_leave_its_node_goes_on_exactly_and_a_driver_comes_back(tmp_path: Path) -> None:
    point = ("hidden=32", "lr=3e-3")  # the last of the eight, and long enough
    long = [option.replace("epochs=40", "epochs=400") for option in SIZE]
    driver = subprocess.Popen(clusters.command(*point, *long, *ON), cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    def entry() -> ledger.Ledger:
        return ledger.read(clusters.home(tmp_path) / "0")

    wait_for(lambda: list(tmp_path.glob("outputs/sweeps/*/*/0/ledger.json")) and entry().epoch >= 3, "it trains")
    driver.send_signal(signal.SIGINT)
    _, output = driver.communicate(timeout=120)
    assert driver.returncode == 130
    (job,) = re.findall(r"Cancel them: scancel (\d+)\n", output)
    again = f"python -m mnist_exp.train -m resume={clusters.home(tmp_path).name} cluster=slurm"
    assert f"Go on with:\n    {again}" in output

    before = entry()
    subprocess.run(["scancel", "--signal=USR2", job], check=True)  # what Slurm sends ahead of the end
    wait_for(lambda: entry().state == "killed", "it stops")
    assert re.fullmatch(r"Stopped in epoch \d+\.", entry().reason)
    wait_for(lambda: restarts(job), "it is in the queue again")

    done = clusters.run(tmp_path, "resume=last", *ON)
    assert done.returncode == 0, done.stderr
    assert "Slurm has 1 job already." in done.stdout
    after = entry()
    assert (after.state, after.id) == ("finished", before.id)
    assert after.pid != before.pid
    assert list(read_json(clusters.home(tmp_path) / "slurm.json").values()) == [job]  # it was not submitted again
    assert clusters.tracked(tmp_path) == {"FINISHED": 1}

    undisturbed = clusters.run(
        tmp_path / "undisturbed", *point, *long, "tracking=off", "hydra.sweeper.report=false", "hydra.launcher.pack=off"
    )
    assert undisturbed.returncode == 0
    (calm,) = (tmp_path / "undisturbed").rglob("weights.safetensors")
    (moved,) = clusters.home(tmp_path).rglob("weights.safetensors")
    assert calm.read_bytes() == moved.read_bytes()


HELD = "held"
"""While a file of this name is in its sweep's working directory, a job of `training` stays in its third epoch."""


@contextlib.contextmanager
def training(folder: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The driver of a sweep of one job that trains until it is let go, and the job's id in Slurm."""
    with held(folder / HELD) as hold, driving(folder, hold, *arguments) as driver:
        wait_for(lambda: driver.poll() is not None or clusters.reached(folder) == 2, "it trains")
        (job,) = read_json(clusters.home(folder) / "slurm.json").values()
        yield driver, job


@contextlib.contextmanager
def driving(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """The driver of a sweep of one job, which is killed if it still runs at the end."""
    command = clusters.command("hidden=32", "lr=3e-3", *SIZE, *ON, *arguments)
    environ = {**os.environ, **environment}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environ, stdout=pipe, stderr=subprocess.STDOUT, text=True) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def restarts(job: str) -> int:
    """How often Slurm has put it back into the queue."""
    return int(re.findall(r"Restarts=(\d+)", services.output("scontrol", "show", "job", job))[0])


def ends_as_if_nothing_had_happened(driver: "subprocess.Popen[str]", job: str, folder: Path) -> str:
    """Asserts that the sweep's one job ran again and finished; returns what it wrote into its log."""
    output, _ = driver.communicate()
    assert driver.returncode == 0, output
    assert restarts(job) >= 1
    assert ledger.read(clusters.home(folder) / "0").state == "finished"
    assert clusters.epochs(folder, 0) == list(range(1, EPOCHS + 1))
    assert clusters.tracked(folder) == {"FINISHED": 1}
    return (clusters.home(folder) / "0" / "train.log").read_text()


def test_a_job_whose_time_is_up_goes_on_in_a_new_one(tmp_path: Path) -> None:
    """Slurm's real limit, of which it gives warning; the driver keeps watching."""
    with training(tmp_path, "hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=30") as (driver, job):
        wait_for(Path(f"{tmp_path / HELD}.signalled").exists, "Slurm gives notice")
        (tmp_path / HELD).unlink()
        log = ends_as_if_nothing_had_happened(driver, job, tmp_path)
    assert re.search(r"Stopped in epoch \d+\.", log)


def test_a_job_that_is_warned_while_it_starts_goes_on_in_a_new_one(tmp_path: Path) -> None:
    """Before anything of ours is loaded that could listen: SIGUSR2 ends a process that does not."""
    with driving(tmp_path, {}) as driver:
        wait_for(lambda: starting(tmp_path), "a node starts it")
        (job,) = read_json(clusters.home(tmp_path) / "slurm.json").values()
        assert clusters.reached(tmp_path) == 0
        subprocess.run(["scancel", "--signal=USR2", job], check=True)
        ends_as_if_nothing_had_happened(driver, job, tmp_path)


def starting(folder: Path) -> bool:
    """Whether a node runs a process that will become the job of a sweep in *folder*, and its Slurm id is noted."""
    commands = [p.info["cmdline"] or [""] for p in psutil.process_iter(["cmdline"])]
    ours = [c for c in commands if "submitit.core._submit" in c and any(str(folder) in part for part in c)]
    return any("srun" not in c[0] for c in ours) and any(folder.glob("outputs/sweeps/*/*/slurm.json"))


def test_a_job_that_has_to_make_room_goes_on_afterwards(tmp_path: Path) -> None:
    """Preemption: SIGTERM several times at once, which must not break it, then SIGKILL, then the queue."""
    with training(tmp_path, "hydra.launcher.partition=debug") as (driver, job):
        urgent = ("--partition=urgent", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 3")
        subprocess.run(["sbatch", *urgent], check=True, capture_output=True)
        wait_for(lambda: restarts(job), "it has made room")
        (tmp_path / HELD).unlink()
        ends_as_if_nothing_had_happened(driver, job, tmp_path)


def test_a_job_that_is_requeued_without_a_warning_goes_on(tmp_path: Path) -> None:
    """As after a node has failed."""
    with training(tmp_path) as (driver, job):
        subprocess.run(["scontrol", "requeue", job], check=True)
        wait_for(lambda: restarts(job), "it is in the queue again")
        (tmp_path / HELD).unlink()
        ends_as_if_nothing_had_happened(driver, job, tmp_path)


def test_a_job_that_is_cancelled_is_reported(tmp_path: Path) -> None:
    with training(tmp_path) as (driver, job):
        subprocess.run(["scancel", job], check=True)
        output, _ = driver.communicate()
    assert driver.returncode == 1
    assert "FAILED: It was cancelled in Slurm." in output
    entry = ledger.read(clusters.home(tmp_path) / "0")
    assert (entry.state, entry.reason) == ("killed", "It was cancelled in Slurm.")
    done = clusters.run(tmp_path, "resume=last", "retry_failed=true", *ON)
    assert done.returncode == 0, done.stderr
    assert clusters.epochs(tmp_path, 0) == list(range(1, EPOCHS + 1))


def test_a_search_prunes(tmp_path: Path) -> None:
    clusters.prunes(tmp_path, *ON)


def test_a_search_does_not_wait_for_its_slowest_trial_which_goes_on_without_the_driver(tmp_path: Path) -> None:
    with clusters.beside_a_slow_trial(tmp_path, *ON, "tracking=off") as driver:
        driver.send_signal(signal.SIGINT)
        output, _ = driver.communicate()
        assert driver.returncode == 130, output
        assert "1 jobs go on. 3 of 4 trials are finished or pruned." in output
    jobs = read_json(clusters.home(tmp_path) / "slurm.json")
    assert sorted(jobs) == ["0", "1", "2", "3"]
    done = clusters.run(tmp_path, "resume=last", *ON)
    assert done.returncode == 0, done.stderr
    assert clusters.states(tmp_path)[:5] == [*["finished"] * 4, "never started"]
    assert read_json(clusters.home(tmp_path) / "slurm.json") == jobs, "none was submitted again"


def test_a_search_whose_driver_and_job_are_killed(tmp_path: Path) -> None:
    """The jobs that Slurm has go on meanwhile, and are followed again."""
    clusters.killed_and_resumed(tmp_path, *ON, resume=ON)


def test_each_job_gets_the_gpu_that_it_asks_for(tmp_path: Path) -> None:
    """The node's only GPU is a pretence: jobs take it in turns and see which one is theirs, but train on the CPU."""
    options = ("hydra.launcher.gpus_per_node=1", "tracking=off", "data=synthetic", "epochs=1")
    done = clusters.run(tmp_path, "hidden=8,16", *options, *ON)
    assert done.returncode == 0, done.stderr
    scripts = [path.read_text() for path in tmp_path.rglob("*_submission.sh")]
    assert any("#SBATCH --gpus-per-node=1" in script for script in scripts)
    first, second = (ledger.read(clusters.home(tmp_path) / str(number)) for number in range(2))
    assert first.ended_ms is not None
    assert first.ended_ms < second.started_ms


def test_what_slurm_refuses_is_printed_in_a_sentence(tmp_path: Path) -> None:
    done = clusters.run(tmp_path, "hidden=8", "data=synthetic", "hydra.launcher.partition=nowhere", *ON)
    assert done.returncode == 2
    assert "error: Slurm did not take the jobs: invalid partition specified: nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_slurm_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = clusters.run(tmp_path, "hidden=8", "data=synthetic", *ON)
    assert done.returncode == 2
    assert "There is no sbatch here." in done.stderr
