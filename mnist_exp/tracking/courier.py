"""The process that tells MLflow: beside training, never in its way.

Importing mlflow and opening its store takes as long as a short training, and a slow or dead server may block
any call. So a child process reads what runs write to their folders (`publish.py`) and passes it on, while
training goes on at full speed. If the trainer dies, its end of the pipe closes, and the child still records how
the run ended.
"""

import contextlib
import json
import logging
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

from mnist_exp import cli
from mnist_exp.errors import ExperimentError
from mnist_exp.files import read_json
from mnist_exp.tracking.store import Store, open_store, reason, uri_for, without_password

if TYPE_CHECKING:
    from mnist_exp.config import Tracking

log = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between two looks at the folders: how live MLflow's curves are
GIVE_UP = 60.0  # seconds without success after the trainer has gone


@final
class Courier:
    """The trainer's handle on that process."""

    def __init__(self, tracking: "Tracking") -> None:
        self.uri, self.experiment = uri_for(tracking.uri), tracking.experiment
        self.option = f" --uri {without_password(self.uri)}" if tracking.uri else ""  # sync knows no config
        self.folders: list[Path] = []
        self.delivered = False
        self.words = tempfile.TemporaryFile("w+")  # noqa: SIM115  # what the child has to say; lives as long as it
        # A process group of its own: Ctrl-C in the terminal is for the trainer, which then closes the pipe.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mnist_exp.tracking.courier", self.experiment],
            stdin=subprocess.PIPE,
            stdout=self.words,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MLFLOW_TRACKING_URI": self.uri},
            process_group=0,
            text=True,
        )

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

    def close(self, patience: float) -> None:
        """Waits until all is delivered, but no longer than *patience* seconds in which nothing was."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        if not any((folder / "ledger.json").exists() for folder in self.folders):
            self.process.kill()  # nothing was started: there is nothing to tell
            self.process.wait()
            self.words.close()
            return
        before, since = self._notes(), time.monotonic()
        while self.process.poll() is None and time.monotonic() < since + patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.5)
            if (now := self._notes()) != before:
                before, since = now, time.monotonic()
        self.delivered = self.process.poll() == 0
        self.process.terminate()
        self.process.wait()
        with self.words:
            self.words.seek(0)
            for line in self.words:
                log.warning(line.rstrip())
        if not self.delivered:
            log.warning(
                "MLflow (%s) does not have everything yet; it is kept in the run folder. Send it with: "
                "python -m mnist_exp.sync%s",
                without_password(self.uri),
                self.option,
            )

    def _notes(self) -> list[int]:
        """Changes whenever something of a run was delivered."""
        notes = [folder / "mlflow.json" for folder in self.folders]
        return [note.stat().st_mtime_ns for note in notes if note.exists()]

    def where_to_look(self, folder: Path) -> str:
        """The line that opens the run or the sweep in *folder* in a browser."""
        try:
            note = read_json(folder / "mlflow.json")
        except (OSError, ValueError):
            return "Tracked in MLflow: not yet."
        registered = f" (registered as {note['registered']})" if "registered" in note else ""
        if self.uri.startswith("http"):
            return f"Tracked in MLflow{registered}: {without_password(self.uri).rstrip('/')}/{note['page']}"
        here = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        start = "mlflow ui" if self.uri == here else f"mlflow ui --backend-store-uri {without_password(self.uri)}"
        return f"Tracked in MLflow{registered}: {start}, then http://127.0.0.1:5000/{note['page']}"


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
    delay, deadline, looked = 0.0, 0.0, False
    while True:
        if closed.wait(delay):
            deadline = deadline or time.monotonic() + GIVE_UP
        last = closed.is_set()
        try:
            store = store or open_store(uri_for(None), experiment)
            for folder in list(runs):
                # To the end of the queue, so that one which cannot be sent does not stand in the others' way.
                delivery = runs[folder] = runs.pop(folder)
                now = _stamp(folder)
                if now != delivery.seen or (last and not delivery.complete):
                    delivery.complete = publish.publish(folder, store, abandoned=last)
                    delivery.seen = now
                    deadline = last and time.monotonic() + GIVE_UP
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
            if last and (hopeless or time.monotonic() > deadline):
                log.warning("MLflow (%s) did not take it: %s", without_password(uri_for(None)), reason(error))
                return 1
            delay = min(2 * delay + PAUSE, 10.0)
            if last:
                time.sleep(delay)


def _reap(sweeps: Collection[Path]) -> None:
    """Has MLflow know of runs of other sweeps that were killed; what goes wrong there is no fault of these *sweeps*."""
    from mnist_exp.tracking import stale

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
    os.nice(10)  # training comes first; at 19 a busy machine would never let it open the store
    logging.basicConfig(stream=sys.stdout, format="%(message)s")  # warnings: the trainer shows them at the end
    cli.spare_garbage_collection()
    sys.exit(deliver(sys.argv[1]))
