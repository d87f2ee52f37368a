"""Processes that are killed or stopped: their runs are resumed and end as undisturbed ones."""

import multiprocessing
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import psutil
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
    only_sweep,
    processes,
    runs,
    same_weights,
    sent_once,
    start,
    states,
    wait_for,
    whole,
)

from mnist_exp.config import Config
from mnist_exp.config.stores import uri_for
from mnist_exp.disk import journal, ledger, plan
from mnist_exp.engine.events import EpochEnd, Observer
from mnist_exp.errors import BusyError
from mnist_exp.sweep import home as homes
from mnist_exp.sweep.job import Job
from mnist_exp.tracking.store import open_store

Tiny = Callable[..., Config]
Injected = Callable[..., None]


def begun(epochs: int = 2) -> Path | None:
    """The first run with *epochs* epochs, if any."""
    return next((folder for folder in runs() if len(journal.read(folder)) >= epochs), None)


@final
class Bomb(Observer):
    """Kills its process *seconds* after so many of its *epochs*."""

    def __init__(self, epochs: int, seconds: float) -> None:
        self.left, self.seconds = epochs, seconds

    def watch(self, about: object, control: object) -> "list[Observer]":
        self.count_down()
        return [self]

    def on_epoch(self, event: EpochEnd) -> None:
        self.count_down()

    def count_down(self) -> None:
        if self.left == 0:
            signal.setitimer(
                signal.ITIMER_REAL, self.seconds
            )  # SIGALRM ends a process as SIGKILL does: without cleanup
        self.left -= 1


@pytest.mark.faults(1)
def test_killed_at_random_until_it_is_done(tiny: Tiny, injected: Injected) -> None:
    config, rng, kills = tiny(epochs=60), random.Random(5), 0
    began = time.monotonic()
    trainings.run(config, Path("calm"), extras=False)
    pace = (time.monotonic() - began) / 60
    while True:
        bomb = Bomb(
            rng.randint(0, 12), rng.uniform(0.01, 1.5) * pace
        )  # by epochs, or a fast machine might finish first

        def doomed(bomb: Bomb = bomb) -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            trainings.run(config, Path("wild"), watch=bomb.watch, extras=False)

        if forked(doomed) == 0:
            break
        kills += 1
        whole(Path("wild"))
    assert kills >= 3
    same_weights(Path("wild"), Path("calm"))
    assert [row["epoch"] for row in journal.read(Path("wild"))] == list(range(1, 61))
    clean()
    injected(kills)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.faults(1)),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.faults(5)),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.faults(6)),
        pytest.param(signal.SIGUSR1, -signal.SIGUSR1, marks=pytest.mark.faults(7)),
        pytest.param(signal.SIGUSR2, -signal.SIGUSR2, marks=pytest.mark.faults(7)),
    ],
)
def test_a_run_that_is_stopped_goes_on(number: int, code: int, injected: Injected) -> None:
    process = start(*LONG, "epochs=40000", OFF)
    folder = wait_for(begun)
    process.send_signal(number)
    asked = time.monotonic()
    left, _, err = end(process)
    assert left == code, err
    assert time.monotonic() - asked < 10
    whole(folder)
    if code > 0:
        assert ledger.read(folder).state == "killed"
        (again,) = re.findall(r"Go on with:\n +python -m mnist_exp\.train (resume=\S+)", err)
        assert again == f"resume={folder.relative_to(Path.cwd()) if folder.is_absolute() else folder}"
    reached = len(journal.read(folder))
    left, out, err = command(f"resume={folder}", f"epochs={reached + 2}", "force=true")
    assert left == 0, err
    # The checkpoint is written first: a kill may come between the two.
    assert f"Going on after epoch {reached}." in out or f"Going on after epoch {reached + 1}." in out
    assert [row["epoch"] for row in journal.read(folder)] == list(range(1, reached + 3))
    clean()
    injected()


