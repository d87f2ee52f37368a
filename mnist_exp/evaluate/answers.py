"""What a run gets right and wrong: its predictions on a set of images, and its first layer. Loads torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from mnist_exp import config, data
from mnist_exp.config import Data
from mnist_exp.disk import trust
from mnist_exp.errors import CheckpointError, ConfigError, DataError
from mnist_exp.models import Classifier
from mnist_exp.run import export, memory

if TYPE_CHECKING:
    from mnist_exp.charts.style import Picture

MISTAKES = 20
PAIRS = 8  # of classes that are taken for each other
CHUNK = 1000  # images at a time
BINS = 15  # of confidence, as in Guo et al.


@final
@dataclass(frozen=True)
class Answers:
    """A network's answers on n images."""

    images: np.ndarray
    """(n, channel, height, width), 0 to 255."""
    true: np.ndarray
    """(n,)"""
    probabilities: np.ndarray
    """(n, class)"""
    first_layer: np.ndarray | None
    """(units, height, width), or None if the first layer does not look at pixels."""
    names: Sequence[str] = config.classes(Data())
    """What the classes are called."""

    @property
    def predicted(self) -> np.ndarray:
        """(n,)"""
        return np.asarray(self.probabilities.argmax(1))

    @property
    def confusion(self) -> np.ndarray:
        """(class, class): how many of each true class (row) were taken for each class (column)."""
        matrix = np.zeros(2 * [self.probabilities.shape[1]], int)
        np.add.at(matrix, (self.true, self.predicted), 1)
        return matrix

    def worst(self) -> np.ndarray:
        """Indices of the most confident mistakes, most confident first."""
        wrong = np.flatnonzero(self.predicted != self.true)
        return wrong[np.argsort(-self.probabilities[wrong].max(1), kind="stable")[:MISTAKES]]

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return float((self.predicted == self.true).mean())

    @property
    def balanced_accuracy(self) -> float:
        """Mean over the classes that occur of the share of their images that is right, 0 to 1."""
        counts = self.confusion.sum(1)
        return float((self.confusion.diagonal()[counts > 0] / counts[counts > 0]).mean())

    @property
    def macro_f1(self) -> float:
        """Mean over the classes that occur, or were answered, of F1, 0 to 1."""
        total = self.confusion.sum(1) + self.confusion.sum(0)
        return float((2 * self.confusion.diagonal()[total > 0] / total[total > 0]).mean())

    @property
    def uneven(self) -> bool:
        """Whether some class that occurs has twice as many images as another."""
        counts = self.confusion.sum(1)
        return bool(counts.max() >= 2 * counts[counts > 0].min())

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats."""
        p = self.probabilities[np.arange(len(self.true)), self.true]
        return float(-np.log(np.maximum(p, np.finfo(np.float32).tiny), dtype=float).mean())

    def calibration(self) -> np.ndarray:
        """(15, 3): for each bin of equal width, its images, their mean confidence, and the share that is right.

        Empty bins have 0 throughout.
        """
        confidence = self.probabilities.max(1).astype(float)
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        images = np.bincount(bins, minlength=BINS)
        sums = [np.bincount(bins, what, BINS) for what in (confidence, self.predicted == self.true)]
        return np.stack([images, *(total / np.maximum(images, 1) for total in sums)], 1)

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1: how far confidence and share of right answers are apart.

        Over 15 bins of equal width, weighted by their images: Guo, Pleiss, Sun, Weinberger, "On Calibration of
        Modern Neural Networks", ICML 2017.
        """
        images, confidence, right = self.calibration().T
        return float((images * np.abs(confidence - right)).sum() / images.sum())


def answers(folder: Path, digest: str) -> Answers:
    """Runs the network in *folder* on the test set it was trained beside.

    Args:
        digest: Of the images that the run saw; empty: unknown.

    Raises:
        ExperimentError: config, weights or images are missing, damaged, or not those of the run.
    """
    settings = trust.load(folder)
    network = export.restore(settings, folder)
    return ask(network, *images(settings.data, "test", digest), config.classes(settings.data))


def images(source: Data, split: str, digest: str) -> tuple[np.ndarray, np.ndarray]:
    """The images (n, *shape) and labels (n,) of one split, `train`, `val` or `test`.

    Args:
        digest: What the bytes must be; empty: anything.

    Raises:
        DataError: files are missing or damaged, or not those of *digest*.
        ConfigError: that split is empty.
    """
    memory.check_images(source)
    splits = data.load(source, torch.device("cpu"))
    if digest and splits.digest != digest:
        raise DataError(f"The {splits.name} images here ({splits.digest}) are not those of the run ({digest}).")
    chosen: data.Split = getattr(splits, split)
    if not len(chosen):
        raise ConfigError(f"{splits.name} has no {split} images.", "Choose another split.")
    return chosen.images[chosen.rows].view(-1, *chosen.shape).numpy(), chosen.labels[chosen.rows].numpy()


def probabilities(network: Classifier, pixels: np.ndarray) -> np.ndarray:
    """What *network* gives for *pixels* (n, *shape), 0 to 255: (n, class).

    Raises:
        CheckpointError: that is no number: its weights are of no use.
    """
    parts = torch.from_numpy(pixels).view(-1, *network.shape).split(CHUNK)
    with torch.no_grad():
        rows: np.ndarray = torch.cat([network(part.float()) for part in parts]).numpy()
    if not np.isfinite(rows).all():
        raise CheckpointError("The network's probabilities are no numbers: its weights are not finite, or too large.")
    return rows


def ask(network: Classifier, pixels: np.ndarray, true: np.ndarray, names: Sequence[str]) -> Answers:
    """The answers of *network* to *pixels* (n, *shape), 0 to 255, of classes *true* (n,); *names* are the classes'."""
    first = next(p for p in network.network.parameters() if p.ndim > 1).detach()
    tiles = None
    if first.ndim == 2 and first.shape[1] == math.prod(network.shape):
        first = first.view(-1, *network.shape)
    if first.ndim == 4 and first.shape[1] == network.shape[0]:
        tiles = first.mean(1).numpy()  # over the channels
    return Answers(pixels, true, probabilities(network, pixels), tiles, names)


def figures(answers: Answers, where: str = "test set") -> list["Picture"]:
    """Confusion matrix, most confident mistakes if there are any, and the first layer if it looks at pixels."""
    from mnist_exp.charts import network

    pictures = [network.confusion(answers.confusion, where, answers.names)]
    worst = answers.worst()
    if len(worst):
        p, true, predicted = answers.probabilities.max(1)[worst], answers.true[worst], answers.predicted[worst]
        pictures.append(network.mistakes(answers.images[worst], true, predicted, p, where, answers.names))
    if answers.first_layer is not None:
        pictures.append(network.first_layer(answers.first_layer))
    return pictures


def confused(matrix: np.ndarray) -> list[tuple[int, int, int, float]]:
    """The most confused pairs: (true, predicted, how often, share of that true class), most frequent first."""
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(k), len(matrix)) for k in order if off.flat[k]]
    return [(t, g, int(off[t, g]), float(off[t, g] / matrix[t].sum())) for t, g in pairs]
