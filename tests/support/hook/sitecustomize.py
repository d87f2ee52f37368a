"""Injects faults into a command: Python imports this module at its start if `PYTHONPATH` has this folder.

`MNIST_EXP_FAULT` is JSON: the arguments of `nth.Nth`. `MNIST_EXP_HELD` and `MNIST_EXP_HELD_RUN` are the arguments of
`hooks.held`. `MNIST_EXP_CLOCK` names a file with the error of the clock in seconds. `MNIST_EXP_INSTANT` names a
folder in which two processes wait for each other before they name their output folders, both after the same second.
`MNIST_EXP_ELSEWHERE` names another operating system; see `elsewhere.py`.
"""

import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

if "MNIST_EXP_ELSEWHERE" in os.environ:
    import elsewhere

    elsewhere.install(os.environ["MNIST_EXP_ELSEWHERE"])

if "MNIST_EXP_FAULT" in os.environ:
    from nth import Nth  # in the parent folder, which is on PYTHONPATH, too

    settings = json.loads(os.environ["MNIST_EXP_FAULT"])
    Nth(Path(settings.pop("root")), **settings).__enter__()

if "MNIST_EXP_HELD" in os.environ:
    from mnist_exp.disk.journal import Journal

    row, held, only = Journal.row, Path(os.environ["MNIST_EXP_HELD"]), os.environ["MNIST_EXP_HELD_RUN"]
    signalled, signals = os.pipe()
    os.set_blocking(signals, False)
    signal.set_wakeup_fd(signals)  # Python writes there when it handles one

    def later(self: Journal, epoch: int, *arguments: Any) -> Any:
        while epoch > 2 and only in ("", self.path.parent.name) and held.exists():
            if select.select([signalled], [], [], 0)[0]:
                held.with_name(f"{held.name}.signalled").touch()
            time.sleep(0.02)
        return row(self, epoch, *arguments)

    Journal.row = later  # type: ignore[method-assign]

if "MNIST_EXP_CLOCK" in os.environ:
    clock, wrong = time.time_ns, Path(os.environ["MNIST_EXP_CLOCK"])

    def time_ns() -> int:
        return clock() + int(wrong.read_text() or 0) * 10**9

    time.time_ns, time.time = time_ns, lambda: time_ns() / 1e9

if "MNIST_EXP_INSTANT" in os.environ:
    real = time.gmtime

    def instant(seconds: float | None = None) -> time.struct_time:
        """The time that names an output folder: the same for two commands."""
        if seconds is not None:
            return real(seconds)
        crowd = Path(os.environ["MNIST_EXP_INSTANT"])
        (crowd / str(os.getpid())).touch()
        while len(list(crowd.iterdir())) < 2:
            time.sleep(0.01)
        return real(0)

    time.gmtime = instant
