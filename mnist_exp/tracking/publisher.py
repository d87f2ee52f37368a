"""The trainer's side of the publisher, the process that reports runs to MLflow while they train (`sender.py`).

Importing mlflow and opening its store takes as long as a short training, and a slow or dead server may block any call.
So a child process reads the runs' folders, and training never waits. If the trainer dies, its end of the pipe closes,
and the child still publishes the end of the run.
"""

import contextlib
import json
import logging
import math
import shlex
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, final

from mnist_exp import system
from mnist_exp.config import stores
from mnist_exp.config.secrets import without_login
from mnist_exp.config.stores import uri_for
from mnist_exp.console import terminal
from mnist_exp.disk import tracked
from mnist_exp.disk.layout import RunFolder
from mnist_exp.errors import ExperimentError, Interrupted
from mnist_exp.tracking import database, store

if TYPE_CHECKING:
    from mnist_exp.config import Tracking

log = logging.getLogger(__name__)

SILENT = 2.0  # seconds of waiting without a message
AT_ONCE = "\x01"  # begins a line that is said at once: message and way out as JSON


@final
class Publisher:
    """The trainer's handle on the child process; leaving its context closes it."""

    def __init__(self, tracking: "Tracking") -> None:
        self.uri, self.experiment, self.patience = uri_for(tracking.uri), tracking.experiment, tracking.patience
        self.warned = False
        """Whether it was said that MLflow takes nothing."""
        self.absent = False
        """Whether its server took no connection before training."""
        self._look()
        self.option = f" --uri {shlex.quote(without_login(self.uri))}" if tracking.uri else ""  # sync reads no config
        self.folders: list[Path] = []
        self.delivered = False
        self.said: list[str] = []
        """The child's warnings."""
        # Ctrl-C in the terminal goes to the trainer only, which then closes the pipe.
        self.process: subprocess.Popen[str] = system.start_module(
            "tracking.sender",
            self.experiment,
            environment={"MLFLOW_TRACKING_URI": self.uri, "PYTHONIOENCODING": "utf-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=stores.started_in(),
            encoding="utf-8",
        )
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _look(self) -> None:
        """Says what is wrong with the store, before training rather than after it."""
        file, old, new = stores.database(self.uri), "", ""
        try:
            if not file:
                store.check_server(self.uri)
            elif file.exists():
                database.check(file, self.experiment)
                old, new = database.moved(file, self.experiment)
        except ExperimentError as error:
            self.absent = not file
            self._warn(error.message, error.help)
        if old:
            log.warning("This project was in another folder: what MLflow kept in %s is kept in %s now.", old, new)

    def _is_absent(self) -> bool:
        """Whether its server takes no connection."""
        try:
            store.check_server(self.uri)
        except ExperimentError:
            return True
        return False

    def _listen(self) -> None:
        """Says at once why a store takes nothing that only the child can ask; keeps what else the child says."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(AT_ONCE):
                self._warn(*json.loads(line.removeprefix(AT_ONCE)))
            else:
                self.said.append(line.rstrip())

    def _warn(self, message: str, way_out: str) -> None:
        """Says, once, that MLflow takes nothing, and how to mend it."""
        if not self.warned:
            self.warned = True
            error = ExperimentError(f"{message} Training goes on; mnist_exp.sync sends it later.", way_out)
            terminal.complain(error, "[bold yellow]warning:[/]")

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.close(kind)

    def follow(self, folder: Path) -> None:
        """Publishes the run in *folder* from now on."""
        self.folders.append(folder)
        self._send("run", folder)

    def sweep(self, folder: Path) -> None:
        """Publishes the sweep in *folder*, which has a plan, from now on."""
        self._send("sweep", folder)

    def _send(self, kind: str, folder: Path) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it died: `close` reports that
            self.process.stdin.write(json.dumps([kind, str(folder.resolve())]) + "\n")
            self.process.stdin.flush()

    def finish(self) -> None:
        """Asks the child to publish the rest and to end: nothing more will be written."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def close(self, kind: type[BaseException] | None = None) -> None:
        """Waits until all is delivered, logs the child's warnings, and how to send the rest. Ctrl-C only ends the wait.

        With a store on this machine it waits as long as the child retries: such a store is slow only if the machine is
        busy. With another store, or after a first Ctrl-C, it waits until `patience` seconds pass without a delivery.
        For a server that took no connection before training, and takes none now, it does not wait.

        Args:
            kind: The error that has ended the training, if any.
        """
        self.finish()
        if not self._times():
            self.process.kill()  # no run has begun: nothing to publish
            self._ended()
            return
        stopped = kind is not None and issubclass(kind, (Interrupted, KeyboardInterrupt))
        with contextlib.suppress(KeyboardInterrupt):
            if not (self.absent and self._is_absent()):
                self._wait(math.inf if stores.database(self.uri) and not stopped else self.patience)
        self.delivered = self.process.poll() == 0
        self.process.terminate()
        self._ended()
        for line in self.said:
            log.warning(line)
        if not self.delivered:
            log.warning(
                "MLflow (%s) does not have everything yet; it is kept in the run folder. Send it with: "
                "python -m mnist_exp.sync%s",
                *(without_login(self.uri), self.option),
            )

    def _ended(self) -> None:
        """Waits for the child and for what it has said."""
        self.process.wait()
        self.listener.join(5)  # a process of its own may keep the pipe open
        if not self.listener.is_alive() and self.process.stdout:
            self.process.stdout.close()

    def _wait(self, patience: float) -> None:
        """Returns when the child has ended, or has delivered nothing for *patience* seconds."""
        before, began = self._times(), time.monotonic()
        since = began
        with terminal.changing() as show:
            while self.process.poll() is None and time.monotonic() < since + patience:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.5)
                if (now := self._times()) != before:
                    before, since = now, time.monotonic()
                if time.monotonic() > began + SILENT:
                    sent = sum(delivered > ledger for ledger, delivered in now)
                    counted = f": {sent} of {len(now)} runs" if len(now) > 1 else ""
                    show(f"Sending to MLflow{counted} … Ctrl-C leaves the rest to mnist_exp.sync")

    def _times(self) -> list[tuple[int, int]]:
        """For each run that has begun: the times of its last ledger and of its last delivery.

        In nanoseconds; 0: never. A delivery after the last ledger means that the run is delivered, or about to be.
        """
        times = [(_written(run.ledger), _written(run.tracked)) for run in map(RunFolder, self.folders)]
        return [(ledger, delivered) for ledger, delivered in times if ledger]

    def where_to_look(self, folder: Path) -> list[str]:
        """How the run or the sweep in *folder* is opened in a browser: a headline, then what one copies."""
        record = tracked.read(folder)
        if record is None:
            return ["Tracked in MLflow: not yet."]
        registered = f" (registered as {record.registered})" if record.registered else ""
        if self.uri.startswith("http"):
            return [f"Tracked in MLflow{registered}:", f"{without_login(self.uri).rstrip('/')}/{record.page}"]
        start, here = "mlflow ui", stores.in_file(stores.started_in() / "mlflow.db")
        if self.uri == here and "%" in here:  # a plain `mlflow ui` does not escape it
            start += " --backend-store-uri sqlite:///mlflow.db"
        elif self.uri != here:
            start += f" --backend-store-uri {shlex.quote(without_login(self.uri))}"
        return [f"Tracked in MLflow{registered}; to see it:", start, f"http://127.0.0.1:5000/{record.page}"]


def _written(path: Path) -> int:
    """The time of writing of *path*, in nanoseconds; 0 if it does not exist."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
