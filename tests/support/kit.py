"""Helpers of the fault tests: the real command line, invariants after every fault, faulty servers."""

import contextlib
import http.server
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import safetensors.torch
import torch
from samples import once

from mnist_exp import config
from mnist_exp.disk import checkpoint, journal, ledger, plan

HERE = Path(__file__).resolve().parent
SMALL = [
    "data=synthetic",
    "data.train_images=120",
    "data.test_images=40",
    "data.val_size=20",
    "batch_size=16",
    "hidden=16",
    "epochs=3",
    "device=cpu",
    "threads=1",
    "checkpoint.model=false",
]
LONG = [*SMALL[:1], "data.train_images=4000", *SMALL[2:6], "epochs=400", *SMALL[7:]]
"""Some ten seconds: long enough for a fault."""
OFF = "tracking=off"
QUIET = "hydra.sweeper.report=false"


def start(*typed: str, module: str = "train", **environment: str) -> "subprocess.Popen[str]":
    """Starts the real command in the working directory; it can import the modules beside this one."""
    path = os.pathsep.join([str(HERE), os.environ["PYTHONPATH"]])
    return subprocess.Popen(
        [sys.executable, "-m", f"mnist_exp.{module}", *once(*typed)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: "subprocess.Popen[str]", timeout: float = 240) -> tuple[int, str, str]:
    """Waits for *process*; returns exit code, output and error output. Asserts that neither has a traceback."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it did not end: {out}{err}") from None
    assert "Traceback" not in out + err, out + err
    return process.returncode, out, err


def command(*typed: str, module: str = "train", **environment: str) -> tuple[int, str, str]:
    """`start`, then `end`."""
    return end(start(*typed, module=module, **environment))


def wait_for(condition: Callable[[], Any], what: str = "it comes true", seconds: float = 240) -> Any:
    """Waits until *condition* returns something true; returns that. *what* happens then."""
    limit = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < limit, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
    return value


def runs(root: Path = Path()) -> list[Path]:
    """The folders of all runs, oldest first."""
    return sorted(path.parent for path in root.glob("outputs/**/ledger.json"))


def only_run() -> Path:
    (folder,) = runs()
    return folder


def only_sweep() -> Path:
    (folder,) = (path.parent for path in Path().glob("outputs/sweeps/*/*/sweep.json"))
    return folder


def states() -> list[str]:
    """The state of each point of the only sweep; `planned` without a run."""
    home = only_sweep()
    folders = [home / str(i) for i in range(len(plan.read(home).points))]
    return [ledger.read(f).state if (f / "ledger.json").exists() else "planned" for f in folders]


def processes() -> list[psutil.Process]:
    """All processes in the working directory, without this one."""
    alive = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            running = process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid()
            if running and Path(process.cwd()) == Path.cwd():
                alive.append(process)
    return alive


def whole(folder: Path) -> None:
    """Asserts the invariants of a run after any fault: every file is the old one or the new one, never a mixture."""
    if not (folder / "ledger.json").exists():
        return
    entry = ledger.read(folder)
    config.load(folder / "config.yaml")
    epochs = [row["epoch"] for row in journal.read(folder)]
    assert epochs == list(range(1, len(epochs) + 1))
    for path in (folder / "checkpoints").glob("*.pt"):
        state = checkpoint.load(path)
        assert len(state.history) == state.epoch
    if (folder / "weights.safetensors").exists():
        safetensors.torch.load_file(folder / "weights.safetensors")
    if entry.state == "finished":
        assert (folder / "weights.safetensors").exists()
        assert len(epochs) == entry.epoch
        assert entry.ended_ms is not None
        assert entry.ended_ms >= entry.started_ms


def clean(root: Path = Path()) -> None:
    """Asserts that no temporary file is left."""
    left = [path for path in root.rglob("*") if ".tmp" in path.name and ".cache" not in path.parts]
    assert not left, left


def same_weights(one: Path, other: Path) -> None:
    """Asserts that two runs have equal weights to the last bit."""
    a, b = (safetensors.torch.load_file(folder / "weights.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def sent_once(client: Any, run_id: str, epochs: int, key: str = "train/loss") -> None:
    """Asserts that MLflow has *key* of each epoch exactly once."""
    steps = Counter(metric.step for metric in client.get_metric_history(run_id, key))
    assert steps == dict.fromkeys(range(1, epochs + 1), 1)


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Holds an exclusive lock on the sqlite file."""
    connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


@contextlib.contextmanager
def server(mode: str) -> Iterator[str]:
    """Runs a faulty server on loopback; yields its address.

    Args:
        mode: Its answer: status `500`, an HTML page (`html`), that page byte by byte (`slow`), or none (`hang`).
    """
    stop = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            if mode == "hang":
                stop.wait(60)
                return
            body = b"<html><script>alert(1)</script>Please log in</html>"
            self.send_response(500 if mode == "500" else 200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for part in [body[i : i + 1] for i in range(len(body))] if mode == "slow" else [body]:
                self.wfile.write(part)
                self.wfile.flush()
                stop.wait(0.1 if mode == "slow" else 0)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the client has given up
                super().handle()

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}"
    finally:
        stop.set()
        listener.shutdown()
        listener.server_close()


def forked(work: Callable[[], object]) -> int:
    """Runs *work* in a fork of this process; returns its exit status: 0, 1 or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
