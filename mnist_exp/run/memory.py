"""How much memory training takes, by the shapes of a network, and whether this machine has it."""

import math

from torch import nn

from mnist_exp import system
from mnist_exp.config import Config, Data
from mnist_exp.engine.loop import EVALUATION, WINDOW
from mnist_exp.errors import ConfigError


def of_lane(config: Config, network: nn.Module) -> int:
    """Bytes that *network* takes as a lane, by the shapes of what a step and an evaluation have at once."""
    weights = sum(p.numel() for p in network.parameters())
    units = sum(p.shape[0] for p in network.parameters() if p.dim() == 1)  # each unit has a bias
    copies = 6 + bool(config.training.ema)  # weight, gradient, two moments, and where an update with its own rate ends
    outputs = units * max(4 * config.batch_size, 2 * EVALUATION)  # activations, their gradients, masks, products
    kept = max(WINDOW * config.batch_size, EVALUATION)  # images whose logits are kept, joined, and made probabilities
    scores = 3 * config.data.num_classes * kept
    return 4 * (copies * weights + outputs + scores)


def check_network(network: nn.Module) -> None:
    """Raises ConfigError if training *network* exceeds the free memory."""
    parameters = sum(p.numel() for p in network.parameters())
    units = sum(layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear))
    needed = 16 * parameters + 4 * EVALUATION * units  # weights, gradients, two moments, and a pass
    _check(f"A network of {parameters:,} parameters", needed, "Choose a smaller one.")


def check_images(data: Data) -> None:
    """Raises ConfigError if the images of *data* exceed the free memory."""
    images = data.train_images + data.test_images
    size = math.prod(data.shape) * images
    _check(f"A set of {images:,} images", size, "Lower data.train_images or data.test_images.")


def _check(what: str, size: int, way_out: str) -> None:
    """Raises ConfigError if *what* takes more bytes than are free."""
    if size > (available := system.memory()):
        needed, has = f"{size / 1e9:,.0f}", f"{available / 1e9:,.0f}"
        raise ConfigError(f"{what} takes {needed} GB of memory to train, but this machine has {has} free.", way_out)
