"""Multi-layer perceptrons without autograd: the gradient written out, many networks at once.

Autograd and the bookkeeping of single parameters cost about half of a step at these sizes. Here all weights
of all lanes lie in one buffer and all gradients in another, each matrix product writes straight into its
place, and the optimiser sees a few long vectors. The first layers of all lanes are one matrix, so that a
shared batch meets them in one product (compare ParallelMLPs, arXiv 2206.08369).

With logits Z, batch size N and labels Y as one-hot (or smoothed) rows, the mean cross-entropy has the gradient
D = (softmax(Z) - Y) / N; a layer A' = act(A Wᵀ + b) passes back G = (D W) ⊙ act'(A) and has dW = Dᵀ A, db = Σ D.
tests/test_closed_form.py holds values and gradients against autograd in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from mnist_exp.config import Training
from mnist_exp.data import mix
from mnist_exp.engine.fused import Optimizer
from mnist_exp.engine.stack import Stack, State, limit_rows, same_shapes
from mnist_exp.models.mlp import DIGITS, MLP, PIXELS, ScaledTanh

# Activations whose derivative follows from their output: (in place, (gradient, output) -> gradient).
TOP, SLOPE = ScaledTanh.TOP, ScaledTanh.SLOPE
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "relu": (torch.relu_, lambda g, a: torch.ops.aten.threshold_backward(g, a, 0)),
    "tanh": (torch.tanh_, lambda g, a: torch.ops.aten.tanh_backward(g, a)),
    "scaled_tanh": (
        lambda x: x.mul_(SLOPE).tanh_().mul_(TOP),
        lambda g, a: torch.ops.aten.tanh_backward(g, a / TOP).mul_(TOP * SLOPE),
    ),
    "sigmoid": (torch.sigmoid_, lambda g, a: torch.ops.aten.sigmoid_backward(g, a)),
}


def fits(model: Any) -> bool:
    """Whether *model* can train here: an MLP without norm whose activation is one of `ACTIVATIONS`."""
    return isinstance(model, MLP) and model.norm == "none" and model.activation in ACTIVATIONS


@dataclass(frozen=True)
class _Lane:
    """One network's part of the buffers."""

    columns: slice
    """Its units in the shared first layer."""
    names: dict[str, slice]
    """Where each of its parameters lies in the buffers."""
    weights: list[Tensor]
    """Views of the weight buffer, second layer to last: (out, in)."""
    biases: list[Tensor]
    weight_grads: list[Tensor]
    bias_grads: list[Tensor]
    keep: float
    """Share of hidden units that dropout keeps."""
    rng: torch.Generator


