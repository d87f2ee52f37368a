"""Fully connected networks."""

from collections.abc import Callable
from typing import final

from torch import Tensor, nn

from mnist_exp.errors import ConfigError

PIXELS = 28 * 28
DIGITS = 10

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}
NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


@final
class MLP(nn.Module):
    """784 pixels, any number of hidden layers, 10 logits.

    Each hidden layer is linear, norm, activation, dropout. Weights and biases start uniform in
    ±1/sqrt(inputs), the default of `torch.nn.Linear`.

    Args:
        hidden: Units of the hidden layer, or of each, first to last.
        activation: A key of `ACTIVATIONS`.
        dropout: Share of hidden units set to zero in training, 0 <= dropout < 1.
        input_dropout: The same for pixels.
        norm: `none`, `batch` or `layer`.

    Raises:
        ConfigError: a value is out of range or unknown.
    """

    def __init__(
        self,
        hidden: int | list[int],
        activation: str = "relu",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        norm: str = "none",
    ) -> None:
        super().__init__()
        self.hidden = [hidden] if isinstance(hidden, int) else list(hidden)
        self.activation, self.norm = activation, norm
        self.dropout, self.input_dropout = float(dropout), float(input_dropout)
        for key, share in (("dropout", self.dropout), ("input_dropout", self.input_dropout)):
            if not 0 <= share < 1:
                raise ConfigError(f"model.{key} must be at least 0 and below 1, but got {share}.")
        if activation not in ACTIVATIONS:
            raise ConfigError(f"model.activation must be one of {', '.join(ACTIVATIONS)}, but got {activation!r}.")
        if norm != "none" and norm not in NORMS:
            raise ConfigError(f"model.norm must be one of none, {', '.join(NORMS)}, but got {norm!r}.")
        layers: list[nn.Module] = [nn.Dropout(self.input_dropout)] if self.input_dropout else []
        inputs = PIXELS
        for units in self.hidden:
            layers.append(nn.Linear(inputs, units))
            if norm != "none":
                layers.append(NORMS[norm](units))
            layers.append(ACTIVATIONS[activation]())
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
            inputs = units
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, DIGITS))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, 10) for *images* (batch, ...) of 784 pixels each."""
        logits: Tensor = self.layers(images.flatten(1))
        return logits

    def linears(self) -> list[nn.Linear]:
        """The linear layers, first to last."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]
