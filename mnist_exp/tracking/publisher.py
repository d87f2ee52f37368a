"""The process that tells MLflow: beside training, never in its way.

Importing mlflow and opening its store takes as long as a short training, and a slow or dead server may block
any call. So a child process reads what runs write to their folders (`publish.py`) and passes it on, while
training goes on at full speed. If the trainer dies, its end of the pipe closes, and the child still records how
the run ended.
"""

import contextlib
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from mnist_exp.config.secrets import without_login
from mnist_exp.config.stores import database, reason, uri_for
from mnist_exp.console import exits as cli
from mnist_exp.console import terminal
from mnist_exp.disk.files import read_json
from mnist_exp.errors import ExperimentError, Interrupted
from mnist_exp.tracking.store import Store, open_store

if TYPE_CHECKING:
    from mnist_exp.config import Tracking

log = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between two looks at the folders: how live MLflow's curves are
GIVE_UP = 60.0  # seconds in which the store refuses everything, when nothing more will come
SILENT = 2.0  # seconds of waiting that are not worth a word


@final
class Publisher:
    """The trainer's handle on that process; leaving its context closes it."""

    def __init__(self, tracking: "Tracking") -> None:
        self.uri, self.experiment, self.patience = uri_for(tracking.uri), tracking.experiment, tracking.patience
        self.option = f" --uri {without_login(self.uri)}" if tracking.uri else ""  # sync knows no config
        self.folders: list[Path] = []
        self.delivered = False
        self.words = tempfile.TemporaryFile("w+")  # noqa: SIM115  # what the child has to say; lives as long as it
        # A process group of its own: Ctrl-C in the terminal is for the trainer, which then closes the pipe.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mnist_exp.tracking.publisher", self.experiment],
            stdin=subprocess.PIPE,
            stdout=self.words,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MLFLOW_TRACKING_URI": self.uri},
            process_group=0,
            text=True,
        )

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.close(kind)

    def follow(self, folder: Path) -> None:
        """From now on what happens in the run's *folder* is passed on."""
        self.folders.append(folder)
        self._tell("run", folder)

    def sweep(self, folder: Path) -> None:
        """The runs that are followed belong to the sweep in *folder*, which has a `sweep.json`."""
        self._tell("sweep", folder)

    def _tell(self, kind: str, folder: Path) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: `close` will say so
            self.process.stdin.write(json.dumps([kind, str(folder.resolve())]) + "\n")
            self.process.stdin.flush()

    def finish(self) -> None:
        """Nothing more will happen in the folders: what is left is sent now."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def close(self, kind: type[BaseException] | None = None) -> None:
        """Waits until all is delivered, and says what to do if it is not. Ctrl-C ends the wait, and nothing else.

        A store on this machine is waited for as long as the process tries: it is there, and only slow where the
        machine is busy. Others, and any after a first Ctrl-C, are waited for `patience` seconds in which they take
        nothing.

        Args:
            kind: The error that has ended the training, if one has.
        """
        self.finish()
        if not self._times():
            self.process.kill()  # nothing was started: there is nothing to tell
            self.process.wait()
            self.words.close()
            return
        stopped = kind is not None and issubclass(kind, (Interrupted, KeyboardInterrupt))
        with contextlib.suppress(KeyboardInterrupt):
            self._wait(math.inf if database(self.uri) and not stopped else self.patience)
        self.delivered = self.process.poll() == 0
        self.process.terminate()
        self.process.wait()
        self._explain()

    def _wait(self, patience: float) -> None:
        """Returns when the process has ended, or has delivered nothing for *patience* seconds."""
        before, began = self._times(), time.monotonic()
        since = began
        with terminal.changing() as show:
            while self.process.poll() is None and time.monotonic() < since + patience:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.5)
                if (now := self._times()) != before:
                    before, since = now, time.monotonic()
                if time.monotonic() > began + SILENT:
                    show(f"Sending to MLflow{_counted(now)} … Ctrl-C leaves the rest to mnist_exp.sync")

    def _times(self) -> list[tuple[int, int]]:
        """Of each run that has begun: when it has last noted how it stands, and when something of it was delivered.

        In nanoseconds; 0: never. A run of which something was delivered since its end is delivered, all but a moment.
        """
        both = [(_written(folder / "ledger.json"), _written(folder / "mlflow.json")) for folder in self.folders]
        return [(noted, delivered) for noted, delivered in both if noted]

    def _explain(self) -> None:
        """Shows what the process had to say, and how to send what it has not delivered."""
        with self.words:
            self.words.seek(0)
            for line in self.words:
                log.warning(line.rstrip())
        if not self.delivered:
            log.warning(
                "MLflow (%s) does not have everything yet; it is kept in the run folder. Send it with: "
                "python -m mnist_exp.sync%s",
                without_login(self.uri),
                self.option,
            )

    def where_to_look(self, folder: Path) -> str:
        """The line that opens the run or the sweep in *folder* in a browser."""
        try:
            note = read_json(folder / "mlflow.json")
        except (OSError, ValueError):
            return "Tracked in MLflow: not yet."
        registered = f" (registered as {note['registered']})" if "registered" in note else ""
        if self.uri.startswith("http"):
            return f"Tracked in MLflow{registered}: {without_login(self.uri).rstrip('/')}/{note['page']}"
        here = uri_for("sqlite:///mlflow.db")
        start = "mlflow ui" if self.uri == here else f"mlflow ui --backend-store-uri {without_login(self.uri)}"
        return f"Tracked in MLflow{registered}: {start}, then http://127.0.0.1:5000/{note['page']}"


def _written(path: Path) -> int:
    """When the file was written, in nanoseconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _counted(times: list[tuple[int, int]]) -> str:
    """`: 3 of 6 runs`, from `Publisher._times`; nothing for a single run."""
    sent = sum(delivered > noted for noted, delivered in times)
    return f": {sent} of {len(times)} runs" if len(times) > 1 else ""


