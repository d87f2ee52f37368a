"""Images of one's own: a folder of pictures by class, or an .npz file. Importing it loads no torch."""

import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from mnist_exp.config import Data
from mnist_exp.config.folders import files, pictures, strangers
from mnist_exp.console.formats import plural
from mnist_exp.disk.files import sha256
from mnist_exp.errors import DataError, first_line

if TYPE_CHECKING:
    from torch import Tensor

READERS = ("folder", "npz")
ARRAYS = ("images", "labels", "test_images", "test_labels")
"""What an .npz file may have."""
VERSION = 3  # of what is made of the files; another one makes the copies in the cache anew


def read(data: Data) -> "tuple[list[Tensor], list[str]]":
    """The images that *data* describes, in the order of `ARRAYS`, and what to know of them.

    Raises:
        DataError: they are not what it says.
    """
    import torch

    if not data.root:
        raise DataError(f"data={data.name} needs images of your own.", "Say where they are: data.root=…")
    root = Path(data.root).expanduser()
    arrays, notes = from_folder(root, data) if data.reader == "folder" else (from_npz(root, data), [])
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays], notes


def stamp(data: Data) -> str:
    """Changes when a file of *data* does, or what is made of it."""
    root = Path(data.root or "").expanduser().absolute()
    paths = sorted(root.rglob("*")) if root.is_dir() else [root]
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()]
    return sha256(repr((VERSION, files, data.shape, data.resize, data.classes, data.test_images)).encode())[:16]


def from_folder(root: Path, data: Data) -> tuple[list[np.ndarray], list[str]]:
    """The pictures in *root*, train/<class>/ and test/<class>/; and what becomes grey, or is left out.

    Raises:
        DataError: a class is not in `data.classes`, or a picture cannot be read or has another size.
    """
    labels = {name: label for label, name in enumerate(data.classes or [])}
    arrays: list[np.ndarray] = []
    greyed = 0
    for part in ("train", "test"):
        if strange := [name for name in pictures(root, part) if name not in labels]:
            raise DataError(
                f"{root / part} has the class {strange[0]!r}, which data.classes lacks.", f"It has {', '.join(labels)}."
            )
        images = []
        samples = [(path, label) for name, label in labels.items() for path in files(root / part / name)]
        for path, _ in samples:
            picture = opened(path)
            greyed += data.channels == 1 and in_colour(picture)
            images.append(pixels(picture, path, data))
        arrays += [np.stack(images), np.array([label for _, label in samples], np.uint8)]
    notes = (
        [f"{root}: {greyed} pictures are in colour and become grey; data.channels=3 keeps colour."] if greyed else []
    )
    others = Counter(path.suffix or path.name for part in ("train", "test") for path in strangers(root / part))
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))
        notes.append(f"{root}: {plural(others.total(), 'file')} left out, no picture by the suffix ({kinds}).")
    return arrays, notes


