"""Records on disk: a dataclass in a JSON file with a format, and a lock beside it."""

import contextlib
import dataclasses
import functools
import json
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import filelock

from mnist_exp import system
from mnist_exp.disk.files import read_json
from mnist_exp.disk.layout import Folder
from mnist_exp.errors import BusyError, ExperimentError

T = TypeVar("T")

_HALF = re.compile("[\ud800-\udfff]")
LARGEST = 1e300  # of it a million still have a sum; what float32 holds is far smaller
_taken: dict[Path, filelock.FileLock] = {}
LATEST = 253_402_300_799_999  # milliseconds since 1970: the end of the year 9999, the last that calendars know


def read(kind: Callable[..., T], path: Path, what: str, fault: type[ExperimentError], way_out: str = "") -> T:
    """The *kind* (a dataclass, whose default `format` is the newest known) in *path*; unknown keys are ignored.

    Args:
        what: What a folder with such a file is.
        way_out: The help if it is damaged.

    Raises:
        fault: there is none, or it is damaged or of a newer format.
    """
    newest: int = kind.format  # type: ignore[attr-defined]  # a dataclass, which no type says
    try:
        plain: dict[str, Any] = read_json(path)
        if plain["format"] <= newest:
            return parse(kind, plain)
    except FileNotFoundError as error:
        raise fault(f"{path.parent} is not a {what}: it has no {path.name}.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise fault(f"{path} is damaged: {error}", way_out) from error
    raise fault(f"{path} has format {plain['format']}; this version knows up to {newest}.")


def parse(kind: Callable[..., T], plain: Any) -> T:
    """The *kind* (a dataclass) with the fields of *plain*, a value from a JSON file; unknown keys are ignored.

    Raises:
        TypeError: *plain* is no object, or a field has another type.
        ValueError: a field has a value that its type does not have.
    """
    if not isinstance(plain, dict):
        raise TypeError("it is no object")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # a dataclass, which no type says
    for field in fields:
        value = plain.get(field.name)
        if field.name in plain and not fits(value, field.type):
            raise TypeError(f"{field.name} is {json.dumps(value)[:40]}")
        if field.name.endswith("_ms") and value is not None and not 0 <= value <= LATEST:
            raise ValueError(f"{field.name} is {value}: no calendar has that time")
    return kind(**{field.name: plain[field.name] for field in fields if field.name in plain})


def fits(value: Any, kind: Any) -> bool:
    """Whether *value*, from JSON, has the type *kind*.

    A whole number also fits 64 bits, as databases want it, another one can be added up, and a text has no half of a
    character (`\\ud800`), which no file and no terminal takes.
    """
    origin, args = _parts(kind)
    if origin is types.UnionType:
        return any(fits(value, each) for each in args)
    if origin is list:
        return isinstance(value, list) and all(fits(each, args[0]) for each in value)
    if origin is dict:
        pairs = value.items() if isinstance(value, dict) else ()
        return isinstance(value, dict) and all(fits(key, args[0]) and fits(each, args[1]) for key, each in pairs)
    if origin in (int, float) and isinstance(value, int):
        return -(2**63) <= value < 2**63
    if origin is float and isinstance(value, float):
        return abs(value) <= LARGEST
    if isinstance(origin, type) and issubclass(origin, str):  # also an enum of texts
        return isinstance(value, str) and not _HALF.search(value)
    return origin is Any or isinstance(value, origin)


@functools.cache
def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """`dict` and its arguments of `dict[str, int]`; asked for each value of a record."""
    return get_origin(kind) or kind, get_args(kind)


@contextlib.contextmanager
def hold(folder: Path, owner: Callable[[Path], Any], what: str) -> Iterator[filelock.FileLock]:
    """While it lasts, this process has the lock of *folder*, of a run or a sweep; its death ends that, too.

    Args:
        owner: Reads the record with the holder's `pid` and `host`.
        what: The beginning of the message, such as "The sweep in x is being run by".

    Raises:
        BusyError: another process has it.
    """
    lock = _taken.pop(folder.resolve(), None) or _acquired(folder, owner, what)
    try:
        yield lock
    finally:
        _release(lock)


def take(folder: Path, owner: Callable[[Path], Any], what: str) -> None:
    """Takes the lock of *folder* for the next `hold` in this process; see there."""
    _taken[folder.resolve()] = _acquired(folder, owner, what)


def give_back() -> None:
    """Releases what was taken, and is not held."""
    while _taken:
        _release(_taken.popitem()[1])


def _acquired(folder: Path, owner: Callable[[Path], Any], what: str) -> filelock.FileLock:
    lock = filelock.FileLock(Folder(folder).lock, timeout=0)
    while not lock.is_locked:
        try:
            lock.acquire()
        except filelock.Timeout as error:
            if not held(folder):  # somebody was only asking
                continue
            who = "another process"
            with contextlib.suppress(ExperimentError):
                record = owner(folder)
                who = f"process {record.pid} on {record.host}"
            raise BusyError(f"{what} {who}.", "Wait for it, or stop it first.") from error
    return lock


def _release(lock: filelock.FileLock) -> None:
    with contextlib.suppress(OSError):  # its file may be gone, too
        lock.release()


def held(folder: Path) -> bool:
    """Whether a process holds the lock of *folder*."""
    return system.locked(Folder(folder).lock)
