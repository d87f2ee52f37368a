"""The eight points under the launchers that need no service; tests/test_slurm.py and test_ray.py have the others."""

import subprocess
import sys
from pathlib import Path

import clusters
import pytest
from clusters import EPOCHS, GRID, SIZE, VICTIM

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

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


def test_joblib_one_of_them_killed(tmp_path: Path) -> None:
    """Hydra's joblib launcher gives up the whole sweep; our resume finishes it all the same."""
    pool = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = clusters.run(tmp_path, *GRID, *SIZE, *pool, QUIET, kill=True)
    assert done.returncode == 1
    assert "TerminatedWorkerError" in done.stderr
    assert "never started" in clusters.states(tmp_path)
    assert clusters.run(tmp_path, "resume=last", *pool, QUIET).returncode == 0
    assert clusters.states(tmp_path) == ["finished"] * 8
    # Here each job has a courier of its own, and joblib may have killed one that had something left to say.
    subprocess.run([sys.executable, "-m", "mnist_exp.sync"], cwd=tmp_path, check=True, capture_output=True)
    assert clusters.tracked(tmp_path) == {"FINISHED": 8}
