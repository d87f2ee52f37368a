"""Searches that prune, under launchers that need no cluster; tests/services/ has the others."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import clusters
import faulty
import pytest
import services
from clusters import SEARCH
from kit import wait_for

from mnist_exp.disk import ledger

QUIET = "hydra.sweeper.report=false"
TWO = {"local": "hydra.launcher.workers=2", "joblib": "hydra.launcher.n_jobs=2"}


IN_POSTGRESQL = ("hydra.sweeper.storage='${oc.env:OPTUNA_STORAGE}'", "hydra.launcher.workers=4")
PASSWORD = uuid.uuid4().hex  # and not in a difference of the code


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address with a password, which the server does not ask for."""
    pytest.importorskip("psycopg2", reason='psycopg2 is not installed: pip install -e ".[server]"')
    with services.postgres() as uri:
        yield uri.replace("postgres@", f"postgres:{PASSWORD}@")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", TWO)
def test_trials_end_as_study_ledger_and_mlflow_say(tmp_path: Path, launcher: str) -> None:
    done = clusters.run(tmp_path, *SEARCH, f"hydra/launcher={launcher}", TWO[launcher], QUIET)
    assert done.returncode == 0, done.stderr
    ends = clusters.ends(tmp_path)
    assert set(ends) == {"COMPLETE", "PRUNED"}
    assert ends.total() == 8
    assert f"{ends['PRUNED']} of 8 runs were pruned: " in done.stdout


@pytest.mark.postgres
def test_a_study_in_postgresql(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four workers report to it at once; its address is nowhere written down."""
    monkeypatch.setenv("OPTUNA_STORAGE", database)
    done = clusters.run(tmp_path, *SEARCH, *IN_POSTGRESQL, QUIET)
    assert done.returncode == 0, done.stderr
    assert clusters.ends(tmp_path).total() == 8
    done = clusters.run(tmp_path, "resume=last", "n_trials=12", QUIET)
    assert done.returncode == 0, done.stderr
    ends = clusters.ends(tmp_path)
    assert set(ends) == {"COMPLETE", "PRUNED"}
    assert ends.total() == 12
    assert not list(tmp_path.rglob("optuna.journal"))
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and PASSWORD.encode() in p.read_bytes()]


@pytest.mark.postgres
def test_driver_and_worker_killed_with_the_study_in_postgresql(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", database)
    clusters.killed_and_resumed(tmp_path, *IN_POSTGRESQL, QUIET)


@pytest.mark.slow
def test_a_free_worker_gets_the_next_trial_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first trial ends only after all others have: waiting for a batch with it would never end."""
    (tmp_path / "space.py").write_text(
        "def first_waits(trial):\n    return {'+model.mode': 'fine' if trial.number else 'wait'}\n"
    )
    modules = (str(tmp_path), str(Path(faulty.__file__).parent), os.environ["PYTHONPATH"])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(modules))
    model = (
        "hidden=null",
        "model=custom",
        "model._target_=faulty.Faulty",
        "+model.after=0",
        "hydra.sweeper.space=space.first_waits",
    )
    size = ("data=synthetic", "epochs=1", "threads=1", "tracking=off", "lr=interval(0.01,0.1)")
    typed = ("search=random", "n_trials=7", "hydra.launcher.workers=2", *model, *size, QUIET)
    with subprocess.Popen(clusters.command(*typed), cwd=tmp_path, stdout=subprocess.DEVNULL) as driver:
        try:
            wait_for(lambda: len(ended(tmp_path)) == 6, "all others have ended")
            assert 0 not in ended(tmp_path)
            (tmp_path / "go").touch()
            assert driver.wait() == 0
        finally:
            driver.terminate()
    times = ended(tmp_path)
    assert sorted(times) == list(range(7))
    assert times[0] == max(times.values())


def ended(folder: Path) -> dict[int, int]:
    """When each run of the sweep in *folder* ended that has, by its number."""
    entries = {int(p.parent.name): ledger.read(p.parent) for p in folder.glob("outputs/sweeps/*/*/*/ledger.json")}
    return {number: entry.ended_ms for number, entry in entries.items() if entry.state == "finished" and entry.ended_ms}
