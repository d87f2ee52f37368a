"""What `cluster=slurm` keeps in a sweep's folder: pickles and ids of jobs, which a foreign one could have forged."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from report_fixtures import make_run

pytest.importorskip("submitit", reason='submitit is not installed: pip install -e ".[slurm]"')

from mnist_exp.disk.files import write_json
from mnist_exp.errors import ConfigError
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


def test_a_note_from_elsewhere_makes_no_job_of_the_user_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver would follow that job, and advise to cancel it."""
    monkeypatch.setattr(shutil, "which", lambda name: name)
    scripts = {"7": "/home/me/mine/.submitit/7_submission.sh", "8": str(Path("theirs/.submitit/8.sh").absolute())}
    monkeypatch.setattr(
        slurm, "look", lambda names, what="%T": scripts if what == "%o" else dict.fromkeys(names, "RUNNING")
    )
    for home, known in (("theirs", {"1": "8"}), ("outputs/sweeps/day/a", {"0": "7", "1": "8", "2": "9"})):
        Path(home).mkdir(parents=True)
        write_json(Path(home) / "slurm.json", {"0": "7", "1": "8", "2": "9"})
        assert slurm.Slurm({"submitit_folder": home}, Path(home)).known() == known
    write_json(Path("theirs/slurm.json"), [7])
    assert slurm.Slurm({"submitit_folder": "theirs"}, Path("theirs")).known() == {}
    for home in ("theirs", "outputs/sweeps/day/a"):
        (Path(home) / "slurm.json").write_text("[" * 99_999)
    assert slurm.Slurm({"submitit_folder": "theirs"}, Path("theirs")).known() == {}
    with pytest.raises(ConfigError, match=r"slurm\.json is damaged: it is nested too deeply"):
        slurm.Slurm({"submitit_folder": home}, Path(home)).known()
