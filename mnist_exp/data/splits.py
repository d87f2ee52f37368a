"""Images and labels as tensors on the device; a batch is an index into them.

No `DataLoader`: decoding one image at a time costs 15 to 30 times the training of these networks.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from mnist_exp.config import SHAPE, Data, Shape, classes
from mnist_exp.data import fetch, idx, sources
from mnist_exp.data.augment import Augment
from mnist_exp.disk.files import sha256
from mnist_exp.errors import DataError

MADE_BY = ("train_images", "test_images", "num_classes", "channels", "height", "width")
"""The settings that decide what synthetic images are."""
TOGETHER = 512  # images augmented at a time, about: the resampling stays in the cache, 0.25 s for 60,000 on one core


@final
@dataclass(frozen=True)
class Split:
    """Some rows of a set of images. Pixels stay bytes: a fourth of the memory, half of the time to gather."""

    images: Tensor
    """(n, pixel) uint8, all of the file: splits of one file share it, and so do processes."""
    labels: Tensor
    """(n,) int64, from 0."""
    rows: Tensor
    """(m,) int64: which of them belong to this split."""
    scale: float | Tensor
    """A pixel times this, plus `offset`, has mean 0 and standard deviation 1. (pixel,) where channels differ."""
    offset: Tensor
    """() or (pixel,) float32; a tensor, so that one kernel converts, scales and shifts."""
    shape: Shape = SHAPE
    """Of an image."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The images at *rows* (batch,) as float32 (batch, pixel), standardised, and their labels (batch,)."""
        return self.standard(self.images.index_select(0, rows)), self.labels.index_select(0, rows)

    def standard(self, pixels: Tensor) -> Tensor:
        """*pixels* (batch, pixel), 0 to 255, as float32 of mean 0 and standard deviation 1."""
        if isinstance(self.scale, Tensor):
            return torch.addcmul(self.offset, pixels.float(), self.scale)
        return torch.add(self.offset, pixels, alpha=self.scale)  # one pass: from bytes to numbers

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole split in order, *size* images at a time, as `take` gives them."""
        for rows in torch.split(self.rows, size):
            yield self.take(rows)

    def select(self, index: Tensor) -> "Split":
        """The images at *index* of this split, in that order; nothing is copied."""
        return dataclasses.replace(self, rows=self.rows[index])


@final
@dataclass(frozen=True)
class Splits:
    """What a run reads. The test set chooses nothing."""

    train: Split
    val: Split
    """Empty with `data.val_size=0`."""
    test: Split
    name: str
    digest: str
    """Identity of the bytes, 16 hexadecimal digits."""


def load(data: Data, device: torch.device) -> Splits:
    """Reads, checks and divides the images of *data*.

    Raises:
        DataError: as `check`.
    """
    (images, labels, test_images, test_labels), identity = _read(data)
    whole = _split(images, labels, data, device)
    train, val = divide(whole, data)
    test = _split(test_images, test_labels, data, device)
    return Splits(train, val, test, data.name, identity)


def check(data: Data) -> list[str]:
    """Makes sure of the files of *data* before anything starts; fetches what is missing. Returns what to know of them.

    Raises:
        DataError: a file is missing or damaged, or holds other images or labels than the config says.
    """
    if data.name == "synthetic":
        return []
    (_, labels, _, test_labels), _ = _read(data)
    reached = 1 + int(max(labels.max(), test_labels.max()))
    if reached < data.num_classes and not data.classes:
        raise DataError(
            f"{data.name} has labels 0 to {reached - 1}, but data.num_classes={data.num_classes}.",
            f"Set data.num_classes={reached}. Where classes are meant to have no images, name all: data.classes=[…]",
        )
    return [*fetch.notes(data), *lacking("training", labels, data)]


def lacking(what: str, labels: Tensor, data: Data) -> list[str]:
    """The sentence that says which classes have no image in the set *what* with *labels*; none if all have some."""
    counts = torch.bincount(labels, minlength=data.num_classes).tolist()
    names = [name for name, count in zip(classes(data), counts, strict=True) if not count]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    some = f"{', '.join(names[:5])}{more}"
    return [f"{data.name} has no {what} images of {some} (of {data.num_classes} classes)."] if names else []


def _read(data: Data) -> tuple[sources.Arrays, str]:
    """Training images and labels, test images and labels, as the config says they are; and their digest."""
    if data.name == "synthetic":
        arrays = sources.synthetic(data)
        return arrays, _digest(arrays)
    folder = fetch.ensure(data)
    arrays: sources.Arrays = tuple(idx.read(folder / name) for name in fetch.FILES)  # type: ignore[no-redef]
    _compare("training", *arrays[:2], data.train_images, data)
    _compare("test", *arrays[2:], data.test_images, data)
    return arrays, fetch.digest(folder)


def _compare(what: str, images: Tensor, labels: Tensor, count: int, data: Data) -> None:
    """Raises DataError, which says both, unless *images* and *labels* are what the config says."""
    if not len(images) == len(labels) == count:
        fewer = what == "training" and count < len(images)
        raise DataError(
            f"{data.name} has {len(images)} {what} images and {len(labels)} labels, but the config says {count}.",
            f"To train on some of them: data.limit={count} in place of data.train_images." if fewer else "",
        )
    for array, kind in ((images, "images"), (labels, "labels")):
        if reason := fetch.misfit(array, data, kind):
            raise DataError(f"{data.name} has {reason} ({what} set).", fetch.MISFIT)


def digest(data: Data) -> str:
    """`Splits.digest` of *data*; reads only files that are not verified yet.

    Raises:
        DataError: a file is missing or damaged.
    """
    if data.name == "synthetic":
        return _digest_of_synthetic(*(getattr(data, key) for key in MADE_BY))
    if all(name in data.sha256 for name in fetch.FILES):  # other files are never used
        return fetch.identity(data.sha256)
    return fetch.digest(fetch.ensure(data))


@functools.cache
def _digest_of_synthetic(*values: int) -> str:
    made: dict[str, Any] = dict(zip(MADE_BY, values, strict=True))
    return _digest(sources.synthetic(Data(**made)))


def _digest(arrays: Iterable[Tensor]) -> str:
    return sha256(b"".join(array.numpy().tobytes() for array in arrays))[:16]


def _split(images: Tensor, labels: Tensor, data: Data, device: torch.device) -> Split:
    rows = torch.arange(len(images), device=device)
    pixels = images.flatten(1).to(device)
    labels = labels.long().to(device)
    if not isinstance(data.mean, list) and not isinstance(data.std, list):
        offset = torch.tensor(-data.mean / data.std, device=device)
        return Split(pixels, labels, rows, 1 / (255 * data.std), offset, data.shape)
    mean, std = (torch.tensor(value, device=device).expand(data.channels) for value in (data.mean, data.std))
    scale, offsets = (each.repeat_interleave(data.height * data.width) for each in (1 / (255 * std), -mean / std))
    return Split(pixels, labels, rows, scale, offsets, data.shape)


def divide(whole: Split, data: Data) -> tuple[Split, Split]:
    """(training, validation): what *data* says of *whole*, the images of the training file; both in its order.

    A shuffle seeded by `data.split_seed` decides. Its last `data.val_size` images validate, or every `data.folds`-th
    from `data.fold` on; with `data.stratify` each class has the same share of both, to an image. Of the rest
    `data.limit` are trained on: each class by its share to an image, at least one, and all of those of a lower limit.
    """
    shuffled = torch.randperm(len(whole), generator=torch.Generator().manual_seed(data.split_seed))
    labels = whole.labels[whole.rows].cpu()
    if data.folds:
        ordered = shuffled[labels[shuffled].argsort(stable=True)] if data.stratify else shuffled
        chosen = torch.zeros(len(whole), dtype=torch.bool)
        chosen[ordered[data.fold :: data.folds]] = True
        train, val = shuffled[~chosen[shuffled]], shuffled[chosen[shuffled]]
    else:
        shuffled = _spread(shuffled, labels, 0.5) if data.stratify else shuffled
        train, val = shuffled.split([len(whole) - data.val_size, data.val_size])
    if data.limit:
        train = _spread(train, labels)[: data.limit]
    return tuple(whole.select(part.sort().values.to(whole.rows.device)) for part in (train, val))  # type: ignore[return-value]


def _spread(order: Tensor, labels: Tensor, start: float = 0.0) -> Tensor:
    """*order* (m,) of images with *labels* (n,), with the images of each class evenly over its whole length.

    Args:
        start: Where the first of a class is, as a share of the distance between two; 0: all classes begin at once.
    """
    ordered = labels[order]
    grouped = ordered.argsort(stable=True)
    counts = ordered.bincount()
    within = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    position = (within + start) / counts.repeat_interleave(counts)  # from 0 to 1 in its class
    return order[grouped[position.argsort(stable=True)]]


@final
@dataclass(frozen=True)
class Order:
    """The batches, their order and their augmentation: functions of seed and epoch alone.

    So resuming needs no saved state, and models that share the seed see the same images.
    """

    rows: Tensor
    """(m,): the rows of the training split."""
    batch_size: int
    seed: int
    augment: Augment | None = None

    @property
    def steps(self) -> int:
        """Batches in one epoch; the last may be smaller."""
        return math.ceil(len(self.rows) / self.batch_size)

    def batches(self, epoch: int) -> tuple[Tensor, ...]:
        """The rows of each batch of *epoch* (counting from 0), each image exactly once."""
        rng = torch.Generator().manual_seed(mix(self.seed, epoch))
        shuffle = torch.randperm(len(self.rows), generator=rng).to(self.rows.device)
        return torch.split(self.rows[shuffle], self.batch_size)

    def feed(self, train: Split, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of *epoch* as `train.take` gives them, augmented."""
        batches = self.batches(epoch)
        if self.augment is None:
            yield from map(train.take, batches)
            return
        rng = torch.Generator(train.images.device).manual_seed(mix(self.seed, epoch, 2))
        several = max(1, TOGETHER // self.batch_size)
        for first in range(0, len(batches), several):
            sizes = [len(rows) for rows in batches[first : first + several]]
            rows = torch.cat(batches[first : first + several])
            pixels = train.images.index_select(0, rows).float().view(-1, *train.shape)
            images = train.standard(self.augment(pixels, rng).flatten(1))
            yield from zip(images.split(sizes), train.labels.index_select(0, rows).split(sizes), strict=True)


def mix(seed: int, *more: int) -> int:
    """A 60-bit seed from several numbers; seeds of neighbouring numbers are unrelated."""
    return int(sha256(repr((seed, *more)).encode())[:15], 16)
