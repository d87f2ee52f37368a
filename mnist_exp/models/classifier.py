"""What is deployed: pixels in, probabilities out."""

import io
from typing import final

import torch
from torch import Tensor, nn


@final
class Classifier(nn.Module):
    """A trained network that takes the pixels of a picture: callers need not know mean or scale.

    Args:
        network: Maps standardised (batch, 1, 28, 28) to logits (batch, 10).
        mean: Of the training pixels, as a share of white.
        std: Likewise.
    """

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.network, self.mean, self.std = network, mean, std

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities (batch, 10) for *pixels* (batch, 1, 28, 28), 0 for background to 255 for ink."""
        return torch.softmax(self.network((pixels / 255 - self.mean) / self.std), -1)


def export(classifier: Classifier) -> bytes:
    """*classifier* in torch's export format: a graph with weights that loads without this package or a pickle.

    The first call in a process takes a second more, to load torch's compiler.
    """
    example = torch.zeros(2, 1, 28, 28)  # two: an example of one would fix the batch size
    with torch.no_grad():
        program = torch.export.export(classifier.eval(), (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()
