"""The publisher's process: sends the folders that are named on its standard input to MLflow, until that is closed."""

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import final

from mnist_exp.config.secrets import without_login
from mnist_exp.config.stores import reason, uri_for
from mnist_exp.console import exits
from mnist_exp.disk.layout import RunFolder
from mnist_exp.errors import ExperimentError
from mnist_exp.tracking import runs, sweeps
from mnist_exp.tracking.publisher import AT_ONCE
from mnist_exp.tracking.store import Store, open_store

log = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between two checks of the folders: the delay of MLflow's curves
GIVE_UP = 60.0  # seconds of retries after training has ended


@final
class Sender:
    """Which folders there are to publish, and what was sent of them."""

    def __init__(self, experiment: str) -> None:
        self.experiment = experiment
        self.store: Store | None = None
        self.runs: dict[Path, tuple[object, bool]] = {}
        """Its `_stamp` before the last publication; whether it had ended by then, and all of it was sent."""
        self.sweeps: dict[Path, bool] = {}
        """Whether MLflow shows it already."""
        self.reaped, self.advanced, self.warned = False, False, False
        """Whether killed runs of other sweeps were looked for; whether the last `attempt` has sent a run; whether the
        trainer was warned that nothing is sent, and why."""
        self.closed = threading.Event()

    def listen(self) -> None:
        """Reads the names of folders."""
        for line in sys.stdin:
            kind, folder = json.loads(line)
            if kind == "run":
                self.runs.setdefault(Path(folder), (None, False))
            else:
                self.sweeps.setdefault(Path(folder), False)
        self.closed.set()

    def attempt(self, last: bool = False) -> Exception | None:
        """Sends what is new; returns the error that has ended that, if any. At the *last* all is sent."""
        self.advanced = False
        try:
            store = self.store = self.store or open_store(uri_for(None), self.experiment)
            for folder in list(self.runs):
                self._send(folder, store, last)
            for folder, visible in list(self.sweeps.items()):
                if last or not visible:
                    self.sweeps[folder] = sweeps.publish(folder, store, over=last)
            if self.sweeps and not self.reaped:
                self.reaped = True
                _reap(self.sweeps)
        except Exception as error:
            self.store = None  # opened anew, it may have the reason: a database that was moved, a deleted experiment
            if isinstance(error, ExperimentError) and not self.warned and not last:
                self.warned = True
                log.warning("%s%s", AT_ONCE, json.dumps([error.message, error.help]))
            return error
        return None

    def _send(self, folder: Path, store: Store, last: bool) -> None:
        # Moved to the end of the queue: a run that cannot be sent must not block the others.
        seen, complete = self.runs[folder] = self.runs.pop(folder)
        now = _stamp(folder)
        if now != seen or (last and not complete):
            self.runs[folder] = now, runs.publish(folder, store, abandoned=last)
            self.advanced = True

    def finish(self) -> int:
        """Sends the rest; 0 if all was delivered. Gives up when all was refused for `GIVE_UP` seconds."""
        refused, delay = math.inf, 0.0
        while error := self.attempt(last=True):
            refused = time.monotonic() if self.advanced else min(refused, time.monotonic())
            if isinstance(error, ExperimentError) or time.monotonic() > refused + GIVE_UP:  # retries do not help
                log.warning("MLflow (%s) did not take it: %s", without_login(uri_for(None)), reason(error))
                return 1
            time.sleep(delay := _longer(delay))
        return 0


def deliver(experiment: str) -> int:
    """The process's main; 0 if all was delivered."""
    sender, delay = Sender(experiment), 0.0
    threading.Thread(target=sender.listen, daemon=True).start()
    while not sender.closed.wait(delay):
        delay = _longer(delay) if sender.attempt() else PAUSE
    return sender.finish()


def _longer(delay: float) -> float:
    """The seconds to wait after one more refusal."""
    return min(2 * delay + PAUSE, 10.0)


def _reap(sweeps: Collection[Path]) -> None:
    """Publishes killed runs of other sweeps than *sweeps*; errors are only logged."""
    try:
        runs.close_orphans(Path("outputs").resolve(), uri_for(None), but=sweeps)
    except Exception as error:
        missing = "Not all runs that were killed earlier are in MLflow: %s. mnist_exp.sync sends them."
        log.warning(missing, reason(error))


def _stamp(folder: Path) -> object:
    """Changes whenever a run writes its journal, its ledger or its model."""
    run = RunFolder(folder)
    return [path.stat().st_mtime_ns for path in (run.ledger, run.journal, run.model) if path.exists()]


if __name__ == "__main__":
    # Not niced. Six runs of an epoch on two idle cores train in 2.4 s with nice 10, 5 or 0 (medians of four), and are
    # tracked 2.4 s later; beside 8 busy loops they are tracked after 128 s with nice 10, 39 s with 5, 12 s with 0.
    logging.basicConfig(stream=sys.stdout, format="%(message)s")  # warnings: the trainer shows them at the end
    exits.spare_garbage_collection()
    sys.exit(deliver(sys.argv[1]))
