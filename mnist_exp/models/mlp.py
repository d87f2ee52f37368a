"""Fully connected networks."""

import math
from collections.abc import Callable, Iterable
from typing import final

import torch
from torch import Tensor, nn

from mnist_exp.config import CLASSES, SHAPE, Shape
from mnist_exp.config.guesses import closest
from mnist_exp.errors import ConfigError


@final
class ScaledTanh(nn.Module):
    """1.7159 tanh(2x/3): ±1 map to ±1, where the curvature is largest (LeCun et al., Efficient BackProp, 1998)."""

    TOP, SLOPE = 1.7159, 2 / 3

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, of any shape."""
        return self.TOP * torch.tanh(self.SLOPE * x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "scaled_tanh": ScaledTanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
}
NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}

# How the weights of a linear layer start: (weights, init_scale) -> None. Biases then start at zero.
INITS: dict[str, Callable[[Tensor, float], object]] = {
    "he": lambda w, _: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "glorot": lambda w, _: nn.init.xavier_uniform_(w),
    "lecun": lambda w, _: nn.init.normal_(w, std=1 / math.sqrt(w.shape[1])),
    "normal": lambda w, scale: nn.init.normal_(w, std=scale),
    "uniform": lambda w, scale: nn.init.uniform_(w, -scale, scale),
}
SCALED = ("normal", "uniform")
NAMED = {"kaiming": "he", "xavier": "glorot"}
"""What torch calls some of `INITS`."""


@final
class MLP(nn.Module):
    """Pixels, any number of hidden layers, a logit for each class.

    Each hidden layer is linear, norm, activation, dropout.

    Args:
        hidden: Units of the hidden layer, or of each, first to last.
        activation: A key of `ACTIVATIONS`.
        dropout: Share of hidden units set to zero in training, 0 <= dropout < 1.
        input_dropout: The same for pixels.
        norm: `none`, `batch` or `layer`.
        init: How weights start, from torch's global random numbers. `torch`: weights and biases uniform in
            ±1/sqrt(inputs), the default of `torch.nn.Linear`. Otherwise biases are zero and weights `he`
            (normal, variance 2/inputs), `glorot` (uniform, variance 2/(inputs + outputs)), `lecun` (normal,
            variance 1/inputs), `normal` (standard deviation *init_scale*) or `uniform` (in ±*init_scale*).
        init_scale: For `normal` and `uniform`, > 0; None for the others.
        shape: Of an image. This and *classes* come from the dataset.
        classes: How many there are.

    Raises:
        ConfigError: a value is out of range or unknown.
    """

    recordable = True

    def __init__(
        self,
        hidden: int | list[int],
        activation: str = "relu",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        norm: str = "none",
        init: str = "torch",
        init_scale: float | None = None,
        shape: Shape = SHAPE,
        classes: int = CLASSES,
    ) -> None:
        super().__init__()
        self.hidden = [hidden] if isinstance(hidden, int) else list(hidden)
        self.activation, self.norm = activation, norm
        self.pixels, self.classes = math.prod(shape), classes
        self.dropout, self.input_dropout = float(dropout), float(input_dropout)
        for key, share in (("dropout", self.dropout), ("input_dropout", self.input_dropout)):
            if not 0 <= share < 1:
                raise ConfigError(f"model.{key} must be at least 0 and below 1, but got {share}.")
        _one_of("activation", activation, ACTIVATIONS)
        _one_of("norm", norm, ("none", *NORMS))
        _one_of("init", init, ("torch", *INITS))
        if init in SCALED and not (init_scale is not None and 0 < init_scale < math.inf):
            raise ConfigError(
                f"model.init={init} needs a finite model.init_scale > 0, but got {init_scale}.",
                "Try model.init_scale=0.05.",
            )
        if init not in SCALED and init_scale is not None:
            raise ConfigError(
                f"model.init_scale={init_scale} means nothing for model.init={init}.",
                f"It belongs to {' and '.join(SCALED)}.",
            )
        layers: list[nn.Module] = [nn.Dropout(self.input_dropout)] if self.input_dropout else []
        inputs = self.pixels
        for units in self.hidden:
            layers.append(nn.Linear(inputs, units))
            if norm != "none":
                layers.append(NORMS[norm](units))
            layers.append(ACTIVATIONS[activation]())
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
            inputs = units
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, classes))
        if init != "torch":
            for layer in self.linears():
                INITS[init](layer.weight, init_scale or 0.0)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, class) for *images* (batch, ...)."""
        logits: Tensor = self.layers(images.flatten(1))
        return logits

    def linears(self) -> list[nn.Linear]:
        """The linear layers, first to last."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]


def _one_of(key: str, value: str, known: Iterable[str]) -> None:
    """Raises ConfigError unless *value* is one of *known*."""
    if value not in known:
        near = NAMED.get(str(value)) or closest(str(value).lower(), known)
        way_out = f"Write model.{key}={near}" if near else ""
        raise ConfigError(f"model.{key} must be one of {', '.join(known)}, but got {value!r}.", way_out)