def from_npz(path: Path, data: Data) -> list[np.ndarray]:
    """The `ARRAYS` of the file *path*.

    Without test images, `data.test_images` of them are the test set: always the same, each class by its share, and
    never the only one of a class.

    Raises:
        DataError: it is no such file, or has other labels than *data* says.
    """
    parts = stored(path)
    for i in range(1, len(parts), 2):
        parts[i] = numbers(parts[i], f"{path}: {ARRAYS[i]}", data)
    if len(parts) == 4:
        return parts
    images, labels = parts
    order = np.random.default_rng(0).permutation(len(labels))
    grouped = order[np.argsort(labels[order], kind="stable")]
    others = grouped[np.diff(labels[grouped].astype(int), prepend=-1) == 0]  # all but the first of each class
    count = data.test_images
    if not 0 < count <= len(others):
        raise DataError(
            f"{path} has no test images, and {len(labels)} images are too few to cut {count} of them off.",
            "Give it the arrays test_images and test_labels, or more images.",
        )
    tested = np.isin(order, others[np.arange(count) * len(others) // count])
    return [each[rows] for rows in (order[~tested], order[tested]) for each in (images, labels)]


def stored(path: Path) -> list[np.ndarray]:
    """The arrays in the file *path*: all of `ARRAYS`, or the first two if it has no test images.

    Images are uint8 (n, height, width), or (n, 3, height, width); labels (n,) are as they were saved.

    Raises:
        DataError: it is no such file, or has not one label for each image.
    """
    try:
        with path.open("rb") as raw, zipfile.ZipFile(raw):  # numpy reads other files, too
            raw.seek(0)
            file = np.load(raw, allow_pickle=False)
            arrays = [np.asarray(file[name]) for name in ARRAYS[: 4 if "test_images" in file.files else 2]]
    except Exception as error:  # numpy's and zipfile's, of many kinds
        raise DataError(
            f"{path} cannot be read as images: {first_line(error).rstrip('.')}.",
            "It needs the arrays images and labels, of numbers or text: np.savez(…, images=…, labels=…).",
        ) from error
    parts: list[np.ndarray] = []
    for name, saved, labels in zip(ARRAYS[::2], arrays[::2], arrays[1::2], strict=False):
        images = np.moveaxis(saved, -1, 1) if saved.ndim == 4 and saved.shape[-1] in (1, 3) else saved
        images = images[:, 0] if images.ndim == 4 and images.shape[1] == 1 else images
        labels = labels[:, 0] if labels.shape[1:] == (1,) else labels
        fits = images.ndim == 3 or (images.ndim == 4 and images.shape[1] == 3)
        if not fits or not saved.size or labels.shape != saved.shape[:1]:
            shapes = f"images of shape {saved.shape} and labels of shape {labels.shape}"
            raise DataError(
                f"{path} has {shapes}.",
                "Images are (n, height, width), or have 1 or 3 channels as last or second axis; labels are (n,).",
            )
        if images.dtype != np.uint8:
            extent = f" from {images.min()} to {images.max()}" if images.dtype.kind in "biuf" else ""
            raise DataError(
                f"{path} has {name} of type {images.dtype}{extent}, not bytes.",
                "Save them as np.uint8, from 0 (black) to 255 (white).",
            )
        parts += [images, labels]
    return parts


def numbers(labels: np.ndarray, name: str, data: Data) -> np.ndarray:
    """*labels* as uint8; texts are those of `data.classes`.

    Args:
        name: What errors call them.

    Raises:
        DataError: one is none of the classes of *data*.
    """
    saved = labels
    if labels.dtype.kind in "US":
        known = {each: label for label, each in enumerate(data.classes or [])}
        labels = np.array([known.get(each, -1) for each in labels.astype(str).tolist()])
        rule = f"data.classes has {', '.join(known) or 'no names'}"
    else:
        rule = f"labels are whole numbers from 0 to {data.num_classes - 1}"
    whole = labels.dtype.kind in "biuf" and (labels >= 0) & (labels < data.num_classes) & (labels == np.floor(labels))
    if wrong := np.flatnonzero(~np.broadcast_to(whole, labels.shape)).tolist():
        raise DataError(
            f"{name}[{wrong[0]}] is {saved[wrong[0]]}, but {rule}.",
            "Mend that label, or data.num_classes or data.classes.",
        )
    return labels.astype(np.uint8)


def pixels(picture: Image.Image, path: Path, data: Data) -> np.ndarray:
    """*picture*, from *path*, in the colours of *data*, uint8 (height, width) or (3, height, width).

    Raises:
        DataError: it has 32 bits for each pixel, or has another size and `data.resize` is off.
    """
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

    What is transparent becomes white behind dark ink and black behind light ink.

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
    return _on_paper(picture.convert("RGBA")) if picture.has_transparency_data else picture


def _on_paper(picture: Image.Image) -> Image.Image:
    """*picture* without its transparency."""
    grey, alpha = (np.asarray(layer, float) for layer in picture.convert("LA").split())
    ink = np.average(grey, weights=alpha) if alpha.any() else 255.0
    paper = Image.new("RGBA", picture.size, "white" if ink < 128 else "black")
    return Image.alpha_composite(paper, picture).convert("RGB")


def in_colour(picture: Image.Image) -> bool:
    """Whether a pixel of *picture* is not grey."""
    if picture.mode in ("1", "L", "LA", "I", "F"):
        return False
    colours = np.asarray(picture.convert("RGB"))
    return bool((colours != colours[..., :1]).any())


def fitted(picture: Image.Image, data: Data) -> Image.Image:
    """The middle of *picture* in the size of *data*: what is longer is cut off."""
    return ImageOps.fit(picture, (data.width, data.height), Image.Resampling.BILINEAR)
