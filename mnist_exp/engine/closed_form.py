"""Multi-layer perceptrons without autograd: hand-derived gradients, many networks at once.

Autograd and the bookkeeping of single parameters cost about half of a step at these sizes. Here all weights of all
lanes lie in one buffer and their gradients in another, each matrix product writes its part of a buffer, and the
optimiser sees a few long vectors. The first layers of all lanes are one matrix, so that a shared batch needs one
product for them (compare ParallelMLPs, arXiv 2206.08369); further up, neighbours with equal widths share one batched
product for each layer. The weights of the first layers, which are most of all, come last: their gradient is the tensor
that its product returns, and is not copied.

Units come before images: then each lane's part of a layer's output is one piece of memory, (lane, unit, image).
With logits Z, batch size N and labels Y as one-hot (or smoothed) columns, the mean cross-entropy has the gradient
D = (softmax(Z) - Y) / N; a layer A' = act(W A + b) passes back G = (Wᵀ D) ⊙ act'(A) and has dW = D Aᵀ, db = Σ D.
tests/engine/test_closed_form.py holds values and gradients against autograd in float64.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from mnist_exp.config import Training
from mnist_exp.data import mix
from mnist_exp.engine import products
from mnist_exp.engine.fused import Optimizer
from mnist_exp.engine.stack import Stack, Tensors, limit_rows
from mnist_exp.models.mlp import MLP, ScaledTanh

BOUNDARY = 16  # numbers, 64 bytes: a row of a first layer's weights, 49 times that, then begins where a cache line does
TOP, SLOPE = ScaledTanh.TOP, ScaledTanh.SLOPE
# Activations whose derivative follows from their output: (in place, (gradient, output) -> gradient).
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
    """Whether *model* can train here: an MLP without norm, with one of `ACTIVATIONS`."""
    return isinstance(model, MLP) and model.norm == "none" and model.activation in ACTIVATIONS


@dataclass(frozen=True)
class _Lane:
    """One network's part of the buffers, and its own dropout."""

    names: dict[str, slice]
    """Where each of its parameters lies in the buffer of all weights."""
    keep: float
    """Share of hidden units that dropout keeps."""
    rng: torch.Generator


@dataclass(frozen=True)
class _Block:
    """Neighbouring lanes with equal widths, and their layers above the first as views of the buffers."""

    lanes: slice
    rows: slice
    """Their units in the shared first layer."""
    widths: list[int]
    weights: list[Tensor]
    """Second layer to last: (lane, out, in)."""
    biases: list[Tensor]
    """(lane, out, 1)."""
    weight_grads: list[Tensor]
    bias_grads: list[Tensor]
    """(lane, out)."""
    drops: bool
    """Whether any of them has dropout."""


