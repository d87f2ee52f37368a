"""The callbacks of a run: those of `conf/callbacks`, asked for their metrics before an epoch is recorded."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, final

from mnist_exp.engine.events import Callback, Control, EpochEnd, LaneEnd, Observer
from mnist_exp.errors import ExperimentError, first_line

if TYPE_CHECKING:
    from mnist_exp.run.session import Run

METRIC = re.compile(r"[\w.-]+/[\w.-]+")


@final
class MacroF1(Callback):
    """`<split>/macro_f1`, the mean over the classes of F1, and with `recall` each class's `<split>/recall_<class>`.

    Macro F1 counts each class alike, however many images it has; one that neither occurs nor is answered is left out.

    Args:
        run: See `session.Run`.
        split: `val` or `test`; nothing is measured where it has no images.
        recall: Whether to add the share of each class's images that is right.
    """

    def __init__(self, run: "Run", split: str = "val", recall: bool = False) -> None:
        self.run, self.split, self.recall = run, split, recall

    def measure(self, event: EpochEnd) -> Mapping[str, float]:
        if self.split not in event.answers:
            return {}
        true, answers = self.run.labels[self.split], event.answers[self.split]
        names = self.run.classes
        right, occurs, answered = (
            labels.bincount(minlength=len(names)) for labels in (true[true == answers], true, answers)
        )
        total = occurs + answered
        metrics = {f"{self.split}/macro_f1": float((2 * right / total)[total > 0].mean())}
        for label in occurs.nonzero().flatten().tolist() if self.recall else ():
            name = re.sub(r"[^\w.-]", "_", names[label])
            metrics[f"{self.split}/recall_{name}"] = float(right[label] / occurs[label])
        return metrics


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

    def on_end(self, event: LaneEnd) -> None:
        """The callbacks get that themselves."""


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
