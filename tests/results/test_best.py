"""One run among many: the best, and the last."""

import os
import shutil
from pathlib import Path

import pytest
from report_fixtures import make_run, make_sweep

from mnist_exp.disk import ledger, plan
from mnist_exp.errors import ConfigError
from mnist_exp.results import names

ACCURACIES = (0.9, 0.95, 0.95, 0.99)  # with equal losses, too


@pytest.fixture
def outputs(scratch: Path) -> Path:
    """A sweep whose last run failed, and an older run."""
    root = scratch / "outputs"
    make_run(root / "runs" / "2026-01-30" / "23-00-00-111111", ["lr=0.1"], 0.8)
    points = [[f"lr={10.0**-i:g}"] for i in range(5)]
    sweep = make_sweep(root, points)
    for i, accuracy in enumerate(ACCURACIES):
        make_run(sweep / str(i), points[i], accuracy, state="failed" if i == 3 else "finished")
    return root


@pytest.mark.parametrize("name", ["best", "best:10-00-00-abcdef", "best:10-00", "10-00", "last"])
def test_the_best_is_the_finished_run_that_validates_best_and_of_equals_the_first(outputs: Path, name: str) -> None:
    assert names.one(name).name == "1"


@pytest.mark.usefixtures("outputs")
def test_best_is_a_name_for_reports_too() -> None:
    selection = names.resolve("best")
    assert [folder.name for folder in selection.folders] == ["1"]
    assert selection.title == "Best run of Sweep 10-00-00-abcdef"


def test_the_last_run_is_what_was_started_last(outputs: Path) -> None:
    newer = make_run(outputs / "runs" / "2026-02-01" / "09-00-00-222222", ["lr=0.1"], 0.5)
    assert names.one("last").resolve() == newer
    assert names.resolve("last").sweep  # what a report is about


def test_last_is_the_newest_of_the_kinds_that_are_asked_for(outputs: Path) -> None:
    (run,), (sweep,) = outputs.glob("runs/*/*"), outputs.glob("sweeps/*/*")
    (outputs / "runs" / "2026-03-01" / "empty").mkdir(parents=True)
    assert names.last(outputs, "runs") == run
    assert names.last(outputs, "sweeps") == names.last(outputs, "runs", "sweeps") == sweep
    assert names.last(outputs / "elsewhere", "runs", "sweeps") is None


def test_last_is_what_was_begun_last_whatever_it_is_called(outputs: Path) -> None:
    """In another time zone, at the end of summer time, or after the clock was set back the name is the smaller one."""
    (old,) = outputs.glob("sweeps/*/*")
    new = make_sweep(outputs, [["lr=1"]], name="01-00-00-aaaaaa")
    written = plan.read(new)
    written.order = written.created_ms + 1
    written.write(new)
    assert old.name > new.name
    assert names.last(outputs, "sweeps") == new
    shutil.copytree(new, new.with_name("zzz"))
    assert names.last(outputs, "sweeps") == new, "not a copy of it"


def test_a_damaged_newest_one_is_named_and_passed_over(outputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    (old,) = outputs.glob("sweeps/*/*")
    new = make_sweep(outputs, [["lr=1"]], name="23-00-00-aaaaaa")
    (new / "sweep.json").write_text('{"format": 1,')
    assert names.last(outputs, "sweeps") == old
    (said,) = caplog.messages
    assert f"{new}/sweep.json is damaged" in said
    assert said.endswith(f"It is passed over: the last one is {old.relative_to(Path.cwd())}.")
    os.utime(new, (1.0e9, 1.0e9))
    caplog.clear()
    assert names.last(outputs, "sweeps") == old
    assert not caplog.messages, "it is an old one"


def test_a_run_by_its_folder_need_not_have_finished(outputs: Path) -> None:
    folder = next(outputs.glob("sweeps/*/*")) / "3"
    assert names.one(folder) == folder


def test_of_equally_accurate_runs_the_one_with_the_lower_loss_is_best(outputs: Path) -> None:
    folder = next(outputs.glob("sweeps/*/*")) / "2"
    entry = ledger.read(folder)
    entry.summary["final/val_loss"] -= 0.01
    entry.write(folder)
    assert names.one("best").name == "2"


def test_where_nothing_has_finished_there_is_no_best(scratch: Path) -> None:
    with pytest.raises(ConfigError, match="no runs"):
        names.one("best")
    sweep = make_sweep(scratch / "outputs", [["lr=1"]])
    with pytest.raises(ConfigError, match=f"Sweep {sweep.name} has no finished run"):
        names.one("best")


def test_a_beginning_that_several_names_have_is_refused_with_the_first_few(scratch: Path) -> None:
    for second in range(7):
        folder = scratch / "outputs" / "runs" / "2026-02-01" / f"09-00-0{second}-222222"
        make_run(folder, ["lr=0.1"], 0.5)
    with pytest.raises(ConfigError, match="'09-' is the beginning of several names") as refused:
        names.resolve("09-")
    assert refused.value.help.count("222222") == 5
    assert refused.value.help.endswith(" and 2 more")
    assert names._some(["a", "b", "c", "d", "e"]) == "a, b, c, d, e"
    assert names._some(iter("abcdef")) == "a, b, c, d, e and 1 more"
    assert names.resolve("09-00-03-222222").folders[0].name == "09-00-03-222222"


def test_a_name_that_is_the_beginning_of_another_is_that_one(scratch: Path) -> None:
    for name in ("09-00-00-222222", "09-00-00-2222223"):
        make_run(scratch / "outputs" / "runs" / "2026-02-01" / name, ["lr=0.1"], 0.5)
    assert names.one("09-00-00-222222").name == "09-00-00-222222"


def test_runs_of_another_launcher_are_in_the_order_of_their_numbers(scratch: Path) -> None:
    for name in ("10", "9", "b", "a"):
        make_run(scratch / "theirs" / name, ["lr=0.1"], 0.5)
    selection = names.resolve("theirs")
    assert [folder.name for folder in selection.folders] == ["a", "b", "9", "10"]
    assert selection.title == "Runs in theirs"
    with pytest.raises(ConfigError, match=r"called 'nowhere'") as unknown:
        names.resolve("nowhere")
    assert unknown.value.help.startswith("A name is ")
