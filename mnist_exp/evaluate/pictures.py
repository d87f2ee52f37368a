"""Ordinary pictures made into what the networks know: for MNIST one bright digit on black, as MNIST was made.

MNIST's digits were "size normalized to fit in a 20x20 pixel box while preserving their aspect ratio", with grey
levels from anti-aliasing, and "centered in a 28x28 image by computing the center of mass of the pixels" (LeCun,
Cortes, Burges, http://yann.lecun.com/exdb/mnist). The centre is pixel (14, 14): there the mean of the 10,000 test
images lies, to a hundredth of a pixel.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from mnist_exp.config import Data
from mnist_exp.config.folders import SUFFIXES, files
from mnist_exp.data.own import fitted, opened
from mnist_exp.errors import ConfigError, DataError

MNIST = Data()
BOX = 20 / 28  # of the image's side; things fill it, as in Fashion-MNIST (https://arxiv.org/abs/1708.07747)
VISIBLE = 8  # of 255: nobody could see fainter ink
FAINT = 0.2  # of the strongest ink: less is paper, shadow or what JPEG leaves around a stroke


def listed(path: Path) -> list[Path]:
    """*path*, or the pictures in it where it is a folder.

    Raises:
        ConfigError: a folder without pictures.
    """
    if not path.is_dir():
        return [path]
    if not (listing := files(path)):
        raise ConfigError(f"There are no pictures in {path}.", f"Known are {', '.join(SUFFIXES)}.")
    return listing


def read(path: Path, data: Data = MNIST) -> np.ndarray:
    """The picture in *path* as the networks of *data* see it: uint8 of (height, width), or (3, height, width).

    One of the right size is taken as it is, where its border is (for the most part) black or `data.pictures` is
    `scaled`.

    Raises:
        DataError: it is not a picture, or shows nothing.
    """
    sides = data.height, data.width
    if data.channels == 3:
        colours = fitted(opened(path).convert("RGB"), data)
        return np.moveaxis(np.asarray(colours), -1, 0)
    grey = open_grey(path)
    if data.pictures == "scaled":
        return _bytes(np.asarray(fitted(Image.fromarray(grey.astype(np.float32)), data)))
    if grey.shape == sides and np.median(border(grey)) == 0 and grey.max() >= VISIBLE:
        return _bytes(grey)
    try:
        return prepare(grey, sides, BOX if data.pictures == "strokes" else 1.0)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", error.help) from error


def open_grey(path: Path) -> np.ndarray:
    """The brightness of the picture in *path*, as (height, width) from 0 to 255.

    Raises:
        DataError: the file is not a picture, or too large to be an honest one.
    """
    picture = opened(path)
    if picture.mode in ("I", "F"):  # 32 bits, which Pillow would clip
        deep = np.asarray(picture, float)
        return np.asarray(255 * (deep - deep.min()) / (np.ptp(deep) or 1))
    return np.asarray(picture.convert("L"), float)


def border(grey: np.ndarray) -> np.ndarray:
    """The outermost pixels of a picture, (n,)."""
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def prepare(grey: np.ndarray, sides: tuple[int, int], box: float = BOX) -> np.ndarray:
    """One digit of any size and polarity, (height, width), as uint8 of *sides* in MNIST's form.

    The border is paper; what differs from it more, the brighter or the darker side, is ink. The box around the
    ink is scaled to *box* of the image on its longer side and placed with its centre of mass on the centre.

    Raises:
        DataError: there is no ink.
    """
    paper = float(np.median(border(grey)))
    ink = grey - paper if grey.max() - paper > paper - grey.min() else paper - grey
    strongest = float(ink.max())
    if strongest < VISIBLE:
        raise DataError("it shows nothing: all of it is equally bright.")
    ink = np.where(ink < FAINT * strongest, 0, ink / strongest)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(round(box * side) / length for side, length in zip(sides, cut.shape, strict=True))
    height, width = (max(1, round(side * scale)) for side in cut.shape)
    small = Image.fromarray(cut.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    digit = np.asarray(small).clip(0, 1)
    digit = digit / digit.max()  # thin strokes pale as they shrink; MNIST's are white
    top, left = (_start(digit.sum(1 - axis), sides[axis]) for axis in (0, 1))
    field = np.zeros(sides)
    field[top : top + height, left : left + width] = digit
    return _bytes(255 * field)


def _bytes(grey: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(grey), np.uint8)


def _start(mass: np.ndarray, side: int) -> int:
    """Where a digit with this ink at each position begins on an axis, so that its centre of mass is central."""
    centre = float(np.average(np.arange(len(mass)), weights=mass))
    return min(max(round(side / 2 - centre), 0), side - len(mass))
