"""What images of one's own are, as a file for conf/data."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mnist_exp.config import Data, settings
from mnist_exp.config.folders import SUFFIXES, described
from mnist_exp.data import fetch, idx, own, splits
from mnist_exp.errors import DataError

MOST = 256  # classes


def guess(path: Path) -> tuple[Data, list[str]]:
    """The dataset in *path*, a folder of pictures or IDX files, or an .npz, without mean and std; what to know of it.

    Raises:
        DataError, ConfigError: it is none of these.
    """
    name = "".join(c if c.isalnum() or c in "_-" else "_" for c in path.resolve().stem)
    root = str(path.resolve())
    if path.is_dir() and not (path / "train").is_dir():
        data = Data(name=name, root=root)
        for part in fetch.FILES:
            if not (path / part).is_file():
                kinds = "It is to hold pictures in train/<class>/ and test/<class>/, or IDX files."
                packed = (path / f"{part}.gz").is_file()
                raise DataError(f"{path} has neither train/ nor {part}.", f"Unpack {part}.gz." if packed else kinds)
        parts = dict(zip(fetch.FILES, (idx.read(path / part).numpy() for part in fetch.FILES), strict=True))
    elif path.is_dir():
        return _folder(path, name)
    else:
        data = Data(name=name, root=root, reader="npz")
        parts = dict(zip(own.ARRAYS, own.stored(path), strict=False))
    images, *tested = [each for name, each in parts.items() if "images" in name]
    labels = {name: each for name, each in parts.items() if "labels" in name}
    for name, each in parts.items():
        fits = each.ndim == 1 if name in labels else each.ndim == 3 or (each.ndim == 4 and each.shape[1] in (1, 3))
        if not fits or not each.size:
            way_out = "Images are (n, height, width) or (n, 3, height, width), labels are (n,)."
            raise DataError(f"{path}: {name} has the shape {each.shape}.", way_out)
    data.channels, data.height, data.width = map(int, (1, *images.shape[1:])[-3:])
    if all(each.dtype.kind in "US" for each in labels.values()):
        data.classes = np.unique(np.concatenate(list(labels.values())).astype(str)).tolist()
    data.num_classes = len(data.classes) if data.classes else MOST
    settings()["data.num_classes"].check(data.num_classes)
    numbers = {name: own.numbers(each, f"{path}: {name}", data) for name, each in labels.items()}
    data.num_classes = _count(path, numbers)
    data.test_images = len(tested[0]) if tested else len(images) // 6
    data.train_images = len(images) - (0 if tested else data.test_images)
    data.val_size = min(5000, data.train_images // 10)
    return data, []


def _count(path: Path, labels: dict[str, np.ndarray]) -> int:
    """How many classes *labels* have, by the name of the array or file that they are in.

    Raises:
        DataError: one, or numbers that can hardly be meant: more are missing than there are, or the highest stands
            apart, and for one image alone.
    """
    counts = np.bincount(np.concatenate(list(labels.values())))
    missing, top = np.flatnonzero(counts == 0), len(counts) - 1
    used = len(counts) - len(missing)
    if used < 2:
        raise DataError(f"{path} has images of one class, {top}: there is nothing to tell apart.")
    if len(missing) > used or (len(missing) and missing[-1] == top - 1 and counts[top] == 1):
        name, first = next((n, np.flatnonzero(each == top)[0]) for n, each in labels.items() if top in each)
        raise DataError(
            f"{path} has no images of {len(missing)} of its classes 0 to {top}, from {missing[0]} to {missing[-1]}; "
            f"the first of class {top} is {name}[{first}].",
            "Mend that label, or number the classes: np.unique(labels, return_inverse=True)[1]",
        )
    return top + 1


def _folder(path: Path, name: str) -> tuple[Data, list[str]]:
    """As `guess`, for pictures: the size that most have, colour where one has it."""
    keys = ("classes", "num_classes", "train_images", "test_images", "val_size")
    facts: dict[str, Any] = {key: described(str(path), key) for key in keys}
    settings()["data.num_classes"].check(facts["num_classes"])
    data = Data(name=name, root=str(path.resolve()), reader="folder", pictures="scaled", **facts)
    sizes, colour = Counter[tuple[int, int]](), False
    for file in sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES):
        picture = own.opened(file)
        sizes[picture.size] += 1
        colour = colour or own.in_colour(picture)
    (data.width, data.height), most = sizes.most_common(1)[0]
    data.channels, data.resize = 3 if colour else 1, len(sizes) > 1
    others = sum(sizes.values()) - most
    return data, [f"{others} of them have another size and are scaled (data.resize=true)."] if others else []


def facts(data: Data, arrays: tuple[np.ndarray, ...]) -> list[str]:
    """Counts of the classes where they differ, and pictures that training and test set share; sets mean and std."""
    images, labels, test_images, test_labels = arrays
    scaled = images.reshape(len(images), data.channels, -1) / np.float32(255)
    means, stds = (np.round(each((0, 2), dtype=float), 4).tolist() for each in (scaled.mean, scaled.std))
    stds = [each if each >= 0.001 else 1.0 for each in stds]  # a channel of one value needs no other
    data.mean, data.std = (means, stds) if data.channels > 1 else (means[0], stds[0])
    lines = splits.lacking("test", torch.from_numpy(test_labels), data)
    for what, numbers in (("training", labels), ("test", test_labels)):
        counts = np.bincount(numbers, minlength=data.num_classes)
        if counts.min() < counts.max():
            names = data.classes or [str(label) for label in range(data.num_classes)]
            few, many = names[counts.argmin()], names[counts.argmax()]
            lines.append(f"{what} images of a class: {counts.min():,} ({few}) to {counts.max():,} ({many}).")
    known = {image.tobytes() for image in images}
    both = sum(image.tobytes() in known for image in test_images)
    repeated = len(images) - len(known)
    return [
        *lines,
        f"duplicates: {both:,} test images are training images, too; {repeated:,} training images repeat others.",
    ]


def text(data: Data) -> str:
    """The file for conf/data."""
    default = Data(name=data.name)
    shown = ("name", "root", "train_images", "test_images", "mean", "std")
    plain = {key: value for key, value in vars(data).items() if key in shown or value != getattr(default, key)}
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=118))
