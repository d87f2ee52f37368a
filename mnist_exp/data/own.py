"""Images of one's own: a folder of pictures by class, or an .npz file. Importing it loads no torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from mnist_exp.config import Data
from mnist_exp.config.folders import files, pictures
from mnist_exp.disk.files import sha256
from mnist_exp.errors import DataError, first_line

if TYPE_CHECKING:
    from torch import Tensor

READERS = ("folder", "npz")
ARRAYS = ("images", "labels", "test_images", "test_labels")
"""What an .npz file may have."""


def read(data: Data) -> "list[Tensor]":
    """The images that *data* describes, in the order of `ARRAYS`.

    Raises:
        DataError: they are not what it says.
    """
    import torch

    if not data.root:
        raise DataError(f"data={data.name} needs images of your own.", "Say where they are: data.root=…")
    root = Path(data.root).expanduser()
    arrays = from_folder(root, data) if data.reader == "folder" else from_npz(root, data)
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def stamp(data: Data) -> str:
    """Changes when a file of *data* does, or what is made of it."""
    root = Path(data.root or "").expanduser().absolute()
    paths = sorted(root.rglob("*")) if root.is_dir() else [root]
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()]
    return sha256(repr((files, data.shape, data.resize, data.classes, data.test_images)).encode())[:16]


def from_folder(root: Path, data: Data) -> list[np.ndarray]:
    """The pictures in *root*: train/<class>/ and test/<class>/.

    Raises:
        DataError: a class is not in `data.classes`, or a picture cannot be read or has another size.
    """
    labels = {name: label for label, name in enumerate(data.classes or [])}
    arrays: list[np.ndarray] = []
    for part in ("train", "test"):
        if strange := [name for name in pictures(root, part) if name not in labels]:
            raise DataError(
                f"{root / part} has the class {strange[0]!r}, which data.classes lacks.", f"It has {', '.join(labels)}."
            )
        samples = [(path, label) for name, label in labels.items() for path in files(root / part / name)]
        arrays.append(np.stack([pixels(path, data) for path, _ in samples]))
        arrays.append(np.array([label for _, label in samples], np.uint8))
    return arrays


def from_npz(path: Path, data: Data) -> list[np.ndarray]:
    """The `ARRAYS` of the file *path*.

    Without test images, the last `data.test_images` of a shuffle that is always the same are the test set.

    Raises:
        DataError: it is no such file.
    """
    parts = stored(path)
    if len(parts) == 2:
        order = np.random.default_rng(0).permutation(len(parts[0]))
        cut = max(0, len(order) - data.test_images)
        parts = [each[rows] for rows in (order[:cut], order[cut:]) for each in parts]
    if not all(map(len, parts)):
        raise DataError(f"{path} has {len(parts[0])} images to train on and {len(parts[2])} to test on: too few.")
    for what, array in zip(ARRAYS, parts, strict=True):
        if array.dtype != np.uint8 and (what.endswith("images") or not (array.min() >= 0 and array.max() <= 255)):
            raise DataError(f"{path} has {what} of type {array.dtype} from {array.min()} to {array.max()}, not bytes.")
    first, labels, second, test_labels = parts
    images, test_images = (np.moveaxis(a, -1, 1) if a.ndim == 4 and a.shape[-1] == 3 else a for a in (first, second))
    return [images, labels.astype(np.uint8), test_images, test_labels.astype(np.uint8)]


def stored(path: Path) -> list[np.ndarray]:
    """The arrays in the file *path*: all of `ARRAYS`, or the first two if it has no test images.

    Raises:
        DataError: it is no such file, or has not one label for each image.
    """
    way_out = "It needs the arrays images and labels."
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = [np.asarray(file[name]) for name in ARRAYS[: 4 if "test_images" in file.files else 2]]
    except Exception as error:  # numpy's and zipfile's, of many kinds
        raise DataError(f"{path} cannot be read as images: {first_line(error).rstrip('.')}.", way_out) from error
    for images, labels in zip(arrays[::2], arrays[1::2], strict=True):
        if images.ndim not in (3, 4) or labels.shape != images.shape[:1]:
            shapes = f"images of shape {images.shape} and labels of shape {labels.shape}"
            raise DataError(
                f"{path} has {shapes}.", "Images are (n, height, width), or with three colours; labels are (n,)."
            )
    return arrays


def pixels(path: Path, data: Data) -> np.ndarray:
    """The picture in *path* in the colours of *data*, uint8 (height, width) or (3, height, width).

    Raises:
        DataError: it is not a picture, has 32 bits for each pixel, or has another size and `data.resize` is off.
    """
    picture = opened(path)
    if picture.mode in ("I", "F"):
        raise DataError(f"{path} has 32 bits for each pixel: what is white is not known.", "Save it with 8 or 16.")
    picture = picture.convert("L" if data.channels == 1 else "RGB")
    width, height = picture.size
    if (height, width) != (data.height, data.width):
        if not data.resize:
            raise DataError(
                f"{path} has {height}x{width} pixels, but the config says {data.height}x{data.width}.",
                "Set data.height and data.width, or data.resize=true to have pictures of other sizes scaled.",
            )
        picture = fitted(picture, data)
    array = np.asarray(picture)
    return array if data.channels == 1 else np.moveaxis(array, -1, 0)


def opened(path: Path) -> Image.Image:
    """The picture in *path*, loaded and turned as its camera says; one of 16 bits as one of 8.

    Raises:
        DataError: the file is not a picture, or too large to be an honest one.
    """
    try:
        with Image.open(path) as file:
            file.load()
            picture = ImageOps.exif_transpose(file)
    except FileNotFoundError as error:
        raise DataError(f"There is no picture {path}.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}.", "PNG, JPEG and the like can.") from error
    if picture.mode.startswith("I;16"):  # Pillow would clip them at 255
        return Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))
    return picture


def fitted(picture: Image.Image, data: Data) -> Image.Image:
    """The middle of *picture* in the size of *data*: what is longer is cut off."""
    return ImageOps.fit(picture, (data.width, data.height), Image.Resampling.BILINEAR)
