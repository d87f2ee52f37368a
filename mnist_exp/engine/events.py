"""The events of the training loop, and the observers that receive them.

The loop knows no tracker, no checkpoint and no progress bar: it emits these events, and observers
(`mnist_exp/run/session.py` connects them) do the rest.
"""

from collections.abc import Callable, Mapping
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
    answers: "dict[str, Tensor]" = field(default_factory=dict)
    """Likewise the class that each image was taken for: (n,) uint8 on the CPU, in the order of `Run.labels`."""


@dataclass(frozen=True, kw_only=True)
class LaneEnd:
    """One lane will train no further."""

    lane: int
    state: State
    """`FINISHED`, `FAILED` or `PRUNED`."""
    reason: str = ""
    """Why, in one sentence, unless it finished."""


class Observer:
    """Receives events, those that it has a method for; owns no training state.

    Contract: `on_epoch` comes once for each lane and epoch, epochs of one lane in order, lanes in any
    order. `on_end` comes at most once for a lane, and nothing follows it for that lane.
    """

    def on_epoch(self, event: EpochEnd) -> None:
        """One lane has finished an epoch."""

    def on_end(self, event: LaneEnd) -> None:
        """One lane has ended."""


class Callback(Observer):
    """What a file of `conf/callbacks` may name by `_target_`: a metric, a logger, a rule that ends a run.

    Every method may be left as it is. A callback is made for each attempt to train a run, in the process that trains
    it, before the first file is written. Its constructor gets the keywords of the file and, if it takes `run`, a
    `mnist_exp.run.session.Run`. It keeps nothing between attempts: what it needs of earlier epochs is in the journal,
    `mnist_exp.disk.journal.read(run.folder)`. An exception in it ends the run as failed, with its finished epochs kept.
    """

    def measure(self, event: EpochEnd) -> Mapping[str, float]:
        """Further metrics of the epoch, such as `{"val/macro_f1": 0.97}`: finite, and recorded like all others."""
        return {}

    def stop(self, event: EpochEnd) -> str:
        """Why the run ends as finished after this epoch, in one sentence; empty: it goes on."""
        return ""

    def on_epoch(self, event: EpochEnd) -> None:
        """After the epoch is recorded in the run's files; `event.metrics` has what all callbacks measured."""

    def on_end(self, event: LaneEnd) -> None:
        """After the last file of the run is written; not where training is interrupted."""


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
    stopped: dict[int, str] = field(default_factory=dict)
    """Lanes that a callback has ended after the latest epoch, and why; they are finished."""
    undecided: dict[int, Callable[[], None]] = field(default_factory=dict)
    """What fills `pruned` once all lanes have finished the epoch, by the number of the trial that it is about."""

    def forget(self) -> None:
        """Drops what was asked for: the lanes are others from now on."""
        self.pruned, self.stopped, self.undecided = {}, {}, {}

    def decide(self) -> None:
        """Asks about each in the order of trials: that of lanes is one of widths, and who is asked early gains."""
        undecided, self.undecided = self.undecided, {}
        for number in sorted(undecided):
            undecided[number]()
