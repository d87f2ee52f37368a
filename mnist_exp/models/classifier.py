"""What is deployed: pixels in, probabilities out."""

import io
import threading
from typing import final

import torch
from torch import Tensor, nn

from mnist_exp.config import SHAPE, Shape

exporting = threading.Lock()
"""torch exports one network at a time: two threads spoil each other's tracing."""


@final
class Classifier(nn.Module):
    """A trained network that takes the pixels of a picture: callers need not know mean or scale.

    Args:
        network: Maps standardised images (batch, *shape) to logits (batch, class).
        mean: Of the training pixels, as a share of white; or one for each channel.
        std: Likewise.
        shape: Of an image.
    """

    def __init__(
        self, network: nn.Module, mean: float | list[float], std: float | list[float], shape: Shape = SHAPE
    ) -> None:
        super().__init__()
        self.network, self.shape = network, shape
        self.mean, self.std = (
            torch.tensor(value).view(-1, 1, 1) if isinstance(value, list) else value for value in (mean, std)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities (batch, class) for *pixels* (batch, *shape), 0 for black to 255 for white."""
        return torch.softmax(self.network((pixels / 255 - self.mean) / self.std), -1)


def export(classifier: Classifier) -> bytes:
    """*classifier* in torch's export format: a graph with weights that loads without this package or a pickle.

    The first call in a process takes a second more, to load torch's compiler.
    """
    example = torch.zeros(2, *classifier.shape)  # two: an example of one would fix the batch size
    buffer = io.BytesIO()
    with exporting, torch.no_grad():
        program = torch.export.export(classifier.eval(), (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        torch.export.save(program, buffer)
    return buffer.getvalue()
