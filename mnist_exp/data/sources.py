"""Datasets in other formats than IDX, read by the libraries that know them: training and test images, and labels."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
