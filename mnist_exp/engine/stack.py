"""What the loop trains: one or more models ("lanes") that see the same batches."""

import abc
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnist_exp.config import Shape, Training
from mnist_exp.data import mix
from mnist_exp.engine.fused import Optimizer

Tensors = dict[str, Tensor]


class Stack(abc.ABC):
    """Models that train together, each with its own weights, on shared batches.

    Shapes: *images* are (batch, pixel) float32, *labels* (batch,) int64, logits (lane, class, batch): classes come
    before images because softmax and cross-entropy are then 7 to 13 times faster on a CPU.
    """

    lanes: int
    sets: list[int]
    """The parameter group of each lane; the first, if it has several."""
    recordable: bool
    """Whether `gradient` and `constrain` can be recorded in a CUDA graph: no number decides what comes next."""

    @abc.abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """The parameters for the optimiser, as its parameter groups."""

    @abc.abstractmethod
    def reseed(self, epoch: int) -> None:
        """Makes the randomness of *epoch* (dropout) a function of seed and epoch alone."""

    @abc.abstractmethod
    def generators(self) -> list[torch.Generator]:
        """The generators of `gradient`, besides torch's default ones."""

    @abc.abstractmethod
    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Sets each parameter's `.grad` to that of its lane's mean cross-entropy; returns the logits.

        Labels are smoothed and each lane's gradient is clipped, as `Training` says.
        """

    @abc.abstractmethod
    def constrain(self) -> None:
        """Called after each step: limits the weights into each unit to `Training.max_norm`."""

    @abc.abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Logits for evaluation: no dropout, no gradient."""

    @abc.abstractmethod
    def weights(self, lane: int) -> Tensors:
        """The state dict of *lane* as a stand-alone model; shares memory with the stack."""

    @abc.abstractmethod
    def moments(self, lane: int, optimizer: Optimizer) -> dict[str, Tensors]:
        """The state of *optimizer* for each parameter of *lane*: {parameter: {quantity: tensor}}."""

    @abc.abstractmethod
    def restore(self, lane: int, weights: Tensors, moments: dict[str, Tensors], optimizer: Optimizer) -> None:
        """The inverse of `weights` and `moments`, of the same names and shapes."""


@final
class ModuleStack(Stack):
    """One lane: any `nn.Module` that maps images (batch, *shape) to logits (batch, class), by autograd."""

    lanes = 1

    def __init__(
        self, model: nn.Module, seed: int, training: Training, shape: Shape, autocast: torch.dtype | None = None
    ) -> None:
        self.model, self.seed, self.training, self.shape, self.autocast = model, seed, training, shape, autocast
        self.sets = [0]
        self.recordable = getattr(model, "recordable", False) is True  # other networks may do anything

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters())}]

    def reseed(self, epoch: int) -> None:
        torch.manual_seed(mix(self.seed, epoch, 1))

    def generators(self) -> list[torch.Generator]:
        return []

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        self.model.train()
        self.model.zero_grad(set_to_none=True)
        with torch.enable_grad():
            logits = self._forward(images)
            cross_entropy(logits, labels, label_smoothing=self.training.label_smoothing).backward()
        if self.training.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip)
        return logits.detach().t()[None]

    def constrain(self) -> None:
        if self.training.max_norm:
            limit_rows([p for p in self.model.parameters() if p.dim() > 1], self.training.max_norm)

    def logits(self, images: Tensor) -> Tensor:
        self.model.eval()
        with torch.no_grad():
            return self._forward(images).t()[None]

    def _forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, self.autocast, enabled=self.autocast is not None):
            logits: Tensor = self.model(images.view(-1, *self.shape))
        return logits.float()

    def weights(self, lane: int) -> Tensors:
        return dict(self.model.state_dict())

    def moments(self, lane: int, optimizer: Optimizer) -> dict[str, Tensors]:
        return {name: dict(optimizer.state.get(p, {})) for name, p in self.model.named_parameters()}

    def restore(self, lane: int, weights: Tensors, moments: dict[str, Tensors], optimizer: Optimizer) -> None:
        self.model.load_state_dict(weights)
        whole = optimizer.state_dict()
        names = {p: name for name, p in self.model.named_parameters()}
        order = [names[p] for group in optimizer.param_groups for p in group["params"]]
        whole["state"] = {i: moments[name] for i, name in enumerate(order) if moments.get(name)}
        optimizer.load_state_dict(whole)  # moves each quantity to the device that the optimiser needs


@torch.no_grad()
def limit_rows(weights: list[Tensor], limit: float) -> None:
    """Shortens each unit's vector of incoming weights, (unit, ...), to a length of at most *limit*."""
    for weight in weights:
        lengths = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True)
        weight.mul_((limit / lengths).clamp_(max=1))