@pytest.mark.faults(6)
def test_the_second_ctrl_c_stops_at_once(injected: Injected) -> None:
    process = start(
        "model=custom",
        "model._target_=faulty.Faulty",
        "+model.mode=hang",
        "+model.after=600",
        *LONG[:5],
        "epochs=9",
        OFF,
    )
    wait_for(Path("hangs").exists)  # it hangs in a batch: the first Ctrl-C alone would wait for ever
    process.send_signal(signal.SIGINT)
    assert process.stdout
    assert any("Stopping…" in line for line in process.stdout)  # two signals at once would be one
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130  # well before it wakes
    whole(only_run())
    injected()


@pytest.mark.faults(5)
def test_sigterm_from_inside_a_step_lets_it_finish(injected: Injected) -> None:
    own = ["model=custom", "model._target_=faulty.Faulty", "+model.after=10", *SMALL[:5], *SMALL[6:], OFF]
    code, _, err = command(*own, "+model.mode=fine", "hydra.run.dir=calm")
    assert code == 0, err
    folder = Path("outputs/runs/day/run")
    typed = [*own, "+model.mode=sigterm", f"hydra.run.dir={folder}"]
    for epoch in (2, 3):  # of 7 batches; each attempt gets SIGTERM in its eleventh
        code, _, err = command(*typed)
        assert code == 143, err
        assert f"Stopped in epoch {epoch}." in err
        assert Path("steps").read_text() == "1", "it went on after the batch"
        entry = ledger.read(folder)
        assert (entry.state, entry.epoch) == ("killed", epoch - 1)
        typed = [f"resume={folder}"]
    assert command(*typed)[0] == 0
    same_weights(folder, Path("calm"))
    assert [row["epoch"] for row in journal.read(folder)] == [1, 2, 3]
    clean()
    injected(2)


@pytest.mark.faults(5)
def test_mlflow_says_killed_and_later_finished(injected: Injected) -> None:
    with held() as hold:
        process = start(*SMALL, "epochs=12", "tracking.figures=false", "tracking.patience=60", **hold)
        folder = wait_for(begun)
        wait_for((folder / "mlflow.json").exists)
        process.send_signal(signal.SIGTERM)
    code, out, err = end(process)
    assert code == 143, out + err
    store = open_store(uri_for(None), "mnist_exp")
    (tracked,) = store.client.search_runs([store.experiment_id])
    assert tracked.info.status == "KILLED"
    assert command(f"resume={folder}")[0] == 0
    (tracked,) = store.client.search_runs([store.experiment_id])
    assert tracked.info.status == "FINISHED"
    sent_once(store.client, tracked.info.run_id, epochs=12)
    injected()


@pytest.mark.faults(4)
def test_no_worker_outlives_its_driver_and_nothing_runs_twice(injected: Injected) -> None:
    grid = ["epochs=2,30,31", "hidden=8", *LONG[:5], *LONG[7:], QUIET, "hydra.launcher.workers=3"]
    with held() as hold:
        driver = start("-m", *grid, OFF, **hold)
        wait_for(lambda: len(processes()) >= 4)  # the driver and three workers
        wait_for(lambda: states()[0] == "finished")
        wait_for(lambda: len(list(Path().glob("outputs/sweeps/*/*/*/metrics.jsonl"))) == 3)
        driver.kill()
        assert end(driver)[0] == -signal.SIGKILL
    wait_for(lambda: not processes())
    before = {f: ledger.read(f) for f in runs() if ledger.read(f).state == "finished"}
    code, out, err = command("-m", "resume=last")
    assert code == 0, err
    assert f"3 runs, {len(before)} of them done already" in out
    assert states() == ["finished"] * 3
    for folder, entry in before.items():
        assert (ledger.read(folder).ended_ms, ledger.read(folder).pid) == (entry.ended_ms, entry.pid)
    for folder in runs():
        whole(folder)
    clean()
    injected()


@pytest.mark.faults(26)
@pytest.mark.parametrize("victim", ["sender", "forkserver"])
def test_a_helper_that_is_killed(victim: str, injected: Injected) -> None:
    grid = ["hidden=8,12", *LONG[:5], "epochs=30", *LONG[7:], QUIET, "tracking.figures=false", "tracking.patience=2"]
    with held() as hold:
        driver = start("-m", *grid, **hold)
        wait_for(begun)
        children = psutil.Process(driver.pid).children()
        (helper,) = [child for child in children if victim in " ".join([child.name(), *child.cmdline()])]
        helper.kill()
    code, out, err = end(driver)
    if victim == "sender":
        assert code == 0, err
        assert "Send it with: python -m mnist_exp.sync" in out + err
    if code:
        code, out, err = command("-m", "resume=last")
        assert code == 0, err
    assert states() == ["finished"] * 2
    code, out, err = command(module="sync")
    assert code == 0, err
    store = open_store(uri_for(None), "mnist_exp")
    tracked = store.client.search_runs([store.experiment_id])
    assert [r.info.status for r in tracked] == ["FINISHED"] * 2
    for each in tracked:
        sent_once(store.client, each.info.run_id, 30)
    clean()
    injected()


@pytest.mark.faults(26)
def test_a_worker_that_is_killed_costs_one_run_which_goes_on(injected: Injected) -> None:
    grid = ["hidden=8,12", *LONG[:5], "epochs=30", *LONG[7:], QUIET, OFF, "hydra.launcher.pack=off"]
    with held() as hold:
        driver = start("-m", *grid, **hold)
        folder = wait_for(begun)
        os.kill(ledger.read(folder).pid, signal.SIGKILL)
    code, out, err = end(driver)
    assert code == 1, out + err
    assert "Its process was killed by SIGKILL (out of memory?)." in err
    assert sorted(states()) == ["finished", "killed"]
    before = journal.read(folder)
    code, out, err = command("-m", "resume=last")
    assert code == 0, err
    assert states() == ["finished"] * 2
    assert [row["epoch"] for row in journal.read(folder)] == list(range(1, 31))
    assert journal.read(folder)[: len(before)] == before
    clean()
    injected()


@pytest.mark.faults(27)
def test_two_sweeps_in_one_second(injected: Injected) -> None:
    grid = ["hidden=8,12", *LONG[:5], "epochs=1", *LONG[7:], QUIET, OFF]
    Path("crowd").mkdir()
    both = [start("-m", *grid, **hook(MNIST_EXP_INSTANT=str(Path("crowd").absolute()))) for _ in range(2)]
    assert [end(process)[0] for process in both] == [0, 0]
    homes = [path.parent for path in Path().glob("outputs/sweeps/*/*/sweep.json")]
    assert [home.parent.name for home in homes] == ["1970-01-01"] * 2
    assert all(home.name.startswith("00-00-00-") for home in homes), "the second was not the same"
    assert len({plan.read(home).id for home in homes}) == 2
    for home in homes:
        assert [ledger.read(home / str(i)).state for i in range(2)] == ["finished"] * 2
        assert (home / "multirun.yaml").exists()
    assert len(runs()) == 4
    injected()


@pytest.mark.faults(28)
def test_a_second_resume_is_refused_and_names_the_holder(injected: Injected) -> None:
    with held() as hold:
        first = start(*LONG, OFF, **hold)
        folder = wait_for(begun)
        code, _, err = command(f"resume={folder}")
        assert code == 2
        assert f"is being trained by process {first.pid} on " in err
        first.kill()
        first.communicate()
    with ledger.hold(folder):  # free at once
        injected()


@pytest.mark.faults(28)
def test_of_many_resumers_one_trains(tiny: Tiny, injected: Injected) -> None:
    config, fork = tiny(epochs=3), multiprocessing.get_context("fork")
    together, refused = fork.Barrier(6), fork.Semaphore(0)

    def last_out(about: object, control: object) -> list[Observer]:
        for _ in range(5):
            assert refused.acquire(timeout=120)
        return []

    def try_it() -> None:
        together.wait(120)
        try:
            trainings.run(config, Path("run"), watch=last_out, extras=False)
        except BusyError:
            refused.release()
            os._exit(7)

    crowd = [fork.Process(target=try_it) for _ in range(6)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join(240)
    assert sorted(each.exitcode or 0 for each in crowd) == [0, 7, 7, 7, 7, 7]
    assert [row["epoch"] for row in journal.read(Path("run"))] == [1, 2, 3]
    injected()


@pytest.mark.faults(28)
@pytest.mark.parametrize("again", [False, True], ids=["new", "resume=last"])
def test_of_two_sweeps_that_want_one_folder_at_once_one_trains(
    again: bool, command: Callable[..., tuple[int, str, str]], injected: Injected
) -> None:
    """Both have found it free; the one that has it waits until the other is refused."""
    folder = Path("outputs/sweeps/2026-01-31/10-00-00-abcdef")
    typed = ["-m", *SMALL, OFF, QUIET, "hydra/launcher=basic", f"hydra.sweep.dir={folder}"]
    if again:
        assert command(*typed, "hidden=8")[0] == 0
        typed = ["-m", "resume=last", OFF, QUIET, "hydra/launcher=basic"]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    fork = multiprocessing.get_context("fork")
    together, refused = fork.Barrier(2), fork.Semaphore(0)
    held, launch = homes.held, homes.Home.launch

    def at_once(path: Path) -> Any:
        together.wait(120)
        return held(path)

    def last_out(self: homes.Home, jobs: list[Job], total: int = 0) -> Any:
        assert refused.acquire(timeout=120)
        for path, data in before.items():
            assert path.read_bytes() == data or path.name in ("sweep.json", "multirun.yaml")  # its own
        return launch(self, jobs, total)

    def try_it(values: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(homes, "held", at_once)
            patch.setattr(homes.Home, "launch", last_out)
            code, _, err = command(*typed, values)
        if code:
            assert "is being run by " in err, err
            refused.release()
        os._exit(code)

    crowd = [fork.Process(target=try_it, args=(values,)) for values in ("hidden=8,12", "hidden=8,9")]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join(240)
    assert sorted(each.exitcode or 0 for each in crowd) == [0, 2]
    won = ["hidden=8,12", "hidden=8,9"][crowd[1].exitcode == 0]
    assert won in plan.read(folder).typed
    assert [ledger.read(folder / str(i)).state for i in range(2)] == ["finished"] * 2
    assert not (folder / "2").exists()
    injected()


@pytest.mark.faults(28)
def test_a_sweep_that_another_process_has_gone_on_with_meanwhile_is_not_gone_on_with_by_its_old_plan(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, injected: Injected
) -> None:
    """The other was faster: between the plan that was read and the lock that was taken."""
    typed = ["-m", *SMALL, OFF, QUIET, "hydra/launcher=basic"]
    assert command(*typed, "hidden=8")[0] == 0
    folder, held = only_sweep(), homes.held

    def late(path: Path) -> Any:
        monkeypatch.setattr(homes, "held", held)
        assert end(start("-m", "resume=last", "hidden=8,12", OFF, QUIET, "hydra/launcher=basic"))[0] == 0
        return held(path)

    monkeypatch.setattr(homes, "held", late)
    code, _, err = command("-m", "resume=last", "hidden=8,9", OFF, QUIET, "hydra/launcher=basic")
    assert code == 2
    assert "was gone on with by another process meanwhile. " in " ".join(err.split()) + " "
    assert plan.read(folder).keys == ["hidden"]
    assert [ledger.read(folder / str(i)).params["hidden"] for i in range(2)] == ["8", "12"]
    injected()


@pytest.mark.faults(28)
def test_a_new_sweep_whose_folder_another_process_has_filled_meanwhile_leaves_that(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, injected: Injected
) -> None:
    typed = ["-m", *SMALL, OFF, QUIET, "hydra/launcher=basic", "hydra.sweep.dir=ss"]
    hold = plan.hold

    def late(path: Path) -> Any:
        monkeypatch.setattr(plan, "hold", hold)
        assert end(start(*typed, "hidden=8"))[0] == 0
        return hold(path)

    monkeypatch.setattr(plan, "hold", late)
    code, _, err = command(*typed, "hidden=8,9")
    assert code == 2
    assert "ss has runs already" in err
    assert ledger.read(Path("ss/0")).state == "finished"
    assert plan.read(Path("ss")).keys == []
    injected()


@pytest.mark.faults(29)
def test_the_same_point_twice(injected: Injected) -> None:
    code, out, err = command("-m", "hidden=8,8", "lr=1e-3,0.001", *LONG[:5], "epochs=1", *LONG[7:], QUIET, OFF)
    assert code == 0, err
    assert "3 of 4 points are the same as others; each runs once." in out
    assert len(plan.read(only_sweep()).points) == 1
    injected()


@pytest.mark.faults(29)
@pytest.mark.parametrize(
    ("again", "left", "message"),
    [
        ("hydra.sweep.dir=outputs/sweeps/day/s", 2, "s has runs already"),
        ("resume=s", 0, "2 runs, 2 of them done already"),
    ],
    ids=["typed", "resumed"],
)
def test_the_same_sweep_again(again: str, left: int, message: str, injected: Injected) -> None:
    grid = ["-m", "hidden=8,12", *LONG[:5], "epochs=1", *LONG[7:], QUIET, OFF]
    assert command(*grid, "hydra.sweep.dir=outputs/sweeps/day/s")[0] == 0
    before = {path: path.read_bytes() for path in Path().rglob("ledger.json")}
    code, out, err = command(*grid, again)
    assert code == left, err
    assert message in out + err
    assert {path: path.read_bytes() for path in Path().rglob("ledger.json")} == before
    injected()


@pytest.mark.faults(30)
@pytest.mark.parametrize("days", [-1, 1])
def test_the_clock_is_set_while_a_sweep_runs(days: int, injected: Injected) -> None:
    """In driver, workers and publisher alike, with a time limit and tracking."""
    clock = Path("clock").absolute()
    clock.write_text("0")
    grid = ["hidden=8,12", *LONG[:5], "epochs=6", *LONG[7:], "tracking.figures=false", "tracking.patience=60"]
    began = time.time_ns() // 1_000_000
    with held() as hold:
        limit = "hydra.launcher.job_timeout=3600"
        sweep = start("-m", *grid, limit, **hold, MNIST_EXP_CLOCK=str(clock))
        wait_for(lambda: [len(journal.read(folder)) for folder in runs()] == [2, 2])
        clock.write_text(f"{days * 24 * 3600}")
    code, out, err = end(sweep)
    assert code == 0, out + err
    assert command(module="sync")[0] == 0  # sends what a busy machine left unsent
    store = open_store(uri_for(None), "mnist_exp")
    tracked = {r.data.tags["run.id"]: r for r in store.client.search_runs([store.experiment_id])}
    assert len(tracked) == 2
    for folder in runs():
        whole(folder)
        rows, entry = journal.read(folder), ledger.read(folder)
        assert [row["epoch"] for row in rows] == list(range(1, 7))
        assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
        jump = rows[-1]["time_ms"] - rows[0]["time_ms"]
        assert jump * days > 20 * 3600 * 1000, "the clock was not set during the run"
        assert all(0 <= row["metrics"]["time/epoch"] < 1000 for row in rows)
        assert 0 <= entry.seconds < 1000
        assert entry.ended_ms is not None
        assert began <= entry.started_ms <= entry.ended_ms
        run_ = tracked[entry.id].info
        assert (run_.status, run_.start_time, run_.end_time) == ("FINISHED", entry.started_ms, entry.ended_ms)
        sent_once(store.client, run_.run_id, 6)
    code, out, err = command(module="report")
    assert code == 0, err
    clean()
    injected()


@pytest.mark.faults(30)
@pytest.mark.parametrize("days", [-1, 1])
def test_the_clock_is_set_between_two_epochs(
    days: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, injected: Injected
) -> None:
    real, wrong = time.time_ns, [0]
    monkeypatch.setattr(time, "time_ns", lambda: real() + wrong[0] * 24 * 3600 * 10**9)
    monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)

    class Setter(Observer):
        def on_epoch(self, event: EpochEnd) -> None:
            wrong[0] = days * (event.epoch >= 3)

    trainings.run(tiny(epochs=5), Path("run"), watch=lambda about, control: [Setter()], extras=False)
    whole(Path("run"))
    rows = journal.read(Path("run"))
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert all(0 <= row["metrics"]["time/epoch"] < 1000 for row in rows)
    assert 0 <= ledger.read(Path("run")).seconds < 1000
    assert (rows[3]["time_ms"] - rows[2]["time_ms"]) * days > 20 * 3600 * 1000
    injected()
