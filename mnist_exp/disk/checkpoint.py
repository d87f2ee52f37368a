"""Checkpoints, from which a run resumes exactly: atomic, checked, tensors and plain data only.

A checkpoint's name carries its epoch and the digest of its bytes (`last-0007-1f2e3d4c5b6a.pt`), so one
rename publishes file and checksum together. The last two are kept: a damaged newest one costs one epoch.
"""

import dataclasses
import io
import logging
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch

from mnist_exp import system
from mnist_exp.disk.files import atomic_write, sha256
from mnist_exp.disk.journal import is_row
from mnist_exp.disk.records import fits
from mnist_exp.errors import CheckpointError, first_line

log = logging.getLogger(__name__)

FORMAT = 1
KEPT = 2


@final
@dataclass(frozen=True)
class Checkpoint:
    """The state of a lane between two epochs. Random numbers are functions of seed and epoch: none are saved."""

    epoch: int
    """Epochs finished."""
    best: float
    """Highest validation accuracy so far."""
    weights: dict[str, torch.Tensor]
    moments: dict[str, dict[str, torch.Tensor]]
    history: list[dict[str, Any]]
    """One row per epoch, as in `metrics.jsonl`."""
    config: str
    """Fingerprint of the config."""
    best_epoch: int = 0
    """The epoch, counting from 1, that first had the best validation accuracy."""
    averaged: dict[str, torch.Tensor] = field(default_factory=dict)
    """The averaged weights; empty without `training.ema`."""
    chosen: dict[str, torch.Tensor] = field(default_factory=dict)
    """The evaluated weights of `best_epoch`; empty without `training.patience`."""
    hits: dict[str, torch.Tensor] = field(default_factory=dict)
    """For each split, which images (n,) the weights got right that would be exported now."""


def save(folder: Path, state: Checkpoint) -> Path:
    """Writes *state* into *folder* and deletes checkpoints that are no longer needed.

    Raises:
        OSError: the disk is full or read-only; the earlier checkpoints are untouched.
    """
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **vars(state)}, buffer)
    data = buffer.getvalue()
    path = folder / f"last-{state.epoch:04d}-{sha256(data)[:12]}.pt"
    atomic_write(path, data)
    # Others of this epoch or a later one are damaged: training would have resumed from them.
    kept = [path, *(old for old in _newest_first(folder) if _epoch(old) < state.epoch)][:KEPT]
    for old in set(_newest_first(folder)).difference(kept):
        system.unlink(old)
    return path


def load_last(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint in *folder*; None if there is none.

    Raises:
        CheckpointError: there are checkpoints, but each is damaged or of another format.
    """
    faults = []
    for path in _newest_first(folder):
        try:
            return load(path)
        except CheckpointError as error:
            log.warning("%s An earlier checkpoint is tried.", error)
            faults.append(str(error))
    if not faults:
        return None
    raise CheckpointError(
        f"No checkpoint in {folder} can be used: {' '.join(faults)}", "Start the run anew without resume=."
    )


def load(path: Path) -> Checkpoint:
    """The checkpoint in *path*.

    Raises:
        CheckpointError: the bytes are not those that were saved, or hold anything but tensors and plain data.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    if sha256(data)[:12] != path.stem.rsplit("-", 1)[-1]:
        raise CheckpointError(f"{path} is damaged: its bytes do not match the digest in its name.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as records:
            if sum(record.file_size for record in records.infolist()) > len(data):
                raise ValueError("it unpacks to more than it is.")
        # weights_only without exception: the folder may be foreign.
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if state.pop("format") == FORMAT:
            return _checked(Checkpoint(**state))
    except Exception as error:
        raise CheckpointError(f"{path} is not a checkpoint of this program: {first_line(error)}") from error
    raise CheckpointError(f"{path} has another format than {FORMAT}.")


def _checked(saved: Checkpoint) -> Checkpoint:
    """*saved*, as a run may have written it. Raises ValueError if none has."""
    for each in dataclasses.fields(saved):
        if not fits(getattr(saved, each.name), each.type):
            raise ValueError(f"no run saves such a value as its {each.name}.")
    if saved.epoch != len(saved.history) or not all(is_row(row, i) for i, row in enumerate(saved.history, start=1)):
        raise ValueError(f"it says that {saved.epoch} epochs are finished, and does not have the results of each.")
    if not all(right.dtype == torch.bool and right.ndim == 1 for right in saved.hits.values()):
        raise ValueError("its hits are no lists of right and wrong.")
    groups = (saved.weights, saved.averaged, saved.chosen, saved.hits, *saved.moments.values())
    if not all(_plain(tensor) for group in groups for tensor in group.values()):
        raise ValueError("it does not have all numbers of its tensors.")
    if not all((kept["step"] >= 0).all() for kept in saved.moments.values() if "step" in kept):
        raise ValueError("a number of its optimizer's steps is below 0.")
    return saved


def _plain(tensor: torch.Tensor) -> bool:
    """Whether all numbers of *tensor* are in the file: a copy of an expanded one may fill the memory."""
    here = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return here and not tensor.is_complex() and tensor.nbytes <= tensor.untyped_storage().nbytes()


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("last-*.pt"), key=_epoch, reverse=True)


def _epoch(path: Path) -> int:
    """The epoch in the name of a checkpoint; 0 for a foreign name."""
    number = path.name.split("-")[1]
    return int(number) if number.isdecimal() else 0
