"""Writes that fail or are interrupted leave the old state or the new one, never a mixture."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trainings
from hooks import held, hook
from kit import (
    LONG,
    OFF,
    QUIET,
    SMALL,
    clean,
    command,
    end,
    forked,
    only_run,
    runs,
    same_weights,
    start,
    wait_for,
    whole,
)
from nth import Nth

from mnist_exp.config import Config
from mnist_exp.disk import journal, ledger
from mnist_exp.disk.files import write_json
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import ExperimentError

Tiny = Callable[..., Config]
Injected = Callable[..., None]


@pytest.fixture
def calm(tiny: Tiny) -> Path:
    """An undisturbed run."""
    trainings.run(tiny(), Path("calm"), extras=False)
    return Path("calm")


def goes_on(config: Config, folder: Path, calm: Path) -> None:
    """Asserts that the run in *folder* resumes, ends as *calm* did, and leaves no temporary file."""
    whole(folder)
    assert trainings.run(config, folder, extras=False).state == "finished"
    whole(folder)
    same_weights(folder, calm)
    clean(folder)


@pytest.mark.faults(3)
@pytest.mark.parametrize(
    ("error", "forever"),
    [(errno.EIO, False), (errno.EIO, True), (errno.ENOSPC, False), (errno.ENOSPC, True)],
    ids=["EIO once", "EIO for ever", "ENOSPC once", "ENOSPC for ever"],
)
def test_any_write_may_fail(error: int, forever: bool, calm: Path, tiny: Tiny, injected: Injected) -> None:
    config, n = tiny(), 0
    while True:
        n += 1
        folder = Path(f"run-{n}").absolute()
        with Nth(folder, n, error, forever) as nth:
            try:
                state = trainings.run(config, folder, extras=False).state
            except (ExperimentError, OSError):
                state = "failed"
        if not nth.hit:
            break
        if state == "finished":  # an obsolete file could not be removed
            assert ledger.read(folder).state == "finished"
        goes_on(config, folder, calm)
        shutil.rmtree(folder)
    assert n > 30, "it did not write as often as expected"
    injected(n - 1)


@pytest.mark.faults(46)
@pytest.mark.parametrize("what", ["deleted", "renamed", "full"])
def test_a_folder_that_goes_while_a_sweep_runs(
    what: str, monkeypatch: pytest.MonkeyPatch, scratch: Path, injected: Injected
) -> None:
    """The run that trains cannot be written any more; the next ones find no folder, or the same under its new name."""
    folder = scratch / "project"
    folder.mkdir()
    if what == "full" and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]).returncode:
        pytest.skip("only the superuser can mount a small disk")
    monkeypatch.chdir(folder)
    one_by_one = ("hydra.launcher.pack=off", "hydra.launcher.workers=1")
    try:
        with held(scratch / "held") as hold:
            sweep = start("-m", *LONG, "epochs=8", "seed=0,1", *one_by_one, OFF, QUIET, **hold)
            wait_for(lambda: runs(folder) and len(journal.read(runs(folder)[0])) == 2)
            monkeypatch.chdir(scratch)
            if what == "deleted":
                shutil.rmtree(folder)
            elif what == "renamed":
                folder.rename("moved")
            else:
                with contextlib.suppress(OSError), (folder / "fill").open("wb") as file:
                    while True:
                        os.write(file.fileno(), bytes(512))
        code, out, err = end(sweep)
    finally:
        if what == "full":
            subprocess.run(["umount", "-l", str(folder)], check=True)
    assert "[1/2] seed=0  FAILED: " in out, out
    assert code == 1
    if what == "renamed":
        assert ledger.read(runs(Path("moved"))[1]).state == "finished"
        assert "resume=" in err
    else:
        assert "[2/2] seed=1  FAILED: " in out
        assert " (in " not in out + err  # as an unforeseen error is shown
    injected()


@pytest.mark.faults(2)
def test_any_write_may_be_the_last(calm: Path, tiny: Tiny, injected: Injected) -> None:
    config, n = tiny(), 0
    while True:
        n += 1
        folder = Path(f"run-{n}").absolute()

        def doomed(folder: Path = folder, n: int = n) -> None:
            with Nth(folder, n):
                trainings.run(config, folder, extras=False)

        if forked(doomed) != -signal.SIGKILL:
            break
        goes_on(config, folder, calm)
        shutil.rmtree(folder)
    assert n > 30
    injected(n - 1)


@pytest.mark.faults(3)
@pytest.mark.parametrize("error", [errno.EIO, None], ids=["fails", "killed"])
def test_a_plan_is_the_old_one_or_the_new_one(error: int | None, injected: Injected) -> None:
    old, new = Plan(id="s", typed=["lr=1"], keys=[]), Plan(id="s", typed=["lr=1", "lr=2"], keys=["lr"])
    n = 0
    while True:
        n += 1
        folder = Path(f"sweep-{n}").absolute()
        folder.mkdir()
        old.write(folder)

        def doomed(folder: Path = folder, n: int = n) -> None:
            with Nth(folder, n, error):
                new.write(folder)

        code = forked(doomed)
        assert (folder / "sweep.json").read_text() in (_text(old, folder), _text(new, folder))
        if code == 0:
            break
    assert n > 4
    injected(n - 1)


def _text(plan: Plan, folder: Path) -> str:
    write_json(folder / "expected.json", vars(plan))
    text = (folder / "expected.json").read_text()
    # The plan has the pid of its writer: a child process here.
    written = (folder / "sweep.json").read_text().splitlines()
    pid = next(line for line in written if '"pid"' in line)
    return "\n".join(pid if '"pid"' in line else line for line in text.splitlines()) + "\n"


@pytest.mark.faults(3)
@pytest.mark.parametrize("n", [1, 5, 40])
def test_a_failing_disk_is_reported_in_a_sentence(n: int, injected: Injected) -> None:
    fault = f'{{"root": "{Path.cwd()}/outputs", "n": {n}, "error": {errno.EIO}}}'
    code, out, err = command(*SMALL, OFF, **hook(MNIST_EXP_FAULT=fault))
    assert code in (1, 2), out + err
    assert "error" in err
    assert "nput/output error" in err
    if (folders := list(Path().glob("outputs/runs/*/*/ledger.json"))) and code == 1:
        assert command(f"resume={folders[0].parent}")[0] == 0
        whole(only_run())
    injected()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = Path("disk").absolute()
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only the superuser can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.faults(8)
def test_a_full_disk_costs_no_finished_epoch(small_disk: Path, injected: Injected) -> None:
    run_dir = f"hydra.run.dir={small_disk}/run"
    wide = [*SMALL, "hidden=64", "epochs=6"]  # 600 kB a state
    code, _, err = command(*wide, OFF, run_dir)
    assert code == 1
    assert f"{small_disk}/run cannot be written: No space left on device." in err
    assert "make room, then resume it" in err
    whole(small_disk / "run")
    reached = ledger.read(small_disk / "run").epoch
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    code, out, err = command(f"resume={small_disk}/run")
    assert code == 0, err
    assert f"Going on after epoch {reached}." in out or reached == 0
    whole(small_disk / "run")
    injected()


@pytest.mark.faults(8)
def test_a_job_without_room_does_not_stop_the_others(small_disk: Path, injected: Injected) -> None:
    # One worker: of two at once, the small job may also write to the full disk and fail.
    one = "hydra.launcher.workers=1"
    code, _, err = command("-m", *SMALL, "hidden=8,200", "epochs=4", OFF, QUIET, one, f"hydra.sweep.dir={small_disk}/s")
    assert code == 1
    assert "1 of 2 runs did not finish" in err
    assert "No space left on device" in err
    assert ledger.read(small_disk / "s" / "0").state == "finished"
    injected()


@pytest.mark.faults(9)
def test_a_full_tracking_disk_costs_no_training(small_disk: Path, injected: Injected) -> None:
    uri = f"sqlite:///{small_disk}/mlflow.db"
    (small_disk / "another").write_bytes(bytes(300_000))  # a new database alone would just fit
    code, out, err = command(*SMALL, "tracking.figures=false", MLFLOW_TRACKING_URI=uri)
    assert code == 0, err
    assert "disk is full" in err
    assert "does not have everything yet; it is kept in the run folder" in err
    assert ledger.read(only_run()).state == "finished"
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    code, out, err = command(module="sync", MLFLOW_TRACKING_URI=uri)
    assert code == 0, err
    assert ": 1. There already: 0." in out
    injected()


@pytest.mark.faults(10)
@pytest.mark.parametrize("many", [[], ["-m"]], ids=["run", "sweep"])
def test_a_file_where_the_folder_should_be(many: list[str], injected: Injected) -> None:
    Path("outputs").write_text("in the way")
    code, out, err = command(*many, *SMALL, OFF)
    assert code == 2, out + err
    assert "outputs" in err
    assert "cannot be used: " in err
    assert Path("outputs").read_text() == "in the way"
    injected()


@pytest.mark.faults(10)
@pytest.mark.parametrize("many", [[], ["-m"]], ids=["run", "sweep"])
def test_outputs_that_are_read_only(many: list[str], small_disk: Path, injected: Injected) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    new_dir = f"hydra.{'sweep' if many else 'run'}.dir={small_disk}/new"
    code, out, err = command(*many, *SMALL, OFF, new_dir)
    assert code == 2, out + err
    assert f"{small_disk}/new cannot be used: Read-only file system." in err
    injected()


@pytest.mark.faults(2)
def test_killed_in_the_middle_of_a_checkpoint_by_the_command_line(injected: Injected) -> None:
    calm = start(*SMALL, OFF, "hydra.run.dir=calm")
    fault = f'{{"root": "{Path.cwd()}/run/checkpoints", "n": 9}}'
    doomed = start(*SMALL, OFF, "hydra.run.dir=run", **hook(MNIST_EXP_FAULT=fault))
    assert end(doomed)[0] == -signal.SIGKILL
    assert end(calm)[0] == 0
    whole(Path("run"))
    code, out, err = command("resume=run")
    assert code == 0, err
    assert "Going on after epoch" in out
    same_weights(Path("run"), Path("calm"))
    clean()
    injected()
