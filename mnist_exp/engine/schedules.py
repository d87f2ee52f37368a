"""Learning rate over time, as a factor of `lr`.

A schedule is a pure function of how much of the training is done, from 0 at the first step to just below
1 at the last. It has no state, so resuming at a step is exact by construction, and many lanes share it.
"""

import abc
import math
from collections.abc import Callable
from typing import final

from mnist_exp.errors import ConfigError

Schedule = Callable[[float], float]
"""Maps progress in [0, 1) to a factor of the learning rate, usually in [0, 1]."""


class Decay(abc.ABC):
    """A warm-up, a straight line up to 1 if not its own, then a way down of its own.

    Args:
        warmup: Share of the training that warms up, 0 <= warmup < 1. Its n steps have 1/n, 2/n, ... 1: with 0 in the
            first, that one would move Adam's moments and no weight.
    """

    steps: float = math.inf
    """Steps of the training; `run.build.schedule` sets it."""

    def __init__(self, warmup: float = 0.0) -> None:
        _require(0 <= warmup < 1, "warmup must be at least 0 and below 1", warmup)
        self.warmup = warmup

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return self.before(progress / self.warmup)
        return self.after((progress - self.warmup) / (1 - self.warmup))

    def before(self, done: float) -> float:
        """The factor when this share of the warm-up is done, 0 <= done < 1."""
        return min(1.0, done + 1 / (self.warmup * self.steps))

    @abc.abstractmethod
    def after(self, done: float) -> float:
        """The factor when this share of the training after warm-up is done, 0 <= done < 1."""


@final
class Constant(Decay):
    """Always 1, after an optional warm-up."""

    def after(self, done: float) -> float:
        return 1.0


class Falling(Decay):
    """Down to *floor* at the end, 0 <= floor <= 1."""

    def __init__(self, warmup: float = 0.0, floor: float = 0.0) -> None:
        super().__init__(warmup)
        _require(0 <= floor <= 1, "floor must be between 0 and 1", floor)
        self.floor = floor


@final
class Linear(Falling):
    """A straight line down to *floor*."""

    def after(self, done: float) -> float:
        return 1 + (self.floor - 1) * done


@final
class Cosine(Falling):
    """Half a cosine down to *floor*."""

    def after(self, done: float) -> float:
        return _half_cosine(done, 1.0, self.floor)


@final
class Exponential(Decay):
    """Each epoch the same share of the one before, down to *floor* at the end, 0 < floor <= 1."""

    def __init__(self, warmup: float = 0.0, floor: float = 0.01) -> None:
        super().__init__(warmup)
        _require(0 < floor <= 1, "floor must be above 0 and at most 1", floor)
        self.floor = floor

    def after(self, done: float) -> float:
        return float(self.floor**done)


@final
class Step(Decay):
    """Times *factor* at each of *at*, shares of the training after warm-up.

    Args:
        warmup: As in `Decay`.
        at: Each above 0 and below 1, in any order.
        factor: 0 <= factor <= 1.
    """

    def __init__(self, warmup: float = 0.0, at: list[float] | None = None, factor: float = 0.1) -> None:
        super().__init__(warmup)
        _require(0 <= factor <= 1, "factor must be between 0 and 1", factor)
        self.at, self.factor = [0.5, 0.75] if at is None else list(at), factor
        _require(all(0 < share < 1 for share in self.at), "at must hold shares above 0 and below 1", self.at)

    def after(self, done: float) -> float:
        return float(self.factor ** sum(done >= share for share in self.at))


@final
class OneCycle(Falling):
    """Half a cosine from *start* up to 1, then another down to *floor* (Smith and Topin, 2018).

    Args:
        warmup: Share of the training that goes up, 0 <= warmup < 1.
        start: Factor at the first step; torch's `OneCycleLR` has 1/25.
        floor: Factor at the end; torch's `OneCycleLR` has 1/250000.
    """

    def __init__(self, warmup: float = 0.3, start: float = 0.04, floor: float = 4e-6) -> None:
        super().__init__(warmup, floor)
        _require(0 <= start <= 1, "start must be between 0 and 1", start)
        self.start = start

    def before(self, done: float) -> float:
        return _half_cosine(done, self.start, 1.0)

    def after(self, done: float) -> float:
        return _half_cosine(done, 1.0, self.floor)


def _half_cosine(done: float, first: float, last: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ConfigError(f"schedule.{rule}, but got {value}.")
