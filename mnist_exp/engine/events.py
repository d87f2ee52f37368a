"""The events of the training loop, and the observers that receive them.

The loop knows no tracker, no checkpoint and no progress bar: it emits these events, and observers
(`mnist_exp/run/session.py` connects them) do the rest.
"""

import abc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from mnist_exp.disk.layout import State

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """One lane has finished one epoch and is still finite."""

    lane: int
    epoch: int
    """Epochs finished so far, counting from 1."""
    step: int
    """Optimiser steps taken so far."""
    metrics: dict[str, float]
    """`train/loss`, `train/accuracy` (0 to 1), likewise `val/` and `test/`, `time/epoch` in seconds, and
    `time/epoch_cpu`, the processor time of all threads. Lanes of a pack share the times equally."""
    time_ms: int
    """Wall clock in milliseconds since 1970: the timestamp that MLflow stores."""
    best: bool
    """Whether no earlier epoch had a higher validation accuracy (without validation: always)."""
    hits: "dict[str, Tensor]" = field(default_factory=dict)
    """For `val` and `test`, where there are such images, which of them were right: (n,) booleans on the CPU."""


@dataclass(frozen=True, kw_only=True)
class LaneEnd:
    """One lane will train no further."""

    lane: int
    state: State
    """`FINISHED`, `FAILED` or `PRUNED`."""
    reason: str = ""
    """Why, in one sentence, unless it finished."""


class Observer(abc.ABC):
    """Receives events; owns no training state.

    Contract: `on_epoch` comes once for each lane and epoch, epochs of one lane in order, lanes in any
    order. `on_end` comes at most once for a lane, and nothing follows it for that lane.
    """

    @abc.abstractmethod
    def on_epoch(self, event: EpochEnd) -> None: ...

    @abc.abstractmethod
    def on_end(self, event: LaneEnd) -> None: ...


@final
@dataclass
class Control:
    """What the loop shares with its observers, and with signal handlers."""

    signal: int = 0
    """Set by a signal handler: stop after the batch at hand."""
    step: int = 0
    """Optimiser steps taken so far, for progress bars."""
    pruned: dict[int, str] = field(default_factory=dict)
    """Lanes that an observer has given up after the latest epoch, and why; not after the last epoch."""
