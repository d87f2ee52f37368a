"""Training images varied at random, whole batches at a time: shifts, affine maps, elastic distortion.

Each pixel of the new image is looked up at a displaced position in the old one. All displacements are sums of
fixed fields with random weights: x, y and 1 for affine maps, and waves for elastic ones. So a batch costs one
matrix product for its displacements and one bilinear resampling, whatever is combined.

Elastic distortion as in Simard, Steinkraus and Platt (ICDAR 2003): each pixel draws its displacement uniformly
from ±1, a Gaussian of width sigma smooths them, alpha scales them. Smoothed noise is Gaussian, by the central
limit theorem, and its correlation at distance d is exp(-d² / 4 sigma²) along each axis. A field with that
correlation is drawn directly (Karhunen and Loève): some forty random numbers for each digit and direction
instead of one for each pixel and a convolution.
"""

import math
from typing import Protocol, final

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from mnist_exp.config import SHAPE, Shape
from mnist_exp.errors import ConfigError


class Augment(Protocol):
    """Maps pixels (batch, channel, height, width), float32 from 0 to 255, to as many new ones.

    All randomness comes from *rng*, a generator on the device of the images.
    """

    def __call__(self, pixels: Tensor, rng: torch.Generator) -> Tensor: ...


@final
class Warp:
    """Shift, rotation, scale, shear and elastic distortion, each drawn anew for each image, in one resampling.

    Pixels from outside the picture are background.

    Args:
        shift: Whole pixels, up to this many, along each axis.
        rotation: Degrees, up to this many, either way.
        scale: Along each axis a factor of up to 1 ± this, 0 <= scale < 1.
        shear: Degrees by which vertical strokes lean, up to this many, either way.
        alpha: Strength of the elastic distortion, in pixels before smoothing; 0: none.
        sigma: Its smoothness, in pixels. The displacements' root mean square along each axis is
            alpha / (sqrt(3) 2 sqrt(pi) sigma): 1.38 pixels for Simard's alpha 34 and sigma 4.
        mirror: Share of the images that are turned left to right; only where `data.mirrors` holds.
        shape: Of an image; comes from the dataset.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(
        self,
        shift: int = 0,
        rotation: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        alpha: float = 0.0,
        sigma: float = 4.0,
        mirror: float = 0.0,
        shape: Shape = SHAPE,
    ) -> None:
        self.sides = shape[1:]
        longest = max(self.sides)
        ranges = {
            "shift": (shift, 0, longest),
            "rotation": (rotation, 0, 180),
            "scale": (scale, 0, 0.9),
            "shear": (shear, 0, 80),
            "alpha": (alpha, 0, 1000),
            "mirror": (mirror, 0, 1),
            "sigma": (sigma, 0.5, longest),
        }
        for key, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise ConfigError(f"augment.{key} must be between {low} and {high}, but got {value}.")
        if shift != int(shift):
            raise ConfigError(f"augment.shift must be a whole number of pixels, but got {shift}.")
        self.shift, self.scale, self.mirror = int(shift), float(scale), float(mirror)
        self.rotation, self.shear = math.radians(rotation), math.radians(shear)
        grid = _coordinates(*self.sides)
        self.fields = torch.cat([grid, _waves(alpha, sigma, *self.sides)]) if alpha else grid

    def __call__(self, pixels: Tensor, rng: torch.Generator) -> Tensor:
        """New pixels, from *pixels* of the same shape."""
        count, waves = len(pixels), len(self.fields) - 3
        self.fields = self.fields.to(pixels.device)
        noise = torch.randn(count, 2, waves, device=pixels.device, generator=rng)
        height, width = self.sides
        noise[:, 0] *= height / width  # waves are shares of the height
        weights = torch.cat([self._affine(count, rng), noise], 2)  # (batch, 2, fields)
        positions = (weights.flatten(0, 1) @ self.fields).view(count, 2, height, width)
        if self.mirror:
            drawn = torch.rand(count, device=pixels.device, generator=rng)
            positions[:, 0] *= torch.where(drawn < self.mirror, -1.0, 1.0)[:, None, None]
        return grid_sample(pixels, positions.permute(0, 2, 3, 1), mode="bilinear", align_corners=False)

    def _affine(self, count: int, rng: torch.Generator) -> Tensor:
        """(count, 2, 3): for each image, the map from a position in the new picture to that in the old one."""

        def uniform(limit: float) -> Tensor:
            return torch.rand(count, device=rng.device, generator=rng).mul_(2).sub_(1).mul_(limit)

        angle, lean = uniform(self.rotation), uniform(self.shear).tan()
        wide, high = 1 / (1 + uniform(self.scale)), 1 / (1 + uniform(self.scale))
        right, down = (uniform(self.shift + 0.5).round_().clamp_(-self.shift, self.shift) for _ in range(2))
        cos, sin = angle.cos(), angle.sin()
        height, width = self.sides
        across = torch.stack([cos * wide, (cos * lean - sin) * high * (height / width), right / (width / 2)], 1)
        along = torch.stack([sin * wide * (width / height), (sin * lean + cos) * high, down / (height / 2)], 1)
        return torch.stack([across, along], 1)


def _coordinates(height: int, width: int) -> Tensor:
    """(3, pixel): x, y and 1 at each pixel, with the picture's edges at ±1 as `grid_sample` has them."""
    rows, columns = ((torch.arange(side) + 0.5) / (side / 2) - 1 for side in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones(height * width)])


def _waves(alpha: float, sigma: float, height: int, width: int) -> Tensor:
    """(m, pixel): fields whose sum with standard normal weights is one axis of the elastic displacement.

    The strongest principal components of the smoothed noise, as many as hold 99.9 % of its variance, in halves of the
    height.
    """
    (down, rows), (right, columns) = (_components(side, sigma) for side in (height, width))
    strength = torch.outer(down, right).flatten()  # two axes: products of the components of each
    order = strength.argsort(descending=True)
    share = strength[order].cumsum(0) / strength.sum()
    kept = order[: int((share < 0.999).sum()) + 1]
    fields = torch.einsum("ia,jb->abij", rows, columns).reshape(height * width, height * width)[kept]
    rms = alpha / (math.sqrt(3) * 2 * math.sqrt(math.pi) * sigma)  # in pixels
    return (fields * strength[kept].sqrt()[:, None] * rms / (height / 2)).float()


def _components(side: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Variances and principal components, as columns, of the smoothed noise along one axis."""
    axis = torch.arange(side, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(torch.exp(-((axis[:, None] - axis) ** 2) / (4 * sigma**2)))
    return values, vectors
