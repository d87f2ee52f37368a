"""Atomic writes: a file is whole or absent, whichever process dies when."""

import hashlib
import json
import math
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Any

from mnist_exp import system


def atomic_write(path: Path, data: bytes) -> None:
    """Writes *data* so that readers see the old file or the new one, and a power cut keeps one of them.

    Args:
        path: Its directory must exist; a temporary file beside it carries the name, the process id and
            a random tail, so that two writers never share one.

    Raises:
        OSError: the disk is full or read-only; the old file is untouched. It names *path*.
    """
    tmp = path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with tmp.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # the bytes are durable
        system.replace(tmp, path)
    except BaseException as error:
        system.unlink(tmp)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # a full disk names no file, others the temporary one
        raise
    system.sync_names(path.parent)


def tidy(folder: Path, *names: str) -> None:
    """Removes temporary files of killed writers of *names* (patterns) in *folder*. No writer may be alive."""
    for name in names:
        for stray in folder.glob(f".{name}.tmp-*"):
            system.unlink(stray)


def file_name(text: str) -> str:
    """*text* as the name of one file on every system: never a path, never hidden, and none that Windows keeps."""
    return re.sub(r"(?i)^(?=(con|prn|aux|nul|com\d|lpt\d)(\.|$))|^\.+|\.+$|[^\w.-]+", "_", text)


def write_json(path: Path, value: Any) -> None:
    """Writes *value* as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    atomic_write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in *path*.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `parse_json`, or it is not UTF-8, or no file that can be read: who reads a pipe waits for ever.
    """
    entry = path.stat()
    if not stat.S_ISREG(entry.st_mode) or system.hollow(entry):
        raise ValueError("it is a folder, a pipe, a device or a file of holes")
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """The value in *text*.

    Raises:
        ValueError: it is not JSON, which has no NaN and no infinity, or nested beyond any use.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it has the number {text}")
    return number


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def sha256(data: bytes | memoryview) -> str:
    """Hexadecimal SHA-256 of *data*."""
    return hashlib.sha256(data).hexdigest()
