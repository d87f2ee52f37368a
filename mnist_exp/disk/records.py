"""What `ledger.json` and `sweep.json` have in common: a dataclass in a file with a format, and a lock beside it."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_origin

import filelock

from mnist_exp.disk.files import read_json
from mnist_exp.errors import BusyError, ExperimentError

T = TypeVar("T")


def read(
    kind: Callable[..., T], path: Path, newest: int, fault: type[ExperimentError], missing: str, way_out: str = ""
) -> T:
    """The *kind* (a dataclass) that *path* holds; keys that it does not know are passed over.

    Args:
        newest: The highest format that is understood.
        missing: What to say if there is no such file.
        way_out: What helps if it is damaged.

    Raises:
        fault: there is none, or it is damaged or of a newer format.
    """
    try:
        plain: dict[str, Any] = read_json(path)
        newer = plain["format"] > newest
        known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # a dataclass, which no type says
        found = None if newer else kind(**{key: value for key, value in plain.items() if key in known})
        _check_types(found)
    except FileNotFoundError as error:
        raise fault(missing) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise fault(f"{path} is damaged: {error}", way_out) from error
    if found is None:
        raise fault(f"{path} has format {plain['format']}; this version knows up to {newest}.")
    return found


def _check_types(record: Any) -> None:
    """Raises TypeError if a field of *record* that is to hold a list, a mapping or a text holds something else."""
    for field in dataclasses.fields(record) if record else ():
        kind = get_origin(field.type) or field.type
        value = getattr(record, field.name)
        if kind in (list, dict, str) and not isinstance(value, kind):
            raise TypeError(f"{field.name} is {json.dumps(value)[:40]}")


def hold(folder: Path, owner: Callable[[Path], Any], what: str) -> filelock.FileLock:
    """Takes *folder* for this process; released by `release()` or by death.

    Args:
        owner: Reads the record that names the holder's `pid` and `host`.
        what: The sentence's beginning, such as "The sweep in x is being run by".

    Raises:
        BusyError: another process has it.
    """
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        who = "another process"
        with contextlib.suppress(ExperimentError):
            record = owner(folder)
            who = f"process {record.pid} on {record.host}"
        raise BusyError(f"{what} {who}.", "Wait for it, or stop it first.") from error
    return lock
