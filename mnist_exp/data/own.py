"""Images of one's own: a folder of pictures by class, or an .npz file. Importing it loads no torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from mnist_exp.config import Data
from mnist_exp.config.folders import files, pictures
from mnist_exp.disk.files import sha256
from mnist_exp.errors import DataError

if TYPE_CHECKING:
    from mnist_exp.data.sources import Arrays

READERS = ("folder", "npz")


def read(data: Data) -> "Arrays":
    """The images that *data* describes.

    Raises:
        DataError: they are not what it says.
    """
    import torch

    if not data.root:
        raise DataError(f"data={data.name} needs images of your own.", "Say where they are: data.root=…")
    root = Path(data.root).expanduser()
    arrays = from_folder(root, data) if data.reader == "folder" else from_npz(root, data)
    first, labels, second, test_labels = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    return first, labels, second, test_labels


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
    """`images` and `labels` of the file *path*, with `test_images` and `test_labels`.

    Without these two, the last `data.test_images` of a shuffle that is always the same are the test set.

    Raises:
        DataError: it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
        images, labels = arrays["images"], arrays["labels"]
    except (OSError, ValueError, KeyError) as error:
        way_out = "It needs the arrays images and labels."
        raise DataError(f"{path} cannot be read as images: {error}.", way_out) from error
    if "test_images" in arrays:
        parts = [images, labels, arrays["test_images"], arrays["test_labels"]]
    else:
        order = np.random.default_rng(0).permutation(len(images))
        cut = max(0, len(images) - data.test_images)
        parts = [each[rows] for rows in (order[:cut], order[cut:]) for each in (images, labels)]
    for what, array in zip(("images", "labels", "test_images", "test_labels"), parts, strict=True):
        if array.dtype != np.uint8 and (what.endswith("images") or array.min() < 0 or array.max() > 255):
            raise DataError(f"{path} has {what} of type {array.dtype} from {array.min()} to {array.max()}, not bytes.")
    first, labels, second, test_labels = parts
    images, test_images = (np.moveaxis(a, -1, 1) if a.ndim == 4 and a.shape[-1] == 3 else a for a in (first, second))
    return [images, labels.astype(np.uint8), test_images, test_labels.astype(np.uint8)]


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
