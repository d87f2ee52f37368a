"""Learning rates over time: torch's, as pure functions, with warm-up."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR

from mnist_exp.engine.schedules import Constant, Cosine, Decay, Exponential, Linear, OneCycle, Step
from mnist_exp.errors import ConfigError

STEPS = 50
DECAYS: list[Decay] = [Constant(), Linear(), Cosine(), Exponential(), Step()]


def rates(make: type[LRScheduler], **settings: float) -> list[float]:
    """The rates that torch would use, with lr=1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = make(optimizer, **settings)  # type: ignore[arg-type]
    values = []
    for _ in range(STEPS):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


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
@pytest.mark.parametrize("key", ["floor", "start"])
def test_a_share_is_between_0_and_1(key: str, bad: float) -> None:
    with pytest.raises(ConfigError, match=f"schedule.{key} must be between 0 and 1, but got {bad}"):
        OneCycle(**{key: bad})


@pytest.mark.parametrize("bad", [-0.1, 1.0, math.nan])
def test_warm_up_must_end(bad: float) -> None:
    with pytest.raises(ConfigError, match=f"schedule.warmup must be at least 0 and below 1, but got {bad}"):
        Cosine(warmup=bad)


@pytest.mark.parametrize("schedule", DECAYS, ids=lambda s: type(s).__name__)
def test_without_warmup_the_first_step_has_the_whole_rate(schedule: Decay) -> None:
    assert schedule(0.0) == 1.0


@pytest.mark.parametrize("schedule", DECAYS, ids=lambda s: type(s).__name__)
def test_warmup_is_a_straight_line_and_then_the_same_curve_squeezed(schedule: Decay) -> None:
    warm = type(schedule)(warmup=0.2)  # type: ignore[call-arg]  # every decay has a warm-up
    assert [warm(0.0), warm(0.05), warm(0.1)] == pytest.approx([0.0, 0.25, 0.5])
    for done in (0.0, 0.3, 0.77, 0.999):
        assert warm(0.2 + 0.8 * done) == pytest.approx(schedule(done))


@pytest.mark.parametrize("n", [2, 10, 49])
def test_a_warm_up_of_n_steps_has_torchs_rates_from_1_nth_on(n: int) -> None:
    """With the factor 0 in the first step, that one would move Adam's moments and no weight."""
    schedule = Constant(warmup=n / STEPS)
    schedule.steps = STEPS
    theirs = rates(LinearLR, start_factor=1 / n, total_iters=n - 1)
    assert [schedule(step / STEPS) for step in range(STEPS)] == pytest.approx(theirs)


@pytest.mark.parametrize(("warmup", "begins"), [(0.05, [0.4, 0.8, 1, 1]), (0.01, [1, 1])])
def test_a_warm_up_need_not_be_whole_steps(warmup: float, begins: list[float]) -> None:
    schedule = Constant(warmup)
    schedule.steps = STEPS
    assert [schedule(step / STEPS) for step in range(len(begins))] == pytest.approx(begins)


def test_linear_is_halfway_at_half_time() -> None:
    assert Linear(floor=0.2)(0.5) == pytest.approx(0.6)


def test_exponential_falls_by_the_same_share_each_epoch() -> None:
    rates = [Exponential(floor=1e-3)(epoch / 30) for epoch in range(31)]
    assert rates[30] == pytest.approx(1e-3)
    assert {round(b / a, 9) for a, b in itertools.pairwise(rates)} == {round(10 ** (-3 / 30), 9)}


def test_step_multiplies_at_each_share() -> None:
    schedule = Step(at=[0.75, 0.5], factor=0.1)
    assert [schedule(p) for p in (0.49, 0.5, 0.74, 0.75, 0.99)] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Constant(warmup=1.0), "schedule.warmup"),
        (lambda: Linear(floor=math.nan), "schedule.floor"),
        (lambda: Exponential(floor=0.0), "schedule.floor must be above 0"),
        (lambda: Step(at=[0.5, 1.0]), "schedule.at must hold shares"),
        (lambda: Step(factor=2.0), "schedule.factor"),
    ],
)
def test_values_out_of_range_are_refused_by_name(make: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()  # type: ignore[operator]
