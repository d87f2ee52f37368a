"""`cluster=ray` on a real Ray cluster of this machine: the same results, and what happens to jobs that are killed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import clusters
import psutil
import pytest
import services
from clusters import EPOCHS, GRID, SIZE, VICTIM
from kit import wait_for

from mnist_exp.disk import ledger

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray"), pytest.mark.timeout(600)]

ON = ("cluster=ray", "hydra.sweeper.report=false")


@pytest.fixture(scope="module", autouse=True)
def ray() -> None:
    pytest.importorskip("ray", reason='ray is not installed: pip install -e ".[ray]"')


def test_eight_points_one_of_them_killed(tmp_path: Path) -> None:
    """The killed one goes on from its last epoch by itself."""
    local, remote = tmp_path / "local", tmp_path / "ray"
    reference = clusters.run(
        local, *GRID, *SIZE, "tracking=off", "hydra.sweeper.report=false", "hydra.launcher.pack=off"
    )
    assert reference.returncode == 0, reference.stderr
    done = clusters.run(remote, *GRID, *SIZE, *ON, kill=True)
    assert done.returncode == 0, done.stderr
    assert "hidden=16 lr=0.003  FAILED, trying again: Its process died (out of memory?)." in done.stdout
    assert clusters.results(remote) == clusters.results(local)
    assert clusters.epochs(remote, VICTIM) == list(range(1, EPOCHS + 1))
    assert clusters.tracked(remote) == {"FINISHED": 8}


def test_a_search_prunes(tmp_path: Path) -> None:
    clusters.prunes(tmp_path, *ON)


def test_a_search_does_not_wait_for_its_slowest_trial(tmp_path: Path) -> None:
    with clusters.beside_a_slow_trial(tmp_path, *ON, "tracking=off") as driver:
        (tmp_path / "held").unlink()
        output, _ = driver.communicate()
    assert driver.returncode == 0, output
    assert "[4/4] epochs=3 lr=0.001  val " in output


def test_a_search_whose_driver_and_worker_are_killed(tmp_path: Path) -> None:
    clusters.killed_and_resumed(tmp_path, *ON, resume=ON)


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    size = [option.replace("epochs=40", "epochs=4000") for option in SIZE]
    driver = subprocess.Popen(
        clusters.command("hidden=8,16,32", *size, *ON, "tracking=off"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: list(tmp_path.glob("outputs/sweeps/*/*/0/metrics.jsonl")), "it trains")
    job = ledger.read(clusters.home(tmp_path) / "0").pid
    driver.send_signal(signal.SIGINT)
    _, output = driver.communicate(timeout=120)
    assert driver.returncode == 130, output
    assert f"Go on with:\n    python -m mnist_exp.train -m resume={clusters.home(tmp_path).name} cluster=ray" in output
    wait_for(lambda: not psutil.pid_exists(job), "its worker is gone")
    entry = ledger.read(clusters.home(tmp_path) / "0")
    assert entry.state == "killed"
    assert re.fullmatch(r"Stopped in epoch \d+\.", entry.reason)  # not killed: it was asked


def test_a_cluster_that_runs_already(tmp_path: Path) -> None:
    """Its workers start elsewhere and know nothing of the driver's folder, package or variables."""
    port = services.free_port()
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = [
        "start",
        "--head",
        "--node-ip-address=127.0.0.1",
        f"--port={port}",
        "--num-cpus=2",
        "--disable-usage-stats",
    ]
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with services.folder() as here:
        options = [f"--temp-dir={here}", "--include-dashboard=false", "--disable-usage-stats"]
        subprocess.run([*ray, *start, *options], cwd=here, env=bare, check=True, capture_output=True)
        try:
            address = f"hydra.launcher.address=127.0.0.1:{port}"
            done = clusters.run(tmp_path, "hidden=8,16", "data=synthetic", "tracking=off", *ON, address)
            assert done.returncode == 0, done.stderr
            assert "2 runs (2 finished)" in done.stdout
        finally:
            for process in psutil.process_iter(["cmdline"]):
                with contextlib.suppress(psutil.NoSuchProcess):  # it ends with another
                    if str(here) in " ".join(process.info["cmdline"] or []):
                        process.kill()


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    address = f"hydra.launcher.address=127.0.0.1:{services.free_port()}"
    done = clusters.run(tmp_path, "hidden=8", "data=synthetic", "tracking=off", *ON, address)
    assert done.returncode == 2
    assert "error: Ray cannot be reached at 127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr
