"""The order of runs and sweeps is what they recorded, whatever clocks and names say."""

import shutil
import time
from pathlib import Path

import pytest
from report_fixtures import make_run, make_sweep

from mnist_exp.disk import ledger, order
from mnist_exp.disk.layout import State
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import ConfigError
from mnist_exp.results import names

HOUR = 3_600_000


def sweep(folder: Path, **settings: int) -> Path:
    folder.mkdir(parents=True)
    Plan(id=folder.name, typed=[], keys=[], **settings).write(folder)
    return folder


def test_older_records_without_a_number_have_their_start(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "2026-01-31" / "a", ["lr=1"], 0.9)
    assert order.begun(run) == order.begun(make_sweep(tmp_path, [["lr=1"]])) == (1_700_000_000_000, True)


def test_of_another_sweepers_folder_the_first_run_counts(tmp_path: Path) -> None:
    for number, start in enumerate((30, 20)):
        make_run(tmp_path / str(number), ["lr=1"], 0.9, order=start)
    assert order.begun(tmp_path) == (20, True)
    assert order.begun(tmp_path / "nothing") is None


def test_the_number_is_the_time_and_only_grows_when_the_clock_is_set_back(tmp_path: Path) -> None:
    before = time.time_ns() // 1_000_000
    assert before <= order.following(tmp_path / "sweeps" / "day" / "new") <= before + HOUR
    ahead = before + HOUR
    day, name = time.strftime("%Y-%m-%d %H-%M-%S", time.gmtime(ahead / 1000)).split()
    sweep(tmp_path / "sweeps" / day / f"{name}-abcdef", order=ahead)
    (tmp_path / "sweeps" / day / "damaged").mkdir()
    (tmp_path / "sweeps" / day / "damaged" / "sweep.json").write_text("{")
    new = make_run(
        tmp_path / "runs" / day / "new", ["lr=1"], 0.9, order=order.following(tmp_path / "runs" / day / "new")
    )
    assert order.begun(new) == (ahead + 1, True)
    assert order.following(tmp_path / "runs" / day / "newer") == ahead + 2


def test_a_copy_has_the_number_of_the_original_and_says_that_it_is_none(tmp_path: Path) -> None:
    old = sweep(tmp_path / "sweeps" / "day" / "old", order=7)
    copy = shutil.copytree(old, old.with_name("zzz"))
    assert order.begun(old) == (7, True)
    assert order.begun(copy) == (7, False)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "x")
    (folder / "sweep.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        order.begun(folder)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
def test_clocks_and_time_zones_that_change_between_runs_change_no_order(
    hours: int, zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: clock)
    begun = []
    for number in range(3):
        day, name = time.strftime("%Y-%m-%d %H-%M-%S", time.gmtime(clock / 1e9)).split()
        folder = tmp_path / "runs" / day / f"{name}-{number}"
        begun.append(make_run(folder, ["lr=1"], 0.9, order=order.following(folder)))
        entry = ledger.read(folder)
        clock += hours * HOUR * 1_000_000
        entry.state = State.RUNNING
        entry.end(State.FINISHED, "")
        assert entry.started_ms <= (entry.ended_ms or 0)
        assert names.last(tmp_path, "runs") == folder
        monkeypatch.setenv("TZ", zone)
        time.tzset()
    numbers = [order.begun(folder) for folder in begun]
    assert numbers == sorted(numbers, key=str)
    monkeypatch.delenv("TZ")
    time.tzset()
