"""The per-user cache: what can be fetched or made again, so that it may be deleted at any time."""

import contextlib
from pathlib import Path

import platformdirs

from mnist_exp import system
from mnist_exp.disk.files import atomic_write


def folder() -> Path:
    """Where it is; perhaps not there yet."""
    return Path(platformdirs.user_cache_dir("mnist_exp"))


def read(name: str) -> bytes | None:
    """What is kept as *name*: a whole file, or None where there is none or others may have written it."""
    try:
        with (folder() / name).open("rb") as file:
            return file.read() if system.only_ours(file.fileno()) else None
    except OSError:
        return None


def keep(name: str, data: bytes) -> None:
    """Keeps *data* as *name*, where the cache can be written; where not, it is made again the next time."""
    path = folder() / name
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data)
