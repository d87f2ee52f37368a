"""Datasets in other formats than IDX, read by the libraries that know them, and one that is generated."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mnist_exp.config import Data

Arrays = tuple[Tensor, Tensor, Tensor, Tensor]
"""Training images and labels, test images and labels: uint8, images (n, height, width) or (n, 3, height, width)."""
DIGITS_TEST = 360  # the last fifth of scikit-learn's 1,797


def torchvision(dataset: str, root: Path, download: bool) -> Arrays:
    """The class *dataset* of torchvision.datasets, or a part of one, such as `EMNIST/letters`, from *root*.

    torchvision checks the MD5 of what it downloads, and of CIFAR's pickles before it loads them.

    Raises:
        Exception: whatever torchvision raises where files are missing or damaged.
    """
    from torchvision import datasets  # heavy, and broken where torch is another build

    name, _, part = dataset.partition("/")
    kind = getattr(datasets, name)
    by_name = "split" in inspect.signature(kind).parameters and not part
    arrays: list[Tensor] = []
    for train in (True, False):
        chosen: dict[str, Any] = {"split": "train" if train else "test"} if by_name else {"train": train}
        loaded = kind(root=str(root), download=download, **chosen, **({"split": part} if part else {}))
        images = torch.as_tensor(loaded.data)
        labels = torch.as_tensor(loaded.labels if hasattr(loaded, "labels") else loaded.targets)
        if images.dim() == 4 and images.shape[-1] == 3:
            images = images.movedim(-1, 1)
        if name == "EMNIST":  # its files have columns before rows
            images = images.mT
        if part == "letters":  # counted from 1
            labels = labels - 1
        if labels.dim() == 2:  # QMNIST: the class, then who wrote it
            labels = labels[:, 0]
        arrays += [images.to(torch.uint8), labels.to(torch.uint8)]
    return arrays[0], arrays[1], arrays[2], arrays[3]


def sklearn() -> Arrays:
    """scikit-learn's digits, which come with it; the last fifth is the test set."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)  # from 0 to 16
    labels = torch.from_numpy(bunch.target).to(torch.uint8)
    return images[:-DIGITS_TEST], labels[:-DIGITS_TEST], images[-DIGITS_TEST:], labels[-DIGITS_TEST:]


def synthetic(data: Data) -> Arrays:
    """Images that need no files and no network, for tests and first experiments.

    A smooth random pattern for each class, each image one of them shifted by up to two pixels, with noise. The same
    config gives the same bytes on every machine of one torch version.
    """
    rng = torch.Generator().manual_seed(20_000)
    channels, *sides = data.shape
    coarse = torch.rand(data.num_classes, channels, 7, 7, generator=rng)
    patterns = interpolate(coarse, size=sides, mode="bilinear", align_corners=False)

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, data.num_classes, (count,), generator=rng)
        shifts = torch.randint(-2, 3, (count, 2), generator=rng)
        rows, columns = (
            (torch.arange(side) + shift[:, None]) % side for side, shift in zip(sides, shifts.T, strict=True)
        )  # (n, height), (n, width)
        images = patterns.movedim(1, -1)[labels[:, None, None], rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
        images = images + 0.35 * torch.randn(images.shape, generator=rng)
        return images.clamp(0, 1).mul(255).to(torch.uint8), labels.to(torch.uint8)

    return *split(data.train_images), *split(data.test_images)