def deliver(experiment: str) -> int:
    """The child's main: follows the folders named on standard input until it closes; 0 if all was delivered."""
    from mnist_exp.tracking import publish, sweeps  # draws figures: not for the trainer's side

    runs: dict[Path, Delivery] = {}
    groups: dict[Path, bool] = {}  # sweeps, and whether they can be seen already
    closed = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            kind, folder = json.loads(line)
            if kind == "run":
                runs.setdefault(Path(folder), Delivery())
            else:
                groups.setdefault(Path(folder), False)
        closed.set()

    threading.Thread(target=listen, daemon=True).start()
    store: Store | None = None
    delay, refused, looked = 0.0, math.inf, False
    while True:
        last = closed.wait(delay)
        try:
            store = store or open_store(uri_for(None), experiment)
            for folder in list(runs):
                # To the end of the queue, so that one which cannot be sent does not stand in the others' way.
                delivery = runs[folder] = runs.pop(folder)
                now = _stamp(folder)
                if now != delivery.seen or (last and not delivery.complete):
                    delivery.complete = publish.publish(folder, store, abandoned=last)
                    delivery.seen = now
                    refused = math.inf
            for folder, visible in list(groups.items()):
                if last or not visible:
                    groups[folder] = sweeps.publish(folder, store, over=last)
            if groups and not looked:
                looked = True
                _reap(groups)
            if last:
                return 0
            delay = PAUSE
        except Exception as error:
            hopeless = store is None and isinstance(error, ExperimentError)  # waiting does not mend it
            refused = min(refused, time.monotonic()) if last else math.inf  # since when, at the end
            if last and (hopeless or time.monotonic() > refused + GIVE_UP):
                log.warning("MLflow (%s) did not take it: %s", without_login(uri_for(None)), reason(error))
                return 1
            delay = min(2 * delay + PAUSE, 10.0)
            if last:
                time.sleep(delay)


def _reap(sweeps: Collection[Path]) -> None:
    """Has MLflow know of runs of other sweeps that were killed; what goes wrong there is no fault of these *sweeps*."""
    from mnist_exp.tracking import orphans as stale

    try:
        stale.reap(Path("outputs").resolve(), uri_for(None), but=sweeps)
    except Exception as error:
        log.warning(
            "Not all runs that were killed earlier are in MLflow: %s. mnist_exp.sync sends them.", reason(error)
        )


@dataclass
class Delivery:
    """How far a run's folder was passed on."""

    seen: object = None
    """Its `_stamp` when it was last sent."""
    complete: bool = False
    """Whether it had ended by then, and all of it was sent."""


def _stamp(folder: Path) -> object:
    """Changes whenever a run writes its journal, its ledger or its model."""
    names = ("ledger.json", "metrics.jsonl", "model.pt2")
    return [(folder / name).stat().st_mtime_ns for name in names if (folder / name).exists()]


if __name__ == "__main__":
    # Not niced. Six runs of an epoch on two idle cores train in 2.4 s with nice 10, 5 or 0 (medians of four), and are
    # tracked 2.4 s later; beside 8 busy loops they are tracked after 128 s with nice 10, 39 s with 5, 12 s with 0.
    logging.basicConfig(stream=sys.stdout, format="%(message)s")  # warnings: the trainer shows them at the end
    cli.spare_garbage_collection()
    sys.exit(deliver(sys.argv[1]))
