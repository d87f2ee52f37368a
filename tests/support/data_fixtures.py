"""A small dataset: its image files and its config; and whether torchvision can be loaded."""

import functools
import gzip
import hashlib
import importlib
from pathlib import Path

import torch

from mnist_exp.config import Data
from mnist_exp.data import fetch, idx

TRAIN, TEST = 12, 5


def contents() -> dict[str, bytes]:
    """The four files of a small dataset, by name."""
    rng = torch.Generator().manual_seed(0)
    files = {}
    for name in fetch.FILES:
        count = TRAIN if name.startswith("train") else TEST
        shape = (count, 28, 28) if "images" in name else (count,)
        top = 256 if "images" in name else 10
        files[name] = idx.encode(torch.randint(0, top, shape, generator=rng, dtype=torch.uint8))
    return files


def write_dataset(folder: Path, packed: bool = False) -> Path:
    """Writes the four files into *folder*, gzipped if *packed*; returns *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents().items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


def described(root: Path | None = None) -> Data:
    """The config of the dataset, with digests, so that a changed pixel is detected."""
    return Data(
        name="small",
        root=str(root) if root else None,
        torchvision="Small",
        train_images=TRAIN,
        test_images=TEST,
        val_size=2,
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in contents().items()},
    )


@functools.cache
def torchvision_fault() -> str:
    """Why torchvision cannot be loaded, as when it was built for another torch; empty if it can. Takes seconds."""
    try:
        importlib.import_module("torchvision.datasets")
    except Exception as error:
        return str(error)
    return ""