@final
class MLPStack(Stack):
    """Any number of MLPs with the same depth and activation; widths, seeds and dropout may differ.

    Args:
        models: Their initial weights are copied; they are not used afterwards.
        seeds: One for each lane, for dropout.
        sets: Lanes with the same number share a parameter group; equal numbers must be neighbours.
        training: The same for all lanes.
    """

    def __init__(
        self,
        models: list[MLP],
        seeds: list[int],
        sets: list[int] | None = None,
        training: Training | None = None,
    ) -> None:
        assert models and all(fits(m) for m in models)
        self.training = training or Training()
        self.lanes, self.seeds, self.sets = len(models), seeds, sets or [0] * len(models)
        self.shapes = [{name: tuple(p.shape) for name, p in m.named_parameters()} for m in models]
        first = models[0].linears()[0].weight
        self.device, dtype = first.device, first.dtype
        size = sum(p.numel() for m in models for p in m.parameters())
        self.flat = torch.zeros(size, device=self.device, dtype=dtype)
        self.grad = torch.zeros_like(self.flat)
        self.act, self.act_backward = ACTIVATIONS[models[0].activation]
        smoothing = self.training.label_smoothing
        self.targets = torch.eye(DIGITS, device=self.device, dtype=dtype) * (1 - smoothing) + smoothing / DIGITS
        self.input_keep = 1 - models[0].input_dropout
        self.width = sum(m.hidden[0] for m in models)  # of all first layers together
        self.first_weight, self.first_bias = self._first_layer(self.flat)
        self.first_weight_grad, self.first_bias_grad = self._first_layer(self.grad)
        self.parts = self._divide(models)
        self.leaves = self._leaves()
        for lane, model in enumerate(models):
            for name, view in self.weights(lane).items():
                view.copy_(model.state_dict()[name])

    def _first_layer(self, buffer: Tensor) -> tuple[Tensor, Tensor]:
        """The shared first layer in *buffer*: weights (sum of widths, 784), then biases (sum of widths,)."""
        cut = self.width * PIXELS
        return buffer[:cut].view(self.width, PIXELS), buffer[cut : cut + self.width]

    def _divide(self, models: list[MLP]) -> list[_Lane]:
        """Gives each lane its places: rows of the shared first layer, then a stretch of its own."""
        parts, unit, place = [], 0, self.width * (PIXELS + 1)
        for model, seed in zip(models, self.seeds, strict=True):
            width = model.hidden[0]
            columns = slice(unit, unit + width)
            names, views = {}, []
            for i, (name, p) in enumerate(model.named_parameters()):
                if i == 0:
                    names[name] = slice(unit * PIXELS, (unit + width) * PIXELS)
                elif i == 1:
                    start = self.width * PIXELS + unit
                    names[name] = slice(start, start + width)
                else:
                    names[name] = slice(place, place + p.numel())
                    views.append((self.flat[names[name]].view(p.shape), self.grad[names[name]].view(p.shape)))
                    place += p.numel()
            weights, biases = views[0::2], views[1::2]
            parts.append(
                _Lane(
                    columns,
                    names,
                    [w for w, _ in weights],
                    [b for b, _ in biases],
                    [g for _, g in weights],
                    [g for _, g in biases],
                    1 - model.dropout,
                    torch.Generator(self.device).manual_seed(mix(seed, 0, 1)),
                )
            )
            unit += width
        return parts

    def _leaves(self) -> list[tuple[int, slice, Tensor]]:
        """(set, place, parameter): the long vectors that the optimiser sees, their `.grad` already in place."""
        leaves = []
        for number in dict.fromkeys(self.sets):
            lanes = [part for part, s in zip(self.parts, self.sets, strict=True) if s == number]
            places = [list(part.names.values()) for part in lanes]
            runs = [(p[0], p[1]) for p in zip(places[0], places[-1], strict=True)][:2]
            runs.append((places[0][2], places[-1][-1]))
            spans = [slice(a.start, b.stop) for a, b in runs]
            if len(set(self.sets)) == 1:
                spans = [slice(0, len(self.flat))]
            for span in spans:
                leaf = self.flat[span]
                leaf.grad = self.grad[span]
                leaves.append((number, span, leaf))
        return leaves

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [leaf for s, _, leaf in self.leaves if s == n]} for n in dict.fromkeys(self.sets)]

    def reseed(self, epoch: int) -> None:
        for part, seed in zip(self.parts, self.seeds, strict=True):
            part.rng.manual_seed(mix(seed, epoch, 1))

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.input_keep < 1:
            images = images * self._mask(images.shape, self.input_keep, self.parts[0].rng)
        first = self.act(torch.addmm(self.first_bias, images, self.first_weight.t()))  # (batch, sum of widths)
        logits = first.new_empty(self.lanes, DIGITS, len(labels))
        outputs = [self._forward(part, first, logits[i], train=True) for i, part in enumerate(self.parts)]
        delta = torch.softmax(logits, 1).sub_(self.targets.index_select(1, labels)).div_(len(labels))
        back = torch.empty_like(first)
        for i, part in enumerate(self.parts):
            self._backward(part, outputs[i], delta[i], back[:, part.columns])
        back = self.act_backward(back, first)
        torch.mm(back.t(), images, out=self.first_weight_grad)
        torch.sum(back, 0, out=self.first_bias_grad)
        if self.training.clip:
            self._clip(self.training.clip)
        return logits

    def _forward(self, part: _Lane, first: Tensor, logits: Tensor, train: bool) -> list[tuple[Tensor, Any]]:
        """Fills *logits* (10, batch); returns each hidden layer's (output, dropout mask or None)."""
        output, kept = first[:, part.columns], []
        for weight, bias in zip(part.weights, part.biases, strict=True):
            mask = self._mask(output.shape, part.keep, part.rng) if train and part.keep < 1 else None
            kept.append((output, mask))
            dropped = output if mask is None else output * mask
            if weight is part.weights[-1]:
                torch.addmm(bias[:, None], weight, dropped.t(), out=logits)
            else:
                output = self.act(torch.addmm(bias, dropped, weight.t()))
        return kept

    def _backward(self, part: _Lane, outputs: list[tuple[Tensor, Any]], error: Tensor, back: Tensor) -> None:
        """Writes the lane's gradients above its first layer from *error*, that of its logits (10, batch).

        *back* (batch, units) receives the gradient of the first layer's output, after its activation.
        """
        delta = error.t()
        for layer in reversed(range(len(part.weights))):
            output, mask = outputs[layer]
            dropped = output if mask is None else output * mask
            torch.mm(delta.t(), dropped, out=part.weight_grads[layer])
            torch.sum(delta, 0, out=part.bias_grads[layer])
            delta = torch.mm(delta, part.weights[layer], out=None if layer else back)
            if mask is not None:
                delta.mul_(mask)
            if layer:
                delta = self.act_backward(delta, output)

    def _clip(self, limit: float) -> None:
        """Shortens each lane's gradient to a length of at most *limit*, by itself: lanes do not meet."""
        for part in self.parts:
            pieces = [self.grad[place] for place in part.names.values()]
            length = torch.nn.utils.get_total_norm(pieces)
            torch._foreach_mul_(pieces, (limit / (length + 1e-6)).clamp_(max=1))  # as in clip_grad_norm_

    def constrain(self) -> None:
        if self.training.max_norm:
            weights = [self.first_weight, *(w for part in self.parts for w in part.weights)]
            limit_rows(weights, self.training.max_norm)

    def _mask(self, shape: torch.Size, keep: float, rng: torch.Generator) -> Tensor:
        """Dropout: 0 with probability 1 - keep, else 1 / keep."""
        drawn = torch.empty(shape, device=self.device, dtype=self.flat.dtype)
        return drawn.bernoulli_(keep, generator=rng).div_(keep)

    def logits(self, images: Tensor) -> Tensor:
        first = self.act(torch.addmm(self.first_bias, images, self.first_weight.t()))
        logits = first.new_empty(self.lanes, DIGITS, len(images))
        for i, part in enumerate(self.parts):
            self._forward(part, first, logits[i], train=False)
        return logits

    def weights(self, lane: int) -> State:
        shapes = self.shapes[lane]
        return {n: self.flat[place].view(shapes[n]) for n, place in self.parts[lane].names.items()}

    def moments(self, lane: int, optimizer: Optimizer) -> dict[str, State]:
        found: dict[str, State] = {}
        for name, place in self.parts[lane].names.items():
            span, leaf = self._leaf_of(place)
            part = slice(place.start - span.start, place.stop - span.start)
            shape = self.shapes[lane][name]
            state = optimizer.state.get(leaf, {})
            found[name] = {k: v[part].view(shape) if v.shape == leaf.shape else v for k, v in state.items()}
        return found

    def _leaf_of(self, place: slice) -> tuple[slice, Tensor]:
        for _, span, leaf in self.leaves:
            if span.start <= place.start and place.stop <= span.stop:
                return span, leaf
        raise AssertionError("every parameter lies in one leaf")

    @torch.no_grad()
    def restore(self, lane: int, weights: State, moments: dict[str, State], optimizer: Optimizer) -> None:
        same_shapes(weights, self.weights(lane))
        for name, view in self.weights(lane).items():
            view.copy_(weights[name])
            span, leaf = self._leaf_of(self.parts[lane].names[name])
            place = self.parts[lane].names[name]
            part = slice(place.start - span.start, place.stop - span.start)
            state = optimizer.state.setdefault(leaf, {})
            for quantity, value in moments.get(name, {}).items():
                if value.shape != view.shape:  # a counter
                    state[quantity] = value.clone()
                    continue
                if quantity not in state:
                    state[quantity] = torch.zeros_like(leaf)
                state[quantity][part] = value.flatten().to(leaf.device)
