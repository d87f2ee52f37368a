"""Jobs of a sweep that end before their first epoch: why stands in their ledgers, too."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import TINY
from trainings import run

from mnist_exp.config import Config
from mnist_exp.disk import ledger
from mnist_exp.run import claim
from mnist_exp.run.session import Task
from mnist_exp.sweep import cluster

Tiny = Callable[..., Config]
Command = Callable[..., tuple[int, str, str]]
SWEEP = ("-m", *TINY, "hydra.sweeper.report=false", "hydra.sweep.dir=sweep")


@pytest.mark.integration
@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_a_sweep_whose_images_cannot_be_had_starts_nothing(launcher: str, command: Command) -> None:
    code, _, err = command(*SWEEP, "data=mnist", "data.root=/dev/null/x", "seed=0,1", f"hydra/launcher={launcher}")
    assert code == 2
    assert "/dev/null/x cannot be written" in err
    assert not list(Path().glob("sweep/*/ledger.json"))


@pytest.mark.integration
def test_a_cluster_without_its_extra_leaves_no_folder(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """It would be the new `last`."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "mnist_exp.sweep.cluster.ray", raising=False)
    monkeypatch.delattr(cluster, "ray", raising=False)
    code, _, err = command("-m", *TINY, "seed=0,1", "cluster=ray", "hydra.sweeper.report=false")
    assert code == 2, err
    assert '".[ray]"' in err
    assert not list(Path().glob("outputs/**/*"))


@pytest.mark.integration
def test_a_job_that_is_killed_at_its_start_says_so(command: Command) -> None:
    settings = [setting for setting in SWEEP if not setting.startswith("hidden=")]
    model = ("hidden=null", "model=custom", "model._target_=faulty.Faulty", "+model.mode=start")
    code, out, err = command(*settings, *model, "hydra.launcher.workers=1")
    assert code == 1
    entry = ledger.read(Path("sweep/0"))
    assert (entry.state, entry.sweep) == ("killed", "sweep")
    assert entry.reason == "Its process was killed by SIGKILL (out of memory?)."
    assert entry.reason in err
    assert "1 killed" in out


@pytest.mark.integration
def test_what_a_run_has_said_itself_is_kept(tiny: Tiny) -> None:
    run(tiny(), Path("sweep/0"))
    claim.mark_killed(Task(tiny(), Path("sweep/0")), "sweep", "Killed.")
    assert ledger.read(Path("sweep/0")).state == "finished"


def test_a_run_that_somebody_holds_is_not_lost(tiny: Tiny) -> None:
    folder = Path("sweep/0")
    folder.mkdir(parents=True)
    with ledger.hold(folder):
        claim.mark_killed(Task(tiny(), folder), "sweep", "Killed.")
    assert not (folder / "ledger.json").exists()
