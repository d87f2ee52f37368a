"""Datasets in the formats of their authors: files made in these formats become the four arrays."""

import bz2
import importlib
import pickle
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from data_fixtures import torchvision_fault, write_dataset
from torch import Tensor

from mnist_exp.config import Data
from mnist_exp.data import fetch, idx, sources, splits
from mnist_exp.errors import DataError

TRAIN, TEST = 6, 4


@pytest.fixture(scope="module", autouse=True)
def datasets() -> ModuleType:
    """Those of torchvision, which takes seconds to load: not for whoever only collects this file."""
    if fault := torchvision_fault():
        pytest.skip(f"torchvision cannot be loaded: {fault}")
    return importlib.import_module("torchvision.datasets")


def pictures(count: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(count), dtype=torch.uint8)


def write_idx(path: Path, array: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(idx.encode(array))


def read(dataset: str, root: Path, images: tuple[Tensor, Tensor], labels: list[int]) -> None:
    """Asserts that *dataset* in *root* has these images, and these labels in both parts."""
    got = sources.torchvision(dataset, root, download=False)
    for number, (wanted, count) in enumerate(zip(images, (TRAIN, TEST), strict=True)):
        assert got[2 * number].equal(wanted)
        assert got[2 * number].dtype == got[2 * number + 1].dtype == torch.uint8
        assert got[2 * number + 1].tolist() == labels[:count]


@pytest.mark.parametrize("kind", ["MNIST", "FashionMNIST", "KMNIST"])
def test_mnists_format(kind: str, tmp_path: Path) -> None:
    images = pictures(TRAIN, 28, 28), pictures(TEST, 28, 28)
    for name, each in zip(fetch.FILES[::2], images, strict=True):
        write_idx(tmp_path / kind / "raw" / name, each)
        write_idx(tmp_path / kind / "raw" / name.replace("images-idx3", "labels-idx1"), torch.arange(len(each)).byte())
    read(kind, tmp_path, images, [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(("part", "first"), [("letters", 1), ("balanced", 0), ("byclass", 0)])
def test_emnist_is_turned_and_its_letters_count_from_0(part: str, first: int, tmp_path: Path) -> None:
    images = pictures(TRAIN, 28, 28), pictures(TEST, 28, 28)
    for name, each in zip(("train", "test"), images, strict=True):
        raw = tmp_path / "EMNIST" / "raw"
        write_idx(raw / f"emnist-{part}-{name}-images-idx3-ubyte", each.mT)
        write_idx(raw / f"emnist-{part}-{name}-labels-idx1-ubyte", (torch.arange(len(each)) + first).byte())
    read(f"EMNIST/{part}", tmp_path, images, [0, 1, 2, 3, 4, 5])


def test_the_first_of_qmnists_labels_is_the_class(tmp_path: Path) -> None:
    images = pictures(TRAIN, 28, 28), pictures(TEST, 28, 28)
    for name, each in zip(("train", "test"), images, strict=True):
        write_idx(tmp_path / "QMNIST" / "raw" / f"qmnist-{name}-images-idx3-ubyte", each)
        table = np.array([[label, 7, 300, 9, 1, 0, 0, 0] for label in range(len(each))], ">i4")
        head = struct.pack(">BBBBII", 0, 0, 12, 2, len(each), 8)  # 12: 32-bit integers
        (tmp_path / "QMNIST" / "raw" / f"qmnist-{name}-labels-idx2-int").write_bytes(head + table.tobytes())
    read("QMNIST", tmp_path, images, [0, 1, 2, 3, 4, 5])


def test_usps_has_numbers_in_lines(tmp_path: Path) -> None:
    images = pictures(TRAIN, 16, 16), pictures(TEST, 16, 16)
    for name, each in zip(("usps.bz2", "usps.t.bz2"), images, strict=True):
        values = (each.flatten(1).double() + 0.25) / 255 * 2 - 1  # torchvision cuts fractions off
        rows = [
            " ".join([str(label + 1), *(f"{i + 1}:{value:.6f}" for i, value in enumerate(row))])
            for label, row in enumerate(values.tolist())
        ]
        (tmp_path / name).write_bytes(bz2.compress("\n".join(rows).encode()))
    read("USPS", tmp_path, images, [0, 1, 2, 3, 4, 5])


def test_svhn_has_zero_as_ten(tmp_path: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    images = pictures(TRAIN, 3, 32, 32), pictures(TEST, 3, 32, 32)
    for name, each in zip(("train_32x32.mat", "test_32x32.mat"), images, strict=True):
        labels = np.array([[10], [1], [2], [3], [4], [5]], np.uint8)[: len(each)]
        scipy.io.savemat(tmp_path / name, {"X": each.permute(2, 3, 1, 0).numpy(), "y": labels})
    read("SVHN", tmp_path, images, [0, 1, 2, 3, 4, 5])


def cifar(root: Path, images: tuple[Tensor, Tensor]) -> None:
    """Writes CIFAR-10's batches: the first has the training images, the other four none."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    parts = {
        "data_batch_1": images[0],
        "test_batch": images[1],
        **{f"data_batch_{i}": images[0][:0] for i in range(2, 6)},
    }
    for name, each in parts.items():
        batch = {"data": each.flatten(1).numpy(), "labels": list(range(len(each)))}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))


def test_cifar10_has_channels_first(tmp_path: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *_: True)
    images = pictures(TRAIN, 3, 32, 32), pictures(TEST, 3, 32, 32)
    cifar(tmp_path, images)
    read("CIFAR10", tmp_path, images, [0, 1, 2, 3, 4, 5])


def test_a_pickle_with_other_bytes_is_not_loaded(tmp_path: Path) -> None:
    cifar(tmp_path, (pictures(TRAIN, 3, 32, 32), pictures(TEST, 3, 32, 32)))
    with pytest.raises(RuntimeError, match="Dataset not found or corrupted"):
        sources.torchvision("CIFAR10", tmp_path, download=False)


def test_what_torchvision_has_is_found_where_it_lies(tmp_path: Path) -> None:
    images = pictures(TRAIN, 16, 16), pictures(TEST, 16, 16)
    test_usps_has_numbers_in_lines(tmp_path)
    data = Data(name="usps", root=str(tmp_path), torchvision="USPS", height=16, width=16)
    data.train_images, data.test_images, data.val_size = TRAIN, TEST, 1
    loaded = splits.load(data, torch.device("cpu"))
    assert loaded.test.images.view(-1, 16, 16).equal(images[1])


def test_scikit_learns_digits_need_no_network() -> None:
    images, labels, test_images, test_labels = sources.sklearn()
    assert images.shape == (1437, 8, 8)
    assert test_images.shape == (360, 8, 8)
    assert int(images.max()) == 255
    assert labels[:10].tolist() == list(range(10))
    assert len(test_labels.unique()) == 10


def test_debians_files_are_taken_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SHARED", tmp_path)
    data = Data(name="small", debian="dataset-small-set", train_images=12, test_images=5, val_size=2)
    with pytest.raises(DataError, match=r"could not be fetched \(dataset-small-set: not installed\)") as caught:
        fetch.ensure(data)
    assert caught.value.help.startswith("On Debian or Ubuntu: apt install dataset-small-set. Elsewhere: put the four")
    write_dataset(tmp_path / "small-set", packed=True)
    assert len(splits.load(data, torch.device("cpu")).test) == 5
    assert sorted(path.suffix for path in (tmp_path / "small-set").iterdir()) == [".gz"] * 4
