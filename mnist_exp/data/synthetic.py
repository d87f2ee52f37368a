"""Generated images: tests and first experiments need no files and no network."""

import torch
from torch import Tensor

from mnist_exp.config import Data


def make(data: Data) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, test images and labels: uint8, images (n, *shape), labels (n,).

    A smooth random pattern for each class, each image one of them shifted by up to two pixels, with noise. The same
    config gives the same bytes on every machine of one torch version.
    """
    rng = torch.Generator().manual_seed(20_000)
    channels, *sides = data.shape
    coarse = torch.rand(data.num_classes, channels, 7, 7, generator=rng)
    patterns = torch.nn.functional.interpolate(coarse, size=sides, mode="bilinear", align_corners=False)

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, data.num_classes, (count,), generator=rng)
        shifts = torch.randint(-2, 3, (count, 2), generator=rng)
        rows, columns = (
            (torch.arange(side) + shift[:, None]) % side for side, shift in zip(sides, shifts.T, strict=True)
        )  # (n, height), (n, width)
        images = patterns.movedim(1, -1)[labels[:, None, None], rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
        images = images + 0.35 * torch.randn(images.shape, generator=rng)
        return images.clamp(0, 1).mul(255).to(torch.uint8), labels.to(torch.uint8)

    return *split(data.train_images), *split(data.test_images)
