"""Generated images: tests and first experiments need no files and no network."""

import torch
from torch import Tensor

from mnist_exp.config import Data


def make(data: Data) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, test images and labels: uint8, images (n, 28, 28), labels (n,) of 0 to 9.

    Ten smooth random patterns, each image one of them shifted by up to two pixels, with noise. The same
    config gives the same bytes on every machine of one torch version.
    """
    rng = torch.Generator().manual_seed(20_000)
    coarse = torch.rand(10, 1, 7, 7, generator=rng)
    patterns = torch.nn.functional.interpolate(coarse, size=28, mode="bilinear", align_corners=False)[:, 0]

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, 10, (count,), generator=rng)
        shifts = torch.randint(-2, 3, (count, 2), generator=rng)
        grid = torch.arange(28)
        rows = (grid[None, :] + shifts[:, :1]) % 28  # (n, 28)
        columns = (grid[None, :] + shifts[:, 1:]) % 28
        images = patterns[labels[:, None, None], rows[:, :, None], columns[:, None, :]]
        images = images + 0.35 * torch.randn(images.shape, generator=rng)
        return images.clamp(0, 1).mul(255).to(torch.uint8), labels.to(torch.uint8)

    return *split(data.train_images), *split(data.test_images)
