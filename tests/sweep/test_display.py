"""What the status line says: how long a sweep will take, by the epochs trained so far, and what is best so far."""

import time

import pytest

from mnist_exp.sweep import display as display_module
from mnist_exp.sweep.display import Display


class Clock:
    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(Clock, "now", 100.0)
    return Clock()


def begun(costs: list[float], coming: int = 0) -> Display:
    """A sweep of jobs of such costs, of which the first has just started."""
    display = Display(total=len(costs) + coming, fixed=set())
    display.costs, display.coming = dict(enumerate(costs)), coming
    display.started(0, [])
    assert "left" not in display.status()
    return display


def trained(display: Display, number: int, first: int, last: int, of: int) -> None:
    for epoch in range(first, last + 1):
        display.epoch(number, epoch, of, {"train/accuracy": 0.5})


def test_it_is_known_after_the_first_epoch(clock: Clock) -> None:
    display = begun([8.0, 1.0, 1.0])
    Clock.now += 10
    trained(display, 0, 1, 1, of=4)
    assert "· 40 s left" in display.status(), "2 of 10 took 10 s"


def test_the_short_runs_that_come_last_are_not_counted_like_long_ones(clock: Clock) -> None:
    display = begun([8.0, 1.0, 1.0])
    Clock.now += 80
    trained(display, 0, 1, 4, of=4)
    display.finished(0, [], 0.5)
    assert "· 20 s left" in display.status()


def test_epochs_of_an_earlier_attempt_took_no_time_now(clock: Clock) -> None:
    display = begun([8.0, 8.0])
    Clock.now += 10
    trained(display, 0, 3, 3, of=4)
    assert "· 50 s left" in display.status(), "2 took 10 s, 2 and 8 are left"


def test_a_search_expects_its_runs_to_be_pruned_as_those_before(clock: Clock) -> None:
    display = begun([4.0, 4.0], coming=6)
    Clock.now += 10
    trained(display, 0, 1, 2, of=4)
    display.pruned(0, "Pruned.")
    display.finished(0, [], 0.5)
    assert "· 70 s left" in display.status(), "2 took 10 s, and seven such are left"


def test_jobs_that_report_no_epochs_count_when_they_end(clock: Clock) -> None:
    display = begun([1.0, 1.0, 1.0])
    Clock.now += 10
    display.finished(0, [], None)
    assert "· 20 s left" in display.status()


def test_the_best_so_far_is_the_setting_with_the_best_mean_and_not_the_luckiest_run() -> None:
    display = Display(total=4, fixed={"epochs=1"})
    for number, (hidden, seed, accuracy) in enumerate([(8, 0, 0.99), (8, 1, 0.9), (16, 0, 0.96), (16, 1, 0.96)]):
        display.finished(number, ["epochs=1", f"hidden={hidden}", f"seed={seed}"], accuracy)
    assert "best val 96.00 % (hidden=16, 2 runs)" in display.status()
    alone = Display(total=1, fixed=set())
    alone.finished(0, ["hidden=8"], 0.5)
    assert "best val 50.00 % (hidden=8)" in alone.status()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(display_module, "say", lambda text, style="": lines.append(text))
    return lines


def test_a_line_names_what_the_jobs_do_not_share(said: list[str]) -> None:
    display = Display(total=3, fixed={"epochs=1"})
    display.finished(0, ["hidden=8", "epochs=1", "hydra.sweep.dir=x", "lr=0.00123456789"], 0.5)
    display.failed(1, ["hidden=16", "epochs=1"], "It broke.", again=True)
    display.failed(1, ["hidden=16", "epochs=1"], "It broke.", again=False)
    assert said == [
        "[1/3] hidden=8 lr=0.00123457  val 50.00 %",
        "[1/3] hidden=16  FAILED, trying again: It broke.",
        "[2/3] hidden=16  FAILED: It broke.",
    ]
    assert display.status() == "2/3 done · 1 failed · best val 50.00 % (hidden=8 lr=0.00123457)"


def test_the_best_of_equals_is_the_first(said: list[str]) -> None:
    display = Display(total=4, fixed=set())
    for number, accuracy in enumerate((0.4, 0.6, 0.6, 0.5)):
        display.finished(number, [f"hidden={number}"], accuracy)
    assert "best val 60.00 % (hidden=1)" in display.status()
    assert len(said) == 4


def test_the_status_counts_what_runs_and_what_was_pruned(clock: Clock, said: list[str]) -> None:
    display = Display(total=3, fixed=set())
    display.started(0, ["hidden=8"])
    display.started(1, ["hidden=16"])
    display.epoch(1, 2, 4, {"train/accuracy": 0.25, "val/accuracy": 0.5})
    assert display.status() == "0/3 done · 2 running"
    assert display.now() == "hidden=8 · hidden=16 2/4 50.00 %"
    display.pruned(1, "Pruned after epoch 2.")
    display.finished(1, ["hidden=16"], 0.5)
    display.stopped(0)
    assert display.status() == "1/3 done · 1 pruned"
    assert said == ["[1/3] hidden=16  Pruned after epoch 2."]
