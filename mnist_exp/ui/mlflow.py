"""MLflow's own pages beside ours: those of the configured server, else of an `mlflow ui` that is started here."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from typing import final

import psutil

from mnist_exp import system
from mnist_exp.config import stores
from mnist_exp.config.secrets import without_login

USUAL = 5000  # the port that reports link to
GRACE = 10.0  # seconds that it gets to end


@final
class MLflow:
    """Where this folder's store is seen in a browser. `look` starts what is needed, `close` ends it.

    Args:
        wanted: Whether to start `mlflow ui` where the store is a file or a database.
    """

    def __init__(self, wanted: bool = True) -> None:
        self.uri, self.wanted, self.lock = stores.uri_for(None), wanted, threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.address = without_login(self.uri).rstrip("/") if self.uri.startswith("http") else ""

    def look(self) -> tuple[str, str]:
        """Its address, empty while it does not answer; and why, as a sentence."""
        if self.uri.startswith("http"):
            return self.address, ""
        file = stores.database(self.uri)
        if file and not stores.made(file):
            return "", "Nothing is tracked in MLflow yet."
        if not self.wanted:
            return "", "MLflow was not started: mlflow ui does."
        with self.lock:
            if self.process is None:
                self.process = self._start(USUAL)
            elif self.process.poll() and self.address == _at(USUAL):  # another command took it at the same moment
                self.process = self._start(0)
        if (code := self.process.poll()) is not None:
            return "", f"MLflow has ended with {code}: mlflow ui says why."
        return (self.address, "") if _answers(self.address) else ("", "MLflow is starting …")

    def close(self) -> None:
        """Ends it, with the processes that it has started."""
        with self.lock:
            if self.process:
                with contextlib.suppress(psutil.NoSuchProcess):
                    started = psutil.Process(self.process.pid)
                    family = [*started.children(recursive=True), started]
                    for end in (psutil.Process.terminate, psutil.Process.kill):
                        for each in family:
                            with contextlib.suppress(psutil.NoSuchProcess):
                                end(each)
                        _, family = psutil.wait_procs(family, GRACE)

    def _start(self, wanted: int) -> "subprocess.Popen[bytes]":
        port = _free(wanted)
        self.address = _at(port)
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                "MLFLOW_BACKEND_STORE_URI": self.uri,  # not an argument: it may have a password
                "MLFLOW_WORKERS": "1",  # for one person; as usual it starts four, and one more for jobs
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            **system.apart(),  # Ctrl-C comes here first
        )


def _at(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _free(wanted: int) -> int:
    """The port *wanted* of loopback, or one that is free."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("No port of 127.0.0.1 is free.")


def _answers(address: str) -> bool:
    """Whether somebody listens there."""
    host, _, port = address.rpartition("/")[2].partition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=0.5):
        return True
    return False
