"""`sweep.json`, the record of a sweep: written before its first job starts, extended when it is resumed."""

import dataclasses
import os
import socket
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import filelock

from mnist_exp.disk import records
from mnist_exp.disk.files import write_json
from mnist_exp.disk.layout import SweepFolder
from mnist_exp.errors import ConfigError


@final
@dataclass(kw_only=True)
class Plan:
    """What `sweep.json` holds; point *i* runs in `SweepFolder.run(i)`."""

    id: str
    """Random; the same when it is resumed."""
    typed: list[str]
    """The overrides as they were typed, without `resume`."""
    keys: list[str]
    """The keys that vary between points, in the order typed."""
    experiment: str = ""
    """MLflow experiment; empty: not tracked."""
    points: list[list[str]] = field(default_factory=list)
    """The overrides of each point."""
    configs: list[str] = field(default_factory=list)
    """The fingerprint of each point's config."""
    repeats: list[int] = field(default_factory=list)
    """Points of a search that never run: an earlier trial has the same config, or another seed ended theirs."""
    cluster: str = "local"
    """Where it ran last; see `conf/cluster`."""
    order: int = 0
    """See `order.following`; 0: it was begun before there were such numbers."""
    created_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    """Milliseconds since 1970."""
    pid: int = field(default_factory=os.getpid)
    """The process that hands out its jobs, or did last."""
    host: str = field(default_factory=socket.gethostname)
    """The machine of that process."""
    format: int = 1

    def __post_init__(self) -> None:
        if (lack := len(self.points) - len(self.configs)) < 0:
            raise ValueError("it has more configs than points")
        self.configs += [""] * lack

    def write(self, folder: Path) -> None:
        """Publishes the plan, atomically."""
        self.pid, self.host = os.getpid(), socket.gethostname()
        write_json(SweepFolder(folder).plan, dataclasses.asdict(self))


def read(folder: Path) -> Plan:
    """The plan of the sweep in *folder*. Raises ConfigError if it is missing, damaged or of a newer format."""
    return records.read(Plan, SweepFolder(folder).plan, "sweep", ConfigError)


def hold(folder: Path) -> AbstractContextManager[filelock.FileLock]:
    """While it lasts, this process has the sweep; see `records.hold`. Raises BusyError if another one has it."""
    return records.hold(folder, read, f"The sweep in {folder} is being run by")
