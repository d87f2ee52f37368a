"""Learning rate over time, as a factor of `lr`.

A schedule is a pure function of how much of the training is done, from 0 at the first step to just below
1 at the last. It has no state, so resuming at a step is exact by construction, and many lanes share it.
"""

import math
from typing import Protocol, final

from mnist_exp.errors import ConfigError


class Schedule(Protocol):
    """Maps progress in [0, 1) to a factor of the learning rate, usually in [0, 1]."""

    def __call__(self, progress: float) -> float: ...


@final
class Constant:
    """Always 1."""

    def __call__(self, progress: float) -> float:
        return 1.0


@final
class Cosine:
    """A linear warm-up from 0 to 1, then half a cosine from 1 to *floor*.

    Args:
        warmup: Share of the training that warms up, 0 <= warmup < 1.
        floor: Factor at the end, 0 <= floor <= 1.
    """

    def __init__(self, warmup: float = 0.0, floor: float = 0.0) -> None:
        _share("schedule.warmup", warmup, below_one=True)
        _share("schedule.floor", floor)
        self.warmup, self.floor = warmup, floor

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        return _half_cosine((progress - self.warmup) / (1 - self.warmup), 1.0, self.floor)


@final
class OneCycle:
    """Half a cosine from *start* up to 1, then another down to *floor* (Smith and Topin, 2018).

    Args:
        warmup: Share of the training that goes up, 0 < warmup < 1.
        start: Factor at the first step; torch's `OneCycleLR` has 1/25.
        floor: Factor at the end; torch's `OneCycleLR` has 1/250000.
    """

    def __init__(self, warmup: float = 0.3, start: float = 0.04, floor: float = 4e-6) -> None:
        _share("schedule.warmup", warmup, below_one=True)
        _share("schedule.start", start)
        _share("schedule.floor", floor)
        self.warmup, self.start, self.floor = warmup, start, floor

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return _half_cosine(progress / self.warmup, self.start, 1.0)
        return _half_cosine((progress - self.warmup) / (1 - self.warmup), 1.0, self.floor)


def _half_cosine(done: float, first: float, last: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


def _share(key: str, value: float, below_one: bool = False) -> None:
    if not (0 <= value < 1 if below_one else 0 <= value <= 1):
        raise ConfigError(f"{key} must be between 0 and 1, but got {value}.")
