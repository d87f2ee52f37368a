"""Learning rates over time: torch's, as pure functions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from mnist_exp.engine.schedules import Constant, Cosine, OneCycle
from mnist_exp.errors import ConfigError

STEPS = 50


def rates(make: type[LRScheduler], **settings: float) -> list[float]:
    """The rates that torch would use, with lr=1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = make(optimizer, **settings)  # type: ignore[arg-type]
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cosine_is_torchs(floor: float) -> None:
    schedule = Cosine(floor=floor)
    ours = [schedule(step / STEPS) for step in range(STEPS)]
    assert ours == pytest.approx(rates(CosineAnnealingLR, T_max=STEPS, eta_min=floor))


def test_onecycle_is_torchs() -> None:
    """torch reaches its last rate in the last step, ours would in the step after it: one step is stretched."""
    schedule = OneCycle(warmup=(0.3 * STEPS - 1) / (STEPS - 1), start=1 / 25, floor=1 / 25e4)
    ours = [schedule(step / (STEPS - 1)) for step in range(STEPS)]
    theirs = rates(OneCycleLR, max_lr=1.0, total_steps=STEPS, pct_start=0.3, div_factor=25, final_div_factor=1e4)
    assert ours == pytest.approx(theirs)


def test_the_ends_of_onecycle_by_default_are_torchs() -> None:
    schedule = OneCycle()
    theirs = rates(OneCycleLR, max_lr=1.0, total_steps=STEPS)
    assert schedule(0) == pytest.approx(theirs[0])
    assert schedule(1) == pytest.approx(theirs[-1])
    assert schedule(0.3) == 1


def test_warm_up_is_a_straight_line_and_meets_the_cosine() -> None:
    schedule = Cosine(warmup=0.2)
    assert [schedule(p) for p in (0, 0.05, 0.1)] == pytest.approx([0, 0.25, 0.5])
    assert schedule(math.nextafter(0.2, 0)) == pytest.approx(schedule(0.2)) == 1


def test_constant_is_constant() -> None:
    assert {Constant()(p / 10) for p in range(10)} == {1.0}


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 0.99), st.floats(0, 1), st.floats(0, 1))
def test_a_factor_stays_between_0_and_1(progress: float, warmup: float, start: float, floor: float) -> None:
    for schedule in (Cosine(warmup, floor), OneCycle(warmup, start, floor)):
        assert 0 <= schedule(progress) <= 1 + 1e-12


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("key", ["warmup", "floor", "start"])
def test_a_share_is_between_0_and_1(key: str, bad: float) -> None:
    with pytest.raises(ConfigError, match=f"schedule.{key} must be between 0 and 1, but got {bad}"):
        OneCycle(**{key: bad})


def test_warm_up_must_end() -> None:
    with pytest.raises(ConfigError, match=r"schedule\.warmup"):
        Cosine(warmup=1.0)
