"""Sweeps and runs are read when their files have changed, and a large sweep not at every look."""

from pathlib import Path

import pytest
from report_fixtures import make_run, make_sweep

from mnist_exp.results import names
from mnist_exp.ui import overview
from mnist_exp.ui.overview import Overview


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The sweeps that were read, once for each time, each of which takes a second."""
    read: list[Path] = []
    now = [0.0]
    resolve = names.resolve

    def slow(folder: Path) -> names.Selection:
        read.append(folder)
        now[0] += 1
        return resolve(folder)

    monkeypatch.setattr(overview.names, "resolve", slow)
    monkeypatch.setattr(overview.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(overview, "SPARING", 2)
    return read


def test_what_has_not_changed_is_read_once_and_what_takes_long_later(reads: list[Path]) -> None:
    sweep = make_sweep(Path("outputs"), [["hidden=8"], ["hidden=16"]])
    make_run(sweep / "0", ["hidden=8"], 0.9)
    seen = Overview(Path("outputs"))
    assert seen.newest("sweeps") == seen.newest("sweeps")
    assert reads == [sweep]
    make_run(sweep / "1", ["hidden=16"], 0.95)
    assert seen.newest("sweeps")[0].state == "1 of 2 finished, 1 planned"  # it took a second, and two have not passed
    overview.names.resolve(sweep)
    overview.names.resolve(sweep)
    assert seen.newest("sweeps")[0].state == "2 of 2 finished"
    assert seen.newest("sweeps")[0].best == "val 95.00 % hidden=16"
    assert len(reads) == 4


def test_a_run_that_another_launcher_swept_and_one_with_several_datasets_are_listed() -> None:
    folder = Path("outputs/runs/2026-01-31/10-00-00-abcdef")
    make_run(folder / "0", ["hidden=8"], 0.9, dataset={"name": "one", "digest": "0"})
    make_run(folder / "1", ["hidden=8"], 0.8, dataset={"name": "other", "digest": "1"})
    (entry,) = Overview(Path("outputs")).newest("runs")
    assert (entry.state, entry.best, entry.title) == ("2 of 2 finished", "", "Runs in 10-00-00-abcdef")


def test_a_sweep_is_called_as_its_report_calls_it() -> None:
    """Seeds are averaged; previously the page listed `hidden × seed` and led to a report on `hidden`."""
    points = [[f"hidden={hidden}", f"seed={seed}"] for hidden in (8, 16) for seed in (0, 1)]
    for name, swept, title in (("10-00-00-a", points, "hidden"), ("10-00-00-b", [["seed=0"], ["seed=1"]], "seed")):
        home = make_sweep(Path("outputs"), swept, name)
        for number, point in enumerate(swept):
            make_run(home / str(number), point, 0.9)
        (entry,) = (each for each in Overview(Path("outputs")).newest("sweeps") if each.id == home.name)
        assert entry.title == title
