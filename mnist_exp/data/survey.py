"""What images of one's own are, as a file for conf/data."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mnist_exp.config import Data
from mnist_exp.config.folders import SUFFIXES, described
from mnist_exp.data import fetch, idx, own
from mnist_exp.errors import DataError


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
                raise DataError(
                    f"{path} has neither train/ nor {part}.", "It is to hold pictures by class, or IDX files."
                )
        arrays = [idx.read(path / part).numpy() for part in fetch.FILES]
    elif path.is_dir():
        return _folder(path, name)
    else:
        data = Data(name=name, root=root, reader="npz")
        images, _, *test = own.stored(path)
        data.test_images = data.test_images if test else len(images) // 6
        arrays = own.from_npz(path, data)
    shape = (1, *arrays[0].shape[1:])[-3:]
    data.channels, data.height, data.width = (int(side) for side in shape)
    data.num_classes = max(2, *(int(labels.max()) + 1 for labels in arrays[1::2]))
    data.train_images, data.test_images = len(arrays[0]), len(arrays[2])
    data.val_size = min(5000, data.train_images // 10)
    return data, []


def _folder(path: Path, name: str) -> tuple[Data, list[str]]:
    """As `guess`, for pictures: the size that most have, colour where one has it."""
    keys = ("classes", "num_classes", "train_images", "test_images", "val_size")
    facts: dict[str, Any] = {key: described(str(path), key) for key in keys}
    data = Data(name=name, root=str(path.resolve()), reader="folder", pictures="scaled", **facts)
    sizes, colour = Counter[tuple[int, int]](), False
    for file in sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES):
        picture = own.opened(file)
        sizes[picture.size] += 1
        colour |= picture.mode not in ("1", "L", "LA", "I", "F")
    (data.width, data.height), most = sizes.most_common(1)[0]
    data.channels, data.resize = 3 if colour else 1, len(sizes) > 1
    others = sum(sizes.values()) - most
    return data, [f"{others} of them have another size and are scaled (data.resize=true)."] if others else []


def facts(data: Data, arrays: tuple[np.ndarray, ...]) -> list[str]:
    """Counts of the classes where they differ, and pictures that training and test set share; sets mean and std."""
    images, labels, test_images, test_labels = arrays
    scaled = images.reshape(len(images), data.channels, -1) / np.float32(255)
    means, stds = (np.round(each((0, 2), dtype=float), 4).tolist() for each in (scaled.mean, scaled.std))
    data.mean, data.std = (means, stds) if data.channels > 1 else (means[0], stds[0])
    lines = []
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
