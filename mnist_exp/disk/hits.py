"""`hits.safetensors`: which validation and test images a trained network gets right, a bit each.

Runs on the same images can be compared image by image, which is far surer than comparing their accuracies.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from mnist_exp.disk.files import atomic_write, parse_json
from mnist_exp.disk.layout import RunFolder


def write(folder: Path, hits: Mapping[str, np.ndarray]) -> None:
    """Writes *hits*: for each split, whether each image (n,) was right, in the order of the split."""
    packed = {split: np.packbits(right) for split, right in hits.items()}
    images = json.dumps({split: len(right) for split, right in hits.items()})  # several entries have no fixed order
    atomic_write(RunFolder(folder).hits, safetensors.numpy.save(packed, metadata={"images": images}))


def read(folder: Path, split: str) -> np.ndarray | None:
    """Whether each image of *split* was right, (n,) booleans; None if that was not kept, or is damaged."""
    try:
        with safe_open(RunFolder(folder).hits, "numpy") as file:
            images, bits = parse_json(file.metadata()["images"])[split], file.get_tensor(split)
            whole = bits.dtype == np.uint8 and bits.ndim == 1 and 0 <= 8 * len(bits) - images < 8 and images > 0
            return np.unpackbits(bits, count=images).astype(bool) if whole else None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
