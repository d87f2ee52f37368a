"""Callbacks that tests name by `_target_`."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from mnist_exp.engine.events import Callback, EpochEnd, LaneEnd
from mnist_exp.run.session import Run


class Rule(Callback):
    """Ends a run after an epoch; remembers what it saw."""

    made: "list[Rule]" = []  # noqa: RUF012  # of all that were made

    def __init__(self, run: Run, after: int = 1) -> None:
        self.run, self.after, self.seen = run, after, list[str]()
        self.made.append(self)

    def measure(self, event: EpochEnd) -> Mapping[str, float]:
        return {"val/answers": len(event.answers["val"])}

    def stop(self, event: EpochEnd) -> str:
        return "Enough." if event.epoch == self.after and self.run.config.seed == 0 else ""

    def on_epoch(self, event: EpochEnd) -> None:
        self.seen.append(f"epoch {event.epoch}, {event.metrics['val/answers']:g}")

    def on_end(self, event: LaneEnd) -> None:
        self.seen.append(f"{event.state}, {event.reason}")


class Bad(Callback):
    """Measures something that cannot be recorded, or fails, in its second epoch."""

    def __init__(self, key: str = "val/x", value: float = 0.0) -> None:
        self.key, self.value = key, value

    def measure(self, event: EpochEnd) -> Mapping[str, float]:
        return {self.key: 1e300 / self.value} if event.epoch > 1 else {}


class Deadly(Callback):
    """Kills the process of a sweep's run 1 after each epoch, and counts that in a file."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_epoch(self, event: EpochEnd) -> None:
        if self.run.folder.name == "1":
            with Path("killed").open("a") as killed:
                killed.write("x")
            os.kill(os.getpid(), signal.SIGKILL)


class Stranger:
    """No callback."""
