"""Callbacks among the observers of a run: their metrics are recorded with an epoch, and their faults have a name."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import final

from mnist_exp.engine.events import Callback, Control, EpochEnd, LaneEnd, Observer
from mnist_exp.errors import ExperimentError, first_line

METRIC = re.compile(r"[\w.-]+/[\w.-]+")


@final
class Recorder(Observer):
    """Adds what *callbacks* measure to the metrics of an epoch before others see it, and ends the run they stop."""

    def __init__(self, callbacks: Mapping[str, Callback], control: Control) -> None:
        self.callbacks, self.control = callbacks, control

    def on_epoch(self, event: EpochEnd) -> None:
        for name, callback in self.callbacks.items():
            with naming(name):
                for key, value in callback.measure(event).items():
                    if not METRIC.fullmatch(key) or key in event.metrics:
                        raise ValueError(f"a metric {key!r}, which has another form than val/name, or is there already")
                    if not math.isfinite(value):
                        raise ValueError(f"{key} is {value}")
                    event.metrics[key] = float(value)
                if reason := callback.stop(event):
                    self.control.stopped[event.lane] = reason


@final
class Named(Observer):
    """Passes events to *callback*; its exceptions become errors that name it."""

    def __init__(self, name: str, callback: Callback) -> None:
        self.name, self.callback = name, callback

    def on_epoch(self, event: EpochEnd) -> None:
        with naming(self.name):
            self.callback.on_epoch(event)

    def on_end(self, event: LaneEnd) -> None:
        with naming(self.name):
            self.callback.on_end(event)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Makes of an exception the error of the callback *name*.

    Raises:
        ExperimentError: with what was raised.
    """
    try:
        yield
    except ExperimentError:
        raise
    except Exception as error:
        raise ExperimentError(
            f"callbacks.{name} failed: {type(error).__name__}: {first_line(error)}",
            "Its traceback is in the run's log. Mend it and resume the run, or start one without it.",
        ) from error
