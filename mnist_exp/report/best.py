"""What the best run gets wrong: its predictions on the test set, and its first layer. Loads torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch

from mnist_exp import config, data, run
from mnist_exp.errors import DataError

MISTAKES = 20
CHUNK = 1000  # images at a time


@final
@dataclass(frozen=True)
class Answers:
    """A network's answers on the test set of n images."""

    images: np.ndarray
    """(n, 28, 28), 0 to 255."""
    true: np.ndarray
    """(n,)"""
    probabilities: np.ndarray
    """(n, 10)"""
    first_layer: np.ndarray | None
    """(units, height, width), or None if the first layer does not look at pixels."""

    @property
    def predicted(self) -> np.ndarray:
        """(n,)"""
        found: np.ndarray = self.probabilities.argmax(1)
        return found

    @property
    def confusion(self) -> np.ndarray:
        """(10, 10): how many of each true class (row) were taken for each class (column)."""
        matrix = np.zeros((10, 10), int)
        np.add.at(matrix, (self.true, self.predicted), 1)
        return matrix

    def worst(self) -> np.ndarray:
        """Indices of the most confident mistakes, most confident first."""
        wrong = np.flatnonzero(self.predicted != self.true)
        return wrong[np.argsort(-self.probabilities[wrong].max(1), kind="stable")[:MISTAKES]]


def answers(folder: Path, digest: str) -> Answers:
    """Runs the network in *folder* on the test set it was trained beside.

    Args:
        digest: Of the images that the run saw; empty: unknown.

    Raises:
        ExperimentError: config, weights or images are missing, damaged, or not those of the run.
    """
    about = config.load(folder / "config.yaml")
    splits = data.load(about.data, torch.device("cpu"))
    if digest and splits.digest != digest:
        raise DataError(f"The {splits.name} images here ({splits.digest}) are not those of the run ({digest}).")
    network = run.restore(about, folder)
    pixels = splits.test.images[splits.test.rows].view(-1, 1, 28, 28)
    with torch.no_grad():
        probabilities = torch.cat([network(part.float()) for part in pixels.split(CHUNK)])
    true = splits.test.labels[splits.test.rows]
    first = next(p for p in network.network.parameters() if p.ndim > 1).detach()
    tiles = None
    if first.ndim == 2 and first.shape[1] == 28 * 28:
        tiles = first.view(-1, 28, 28).numpy()
    elif first.ndim == 4 and first.shape[1] == 1:
        tiles = first[:, 0].numpy()
    return Answers(pixels[:, 0].numpy(), true.numpy(), probabilities.numpy(), tiles)


def confused(matrix: np.ndarray, count: int = 8) -> list[tuple[int, int, int, float]]:
    """The most confused pairs: (true, predicted, how often, share of that true class), most frequent first."""
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:count]
    pairs = [divmod(int(k), 10) for k in order if off.flat[k]]
    return [(t, g, int(off[t, g]), float(off[t, g] / matrix[t].sum())) for t, g in pairs]
