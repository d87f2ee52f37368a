"""What a job leaves behind for `cluster=slurm` is a pickle: that of a foreign sweep stays closed."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from report_fixtures import make_run

pytest.importorskip("submitit", reason='submitit is not installed: pip install -e ".[slurm]"')

from mnist_exp.sweep.cluster import slurm
from mnist_exp.sweep.job import Job


@pytest.mark.parametrize(("home", "outcome"), [("outputs/sweeps/a/b", "unpickled"), ("theirs", "It left no result.")])
def test_a_result_from_elsewhere_is_not_unpickled(home: str, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ledger says how it ended."""
    make_run(Path(home) / "0", ["lr=0.1"], 0.9)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    jobs = slurm.Slurm({"submitit_folder": home}, Path(home))
    pickled = SimpleNamespace(result=lambda: "unpickled")
    monkeypatch.setattr(jobs, "handle", lambda name: pickled)
    assert jobs.result("7", Job(0, [], Path(home))) == outcome
