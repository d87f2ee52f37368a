"""Convolutional networks: one for seconds, one for minutes, one for the record, one from the literature.

Shapes and numbers of parameters below are those for MNIST; each takes any `shape` that its kernels fit into, and any
number of `classes`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from mnist_exp.config import CLASSES, SHAPE, Shape, sizes
from mnist_exp.errors import ConfigError


class _CNN(nn.Module):
    """Layers in a row, for images in the strides that make convolutions keep channels innermost.

    With one channel both layouts are the same bytes, and torch takes the other one. On a CPU, pooling then is
    several times faster: a whole step of `SmallCNN` twice, one of `FiveConvCNN` by a tenth.
    """

    recordable = True

    def __init__(self, shape: Shape, *layers: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, class) for *images* (batch, *shape)."""
        channels, height, width = self.shape
        if channels == 1:
            images = images.reshape(-1, height, width, 1).permute(0, 3, 1, 2)  # not copied
        logits: Tensor = self.layers(images.contiguous(memory_format=torch.channels_last))
        return logits


@final
class SmallCNN(_CNN):
    """99 % in seconds: two convolutions that are pooled before their ReLU, then 256 units. 215,194 parameters.

    Source: tuomaso/train_mnist_fast, notebook 8: 99.04 ± 0.07 % after one epoch (n=30).
    """

    def __init__(self, shape: Shape = SHAPE, classes: int = CLASSES) -> None:
        maps = (
            nn.Conv2d(shape[0], 24, 5),  # (24, 24, 24)
            nn.MaxPool2d(2),  # (24, 12, 12); the maximum and ReLU commute, so ReLU sees a fourth of the numbers
            nn.ReLU(),
            nn.Conv2d(24, 32, 3),  # (32, 10, 10)
            nn.MaxPool2d(2),  # (32, 5, 5)
            nn.ReLU(),
            nn.Flatten(),
        )
        units = _features(self, maps, shape)
        super().__init__(shape, *maps, nn.Linear(units, 256), nn.ReLU(), nn.Linear(256, classes))


@final
class StrongCNN(_CNN):
    """The strong one that two cores can train: five convolutions, pooled early, batch norm. 210,354 parameters.

    Batch norm and ReLU come after pooling, where there are fewer numbers. One image costs 9 MFLOP forward,
    against 275 of `FiveConvCNN`.

    Args:
        channels: Maps of each of the five convolutions, >= 1.
        shape: Of an image.
        classes: How many there are.

    Raises:
        ConfigError: there are not five of them, or one has no maps.
    """

    def __init__(
        self, channels: Sequence[int] = (24, 48, 64, 96, 128), shape: Shape = SHAPE, classes: int = CLASSES
    ) -> None:
        if len(channels) != 5 or min(channels) < 1:
            raise ConfigError(f"model.channels must be five numbers, each at least 1, but got {list(channels)}.")
        a, b, c, d, e = channels
        maps = (
            *_normed(nn.Conv2d(shape[0], a, 5, bias=False), nn.MaxPool2d(2)),  # (a, 12, 12)
            *_normed(nn.Conv2d(a, b, 3, bias=False)),  # (b, 10, 10)
            *_normed(nn.Conv2d(b, c, 3, bias=False), nn.MaxPool2d(2)),  # (c, 4, 4)
            *_normed(nn.Conv2d(c, d, 3, padding=1, bias=False)),
            *_normed(nn.Conv2d(d, e, 3, bias=False)),  # (e, 2, 2)
            nn.Flatten(),
        )
        super().__init__(shape, *maps, nn.Linear(_features(self, maps, shape), classes))


@final
class FiveConvCNN(_CNN):
    """The largest: five 5x5 convolutions without padding or pooling, batch norm after each. 1,128,180 parameters.

    Source: the network M5 of An, Lee, Park, Yang, So, arXiv 2008.10400. One image costs 0.28 GFLOP forward.
    """

    def __init__(self, shape: Shape = SHAPE, classes: int = CLASSES) -> None:
        pairs = itertools.pairwise((shape[0], 32, 64, 96, 128, 160))  # the picture shrinks by four: 24, 20, 16, 12, 8
        maps = [layer for few, more in pairs for layer in _normed(nn.Conv2d(few, more, 5, bias=False))]
        maps.append(nn.Flatten())
        units = _features(self, maps, shape)
        super().__init__(shape, *maps, nn.Linear(units, classes, bias=False), nn.BatchNorm1d(classes))


@final
class SimardCNN(_CNN):
    """Two 5x5 convolutions with stride 2, 5 and 50 maps, then 100 units. 132,540 parameters.

    Source: Simard, Steinkraus and Platt, ICDAR 2003. It sees 29x29 pixels, so the last row and column are doubled.
    The paper leaves its activation open; this is ReLU.
    """

    def __init__(self, shape: Shape = SHAPE, classes: int = CLASSES) -> None:
        maps = (
            nn.ReplicationPad2d((0, 1, 0, 1)),  # (1, 29, 29)
            nn.Conv2d(shape[0], 5, 5, stride=2),  # (5, 13, 13)
            nn.ReLU(),
            nn.Conv2d(5, 50, 5, stride=2),  # (50, 5, 5)
            nn.ReLU(),
            nn.Flatten(),
        )
        units = _features(self, maps, shape)
        super().__init__(shape, *maps, nn.Linear(units, 100), nn.ReLU(), nn.Linear(100, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, class) for *images* (batch, *shape)."""
        logits: Tensor = self.layers(images)
        return logits


def _normed(convolution: nn.Conv2d, *pooling: nn.Module) -> list[nn.Module]:
    """The layers of one convolution: pooling if any, batch norm, ReLU."""
    return [convolution, *pooling, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]


def _features(network: nn.Module, maps: Sequence[nn.Module], shape: Shape) -> int:
    """How many numbers *maps*, the layers up to `Flatten`, make of one image of *shape*.

    Calculated, not tried: torch takes a second to load what a first product without memory needs.
    """

    def each_way(size: int | tuple[int, ...]) -> int:
        return size if isinstance(size, int) else size[0]

    channels, *sides = shape
    for layer in maps:
        if isinstance(layer, nn.ReplicationPad2d):
            sides = [side + each_way(layer.padding[1::2]) for side in sides]
        elif isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            assert not isinstance(layer.padding, str)
            kernel, stride, edge = map(each_way, (layer.kernel_size, layer.stride, layer.padding))
            sides = [(side + 2 * edge - kernel) // stride + 1 for side in sides]
        channels = layer.out_channels if isinstance(layer, nn.Conv2d) else channels
    if min(sides) < 1:
        raise ConfigError(
            f"{type(network).__name__} cannot take images of {sizes(shape)}: they are smaller than its kernels.",
            "Choose another model, such as model=mlp.",
        )
    return channels * math.prod(sides)
