"""Schedules: warm-up, step, linear and exponential decay."""

import itertools
import math

import pytest

from mnist_exp.engine.schedules import Constant, Cosine, Decay, Exponential, Linear, Step
from mnist_exp.errors import ConfigError

DECAYS: list[Decay] = [Constant(), Linear(), Cosine(), Exponential(), Step()]


@pytest.mark.parametrize("schedule", DECAYS, ids=lambda s: type(s).__name__)
def test_without_warmup_the_first_step_has_the_whole_rate(schedule: Decay) -> None:
    assert schedule(0.0) == 1.0


@pytest.mark.parametrize("schedule", DECAYS, ids=lambda s: type(s).__name__)
def test_warmup_is_a_straight_line_and_then_the_same_curve_squeezed(schedule: Decay) -> None:
    warm = type(schedule)(warmup=0.2)  # type: ignore[call-arg]  # every decay has a warm-up
    assert [warm(0.0), warm(0.05), warm(0.1)] == pytest.approx([0.0, 0.25, 0.5])
    for done in (0.0, 0.3, 0.77, 0.999):
        assert warm(0.2 + 0.8 * done) == pytest.approx(schedule(done))


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