@final
class MLPStack(Stack):
    """Any number of MLPs for the same images, with the same depth and activation; widths, seeds and dropout may differ.

    No number of one lane enters another, so a lane that diverges does not affect its neighbours.

    Args:
        models: Their initial weights are copied; they are not used afterwards. Fastest where equal widths are
            neighbours.
        seeds: One for each lane, for dropout. Dropout of the input is drawn from the first and shared.
        sets: Lanes with the same number share a parameter group; groups come in order of appearance.
        training: The same for all lanes.
    """

    recordable = True

    def __init__(
        self, models: list[MLP], seeds: list[int], sets: list[int] | None = None, training: Training | None = None
    ) -> None:
        assert models and all(fits(m) for m in models)
        self.training = training or Training()
        self.lanes, self.seeds = len(models), seeds
        appearance = list(dict.fromkeys(sets or [0]))
        self.sets = [appearance.index(s) for s in sets or [0] * len(models)]
        self.shapes = [{name: tuple(p.shape) for name, p in m.named_parameters()} for m in models]
        first = models[0].linears()[0].weight
        self.device, dtype = first.device, first.dtype
        self.pixels, self.classes = models[0].pixels, models[0].classes
        size = sum(p.numel() for m in models for p in m.parameters())
        self.width = sum(m.hidden[0] for m in models)  # of all first layers together
        self.cut = -(-(size - self.width * self.pixels) // BOUNDARY) * BOUNDARY  # where their weights begin
        size = self.cut + self.width * self.pixels
        self.flat = torch.zeros(size, device=self.device, dtype=dtype)
        self.act, self.act_backward = ACTIVATIONS[models[0].activation]
        self.products = products.fastest(first)
        smoothing = self.training.label_smoothing
        eye = torch.eye(self.classes, device=self.device, dtype=dtype)
        self.targets = eye * (1 - smoothing) + smoothing / self.classes
        self.input_keep = 1 - models[0].input_dropout
        self.grad = torch.zeros_like(self.flat[: self.cut])
        self.first_weight = self.flat[self.cut :].view(self.width, self.pixels)
        self.first_bias, self.first_bias_grad = self.flat[: self.width, None], self.grad[: self.width]
        self.parts = self._divide(models)
        self.blocks = self._blocks(models)
        self.leaves = self._leaves()
        self.first_leaves = [(span, leaf) for _, span, leaf in self.leaves if span.start >= self.cut]
        self.homes = [{name: self._home(span) for name, span in lane.names.items()} for lane in self.parts]
        for lane, model in enumerate(models):
            for name, view in self.weights(lane).items():
                view.copy_(model.state_dict()[name])

    def _divide(self, models: list[MLP]) -> list[_Lane]:
        """Divides the buffer: each lane has rows of the shared first layer, and a stretch for the other layers."""
        parts, unit, offset = [], 0, self.width
        for model, seed in zip(models, self.seeds, strict=True):
            width, weight = model.hidden[0], self.cut + unit * self.pixels
            (first_weight, _), (first_bias, _), *above = model.named_parameters()
            names = {first_weight: slice(weight, weight + width * self.pixels), first_bias: slice(unit, unit + width)}
            for name, p in above:
                names[name] = slice(offset, offset + p.numel())
                offset += p.numel()
            parts.append(_Lane(names, 1 - model.dropout, torch.Generator(self.device).manual_seed(mix(seed, 0, 1))))
            unit += width
        return parts

    def _blocks(self, models: list[MLP]) -> list[_Block]:
        """Neighbours with equal widths lie at equal distances: the views below have lanes as a dimension."""
        blocks, lane, unit = [], 0, 0
        for hidden, same in itertools.groupby(models, key=lambda m: tuple(m.hidden)):
            lanes = slice(lane, lane + len(list(same)))
            above = list(self.parts[lane].names)[2:]
            views = [[self._view(b, lanes, name) for name in above] for b in (self.flat, self.grad)]
            (weights, biases), (weight_grads, bias_grads) = [(v[0::2], v[1::2]) for v in views]
            columns = [bias[:, :, None] for bias in biases]
            rows = slice(unit, unit + (lanes.stop - lane) * hidden[0])
            drops = any(part.keep < 1 for part in self.parts[lanes])
            blocks.append(_Block(lanes, rows, list(hidden), weights, columns, weight_grads, bias_grads, drops))
            lane, unit = lanes.stop, rows.stop
        return blocks

    def _view(self, buffer: Tensor, lanes: slice, name: str) -> Tensor:
        """The parameter *name* of neighbours with equal widths, (lane, ...), in *buffer*."""
        stretches = [list(part.names.values())[2:] for part in self.parts[lanes]]
        whole = buffer[stretches[0][0].start : stretches[-1][-1].stop].view(len(stretches), -1)
        span, offset = self.parts[lanes.start].names[name], stretches[0][0].start
        part = whole[:, span.start - offset : span.stop - offset]
        return part.view(-1, *self.shapes[lanes.start][name])

    def _leaves(self) -> list[tuple[int, slice, Tensor]]:
        """(set, span, parameter): the long vectors that the optimiser sees.

        Each has its `.grad` already, except those from `cut` on.
        """
        leaves = []
        for number, same in itertools.groupby(range(self.lanes), key=self.sets.__getitem__):
            lanes = list(same)
            first, last = (list(self.parts[i].names.values()) for i in (lanes[0], lanes[-1]))
            ends = [(first[1], last[1]), (first[2], last[-1]), (first[0], last[0])]
            if len(lanes) == self.lanes:
                ends = [(first[1], last[-1]), (first[0], last[0])]
            for begin, end in ends:
                span = slice(begin.start, end.stop)
                leaf = self.flat[span]
                if span.start < self.cut:
                    leaf.grad = self.grad[span]
                leaves.append((number, span, leaf))
        return leaves

    def _home(self, part: slice) -> tuple[Tensor, slice]:
        """The leaf that holds *part* of the buffer, and the slice of the leaf."""
        span, leaf = next((s, leaf) for _, s, leaf in self.leaves if s.start <= part.start and part.stop <= s.stop)
        return leaf, slice(part.start - span.start, part.stop - span.start)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [leaf for s, _, leaf in self.leaves if s == n]} for n in sorted(set(self.sets))]

    def spread(self, number: int, values: Sequence[float]) -> list[Tensor]:
        """A number of each lane for the parameters of group *number*: (n, 1) for each that has n equal parts."""
        spreads = []
        for leaf, span in [(leaf, span) for group, span, leaf in self.leaves if group == number]:
            numbers = torch.zeros(len(leaf), dtype=leaf.dtype)
            for homes, value in zip(self.homes, values, strict=True):
                for home, part in homes.values():
                    if home is leaf:
                        numbers[part] = value
            alike = self.pixels if span.start >= self.cut else 1
            spreads.append(numbers[::alike, None].to(leaf.device, copy=True))
        return spreads

    def reseed(self, epoch: int) -> None:
        for part, seed in zip(self.parts, self.seeds, strict=True):
            part.rng.manual_seed(mix(seed, epoch, 1))

    def generators(self) -> list[torch.Generator]:
        return [part.rng for i, part in enumerate(self.parts) if part.keep < 1 or (i == 0 and self.input_keep < 1)]

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.input_keep < 1:
            mask = torch.empty_like(images).bernoulli_(self.input_keep, generator=self.parts[0].rng)
            images = images * mask.div_(self.input_keep)
        first = self._first(images)
        logits = first.new_empty(self.lanes, self.classes, len(labels))
        outputs = [self._forward(block, first, logits, train=True) for block in self.blocks]
        delta = torch.softmax(logits, 1).sub_(self.targets.index_select(1, labels)).div_(len(labels))
        back = torch.empty_like(first)
        for block, kept in zip(self.blocks, outputs, strict=True):
            self._backward(block, kept, delta[block.lanes], back)
        back = self.act_backward(back, first)
        torch.sum(back, 1, out=self.first_bias_grad)
        first_weight_grad = self._first_weight_grad(back, images)
        if self.training.clip:
            self._clip(self.training.clip, first_weight_grad)
        return logits

    def _first(self, images: Tensor) -> Tensor:
        """The output of all first layers, (sum of widths, batch)."""
        return self.act(self.products.affine(self.first_bias, self.first_weight, images.t()))

    def _first_weight_grad(self, back: Tensor, images: Tensor) -> Tensor:
        """*back* (sum of widths, batch) times *images*, which becomes the `.grad` of the leaves from `cut` on."""
        for _, leaf in self.first_leaves:
            leaf.grad = None  # so that the next one reuses this memory, which is in the cache
        grad = self.products.product(back, images)
        flat = grad.view(-1)
        for span, leaf in self.first_leaves:
            leaf.grad = flat[span.start - self.cut : span.stop - self.cut]
        return grad

    def _forward(self, block: _Block, first: Tensor, logits: Tensor, train: bool) -> list[tuple[Tensor, Tensor | None]]:
        """Fills the block's part of *logits*; returns each hidden layer's (output, dropout mask or None)."""
        output, kept = first[block.rows].unflatten(0, (-1, block.widths[0])), []  # (lane, unit, batch)
        for weight, bias in zip(block.weights, block.biases, strict=True):
            mask = self._mask(block, output) if train else None
            kept.append((output, mask))
            dropped = output if mask is None else output * mask
            if weight is block.weights[-1]:
                torch.baddbmm(bias, weight, dropped, out=logits[block.lanes])
            elif len(weight) > 1:
                output = self.act(torch.baddbmm(bias, weight, dropped))
            else:
                output = self.act(self.products.affine(bias[0], weight[0], dropped[0])[None])
        return kept

    def _backward(
        self, block: _Block, outputs: list[tuple[Tensor, Tensor | None]], delta: Tensor, back: Tensor
    ) -> None:
        """Writes the block's gradients above its first layer from *delta*, that of its logits (lane, class, batch).

        Its rows of *back*, (sum of widths, batch), receive the gradient of the first layer's output.
        """
        for layer in reversed(range(len(block.weights))):
            output, mask = outputs[layer]
            dropped = output if mask is None else output * mask
            self._multiply(block.weight_grads[layer], delta, dropped.transpose(1, 2))
            torch.sum(delta, 2, out=block.bias_grads[layer])
            into = torch.empty_like(output) if layer else back[block.rows].view_as(output)
            self._multiply(into, block.weights[layer].transpose(1, 2), delta)
            delta = into
            if mask is not None:
                delta.mul_(mask)
            if layer:
                delta = self.act_backward(delta, output)

    def _multiply(self, out: Tensor, a: Tensor, b: Tensor) -> None:
        """Writes a b to *out*, of shapes (lane, m, n), (lane, m, k), (lane, k, n)."""
        if len(out) > 1 or self.classes in a.shape[1:]:  # several, or too small to be worth another library's call
            torch.bmm(a, b, out=out)
        else:
            self.products.into(out[0], a[0], b[0])

    def _clip(self, limit: float, first_weight_grad: Tensor) -> None:
        """Shortens the gradient of each lane, independently, to a length of at most *limit*."""
        for block in self.blocks:
            count = block.lanes.stop - block.lanes.start
            first = [first_weight_grad[block.rows].view(count, -1), self.first_bias_grad[block.rows].view(count, -1)]
            above = itertools.chain(*zip(block.weight_grads, block.bias_grads, strict=True))
            pieces = [*first, *(piece.flatten(1) for piece in above)]  # (lane, any) each
            lengths = torch.stack([torch.linalg.vector_norm(piece, dim=1) for piece in pieces], 1)
            scale = (limit / (torch.linalg.vector_norm(lengths, dim=1) + 1e-6)).clamp_(max=1)  # as clip_grad_norm_
            for piece in pieces:
                piece.mul_(scale[:, None])

    def constrain(self) -> None:
        if self.training.max_norm:
            above = [w.flatten(0, 1) for block in self.blocks for lane in block.weights for w in lane.split(1)]
            limit_rows([self.first_weight, *above], self.training.max_norm)

    def _mask(self, block: _Block, output: Tensor) -> Tensor | None:
        """Dropout for *output*, (lane, unit, batch): 0 with probability 1 - keep, else 1 / keep.

        Each lane draws its own, as it would alone.
        """
        if not block.drops:
            return None
        mask = torch.ones_like(output)
        for drawn, part in zip(mask, self.parts[block.lanes], strict=True):
            if part.keep < 1:
                drawn.bernoulli_(part.keep, generator=part.rng).div_(part.keep)
        return mask

    def logits(self, images: Tensor) -> Tensor:
        first = self._first(images)
        logits = first.new_empty(self.lanes, self.classes, len(images))
        for block in self.blocks:
            self._forward(block, first, logits, train=False)
        return logits

    def weights(self, lane: int) -> Tensors:
        shapes = self.shapes[lane]
        return {name: leaf[part].view(shapes[name]) for name, (leaf, part) in self.homes[lane].items()}

    def gradients(self, lane: int) -> Tensors:
        """The gradient of *lane* by parameter; shares memory with the stack."""
        shapes, homes = self.shapes[lane], self.homes[lane]
        return {n: leaf.grad[part].view(shapes[n]) for n, (leaf, part) in homes.items() if leaf.grad is not None}

    def moments(self, lane: int, optimizer: Optimizer) -> dict[str, Tensors]:
        moments: dict[str, Tensors] = {}
        for name, (leaf, part) in self.homes[lane].items():
            shape, state = self.shapes[lane][name], optimizer.state.get(leaf, {})
            moments[name] = {k: v[part].view(shape) if v.shape == leaf.shape else v for k, v in state.items()}
        return moments

    @torch.no_grad()
    def restore(self, lane: int, weights: Tensors, moments: dict[str, Tensors], optimizer: Optimizer) -> None:
        for name, view in self.weights(lane).items():
            view.copy_(weights[name])
            leaf, part = self.homes[lane][name]
            for quantity, value in moments.get(name, {}).items():
                state = optimizer.state.setdefault(leaf, {})
                if value.shape != view.shape:  # a counter
                    state[quantity] = value.clone()
                    continue
                if quantity not in state:
                    state[quantity] = torch.zeros_like(leaf)
                state[quantity][part] = value.flatten().to(leaf.device)
        optimizer.load_state_dict(optimizer.state_dict())  # moves each quantity to the device that the optimiser needs
