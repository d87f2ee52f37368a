"""States that can be resumed exactly: atomic, checked, tensors and plain data only.

A checkpoint's name carries its epoch and the digest of its bytes (`last-0007-1f2e3d4c5b6a.pt`), so one
rename publishes file and checksum together. The last two are kept: a damaged newest one costs one epoch.
"""

import io
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch

from mnist_exp.disk.files import atomic_write, sha256
from mnist_exp.errors import CheckpointError, first_line

log = logging.getLogger(__name__)

FORMAT = 1
KEPT = 2


@final
@dataclass(frozen=True)
class Checkpoint:
    """Everything that a lane needs to go on. Random numbers are functions of seed and epoch: none are saved."""

    epoch: int
    """Epochs finished."""
    best: float
    """Highest validation accuracy so far."""
    weights: dict[str, torch.Tensor]
    moments: dict[str, dict[str, torch.Tensor]]
    history: list[dict[str, Any]]
    """One row for each epoch, as in `metrics.jsonl`."""
    config: str
    """Fingerprint of the config that it was trained with."""
    best_epoch: int = 0
    """The epoch, counting from 1, that first had the best validation accuracy."""
    averaged: dict[str, torch.Tensor] = field(default_factory=dict)
    """The averaged weights; empty without `training.ema`."""
    chosen: dict[str, torch.Tensor] = field(default_factory=dict)
    """The weights of `best_epoch`, as they were evaluated; empty without `training.patience`."""


def save(folder: Path, state: Checkpoint) -> Path:
    """Writes *state* into *folder* and drops what is no longer needed.

    Raises:
        OSError: the disk is full or read-only; the earlier checkpoints are untouched.
    """
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **vars(state)}, buffer)
    data = buffer.getvalue()
    path = folder / f"last-{state.epoch:04d}-{sha256(data)[:12]}.pt"
    atomic_write(path, data)
    lasting = _newest_first(folder)
    # Of this epoch or later, but not it: damaged, or training would have gone on from there.
    stale = [old for old in lasting if _epoch(old) >= state.epoch and old != path]
    for old in [*stale, *[p for p in lasting if p not in stale][KEPT:]]:
        old.unlink()
    return path


def load_last(folder: Path) -> Checkpoint | None:
    """The newest undamaged state in *folder*; None where none was saved.

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
    if faults:
        raise CheckpointError(
            f"No checkpoint in {folder} can be used: {' '.join(faults)}",
            "Start the run anew without resume=.",
        )
    return None


def load(path: Path) -> Checkpoint:
    """The state in *path*.

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
        # weights_only, with no way around it: a checkpoint may come from elsewhere.
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if state.pop("format") != FORMAT:
            raise CheckpointError(f"{path} has another format than {FORMAT}.")
        return Checkpoint(**state)
    except CheckpointError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise CheckpointError(f"{path} is not a checkpoint of this program: {reason}") from error


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("last-*.pt"), key=_epoch, reverse=True)


def _epoch(path: Path) -> int:
    """The epoch in the name of a state; 0 for a name that is not ours."""
    number = path.name.split("-")[1]
    return int(number) if number.isdecimal() else 0
