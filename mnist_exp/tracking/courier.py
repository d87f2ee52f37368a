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
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, final

from mnist_exp.files import read_json
from mnist_exp.tracking.store import Store, open_store, uri_for

if TYPE_CHECKING:
    from mnist_exp.config import Tracking

log = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between two looks at the folders: how live MLflow's curves are
GIVE_UP = 60.0  # seconds after the trainer has gone


@final
class Courier:
    """The trainer's handle on that process."""

    def __init__(self, tracking: "Tracking") -> None:
        self.uri, self.experiment = uri_for(tracking.uri), tracking.experiment
        self.folders: list[Path] = []
        self.delivered = False
        # A process group of its own: Ctrl-C in the terminal is for the trainer, which then closes the pipe.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mnist_exp.tracking.courier", self.experiment],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MLFLOW_TRACKING_URI": self.uri},
            process_group=0,
            text=True,
        )

    def follow(self, folder: Path) -> None:
        """From now on what happens in *folder* is passed on."""
        self.folders.append(folder)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: `close` will say so
            self.process.stdin.write(json.dumps(str(folder.resolve())) + "\n")
            self.process.stdin.flush()

    def close(self, patience: float) -> None:
        """Waits until all is delivered, but no longer than *patience* seconds."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        if not any((folder / "ledger.json").exists() for folder in self.folders):
            self.process.kill()  # nothing was started: there is nothing to tell
            self.process.wait()
            return
        try:
            self.delivered = self.process.wait(patience) == 0
        except subprocess.TimeoutExpired:
            self.process.terminate()
        if not self.delivered:
            log.warning(
                "MLflow (%s) does not have everything yet; it is kept in the run folder. "
                "Send it with: python -m mnist_exp.sync",
                self.experiment,
            )

    def where_to_look(self, folder: Path) -> str:
        """The line that opens this run in a browser."""
        try:
            note = read_json(folder / "mlflow.json")
        except (OSError, ValueError):
            return "Tracked in MLflow: not yet."
        page = f"/#/experiments/{note['experiment_id']}/runs/{note['run_id']}"
        if self.uri.startswith("http"):
            return f"Tracked in MLflow: {self.uri.rstrip('/')}{page}"
        here = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        start = "mlflow ui" if self.uri == here else f"mlflow ui --backend-store-uri {self.uri}"
        return f"Tracked in MLflow: {start}, then http://127.0.0.1:5000{page}"


def deliver(experiment: str) -> int:
    """The child's main: follows the folders named on standard input until it closes; 0 if all was delivered."""
    from mnist_exp.tracking.publish import publish  # draws figures: not for the trainer's side

    folders: dict[Path, object] = {}  # with what was last seen of each
    closed = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            folders.setdefault(Path(json.loads(line)), None)
        closed.set()

    threading.Thread(target=listen, daemon=True).start()
    store: Store | None = None
    delay, deadline = 0.0, float("inf")
    while True:
        if closed.wait(delay):
            deadline = min(deadline, time.monotonic() + GIVE_UP)
        last = closed.is_set()
        try:
            store = store or open_store(uri_for(None), experiment)
            for folder, seen in list(folders.items()):
                now = _stamp(folder)
                if last or now != seen:
                    publish(folder, store, abandoned=last)
                    folders[folder] = now
            if last:
                return 0
            delay = PAUSE
        except Exception:
            log.warning("MLflow did not take it; trying again.", exc_info=True)
            if time.monotonic() > deadline:
                return 1
            delay = min(2 * delay + PAUSE, 10.0)
            if last:
                time.sleep(delay)


def _stamp(folder: Path) -> object:
    """Changes whenever a run writes its journal or its ledger."""
    return [(folder / name).stat().st_mtime_ns for name in ("ledger.json", "metrics.jsonl") if (folder / name).exists()]


if __name__ == "__main__":
    os.nice(19)  # training comes first
    sys.exit(deliver(sys.argv[1]))
