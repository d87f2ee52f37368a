"""A training step as a CUDA graph: recorded once, then replayed by one call.

At these sizes a GPU finishes a kernel before the host has launched the next, so a step takes as long as its twenty or
more launches. A graph launches them all at once. It records the kernels, the addresses that they read and write, and
every plain number. So everything that changes from step to step (rows of the batch, factor of the rate) is copied into
tensors of fixed address, and dropout's generators are registered. What the host launches for a step are that copy, the
graph, and a copy of logits and labels.
"""

import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from mnist_exp.engine.fused import Fused, Optimizer
from mnist_exp.engine.stack import Stack

WARM_UP = 3  # as in torch's own examples; they are steps of the training like any other

Scored = tuple[Tensor, Tensor]
"""Logits and labels of a batch."""
Step = Callable[..., Scored]
"""Trains on a batch, one or more tensors, with this factor of the learning rate, a number or a tensor."""


def fits(stack: Stack, optimizer: Optimizer) -> bool:
    """Whether their step can be recorded: it runs on CUDA, and no number decides what comes next."""
    return _on_cuda(optimizer) and isinstance(optimizer, Fused) and stack.recordable


def note(stack: Stack, optimizer: Optimizer) -> str:
    """The log's remark on whether the step is recorded; empty without CUDA."""
    if not _on_cuda(optimizer):
        return ""
    return ", CUDA graph" if fits(stack, optimizer) else ", no CUDA graph"


def _on_cuda(optimizer: Optimizer) -> bool:
    first: Tensor = optimizer.param_groups[0]["params"][0]
    return first.is_cuda


@final
class Recorder:
    """torch.cuda's part: a stream beside the current one to warm up on, and the capture."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def warm_up(self, work: Callable[[], Scored]) -> Scored:
        """Does *work* once, after everything launched before and before everything launched later."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = work()
        current.wait_stream(self.stream)
        return result

    def record(self, work: Callable[[], Scored], generators: list[torch.Generator]) -> Callable[[], Scored]:
        """Records *work* without doing it; returns a function that does it and returns the same tensors each time."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self.stream):
            result = work()

        def replay() -> Scored:
            graph.replay()
            return result

        return replay


@final
class Graphed:
    """A step that is recorded once it has warmed up.

    Smaller batches, the last of each epoch, run as they are.

    Args:
        step: Its parameters and the optimiser's state must keep their addresses; it creates the gradients itself.
        generators: The generators of *step*, besides torch's default ones.
    """

    def __init__(self, step: Step, generators: list[torch.Generator]) -> None:
        self.step, self.generators = step, generators
        self.replay: Callable[[], Scored] | None = None
        self.warm = 0

    def __call__(self, *batch_and_factor: Any) -> Scored:
        *batch, factor = batch_and_factor
        if not self.warm:
            self.recorder = Recorder(batch[0].device)
            self.batch = [torch.empty_like(each) for each in batch]
            self.factor, self.filled = torch.empty((), device=batch[0].device), math.nan
        if factor != self.filled:
            self.factor.fill_(factor)
            self.filled = factor
        if len(batch[0]) != len(self.batch[0]):
            return self.step(*batch, self.factor)
        for fixed, each in zip(self.batch, batch, strict=True):
            fixed.copy_(each)
        if self.warm < WARM_UP:
            self.warm += 1
            return _copies(self.recorder.warm_up(self._work))
        if self.replay is None:
            self.replay = self.recorder.record(self._work, self.generators)
        return _copies(self.replay())

    def _work(self) -> Scored:
        return self.step(*self.batch, self.factor)


def _copies(scored: Scored) -> Scored:
    """What the next step does not overwrite; labels may be those of the fixed batch."""
    logits, labels = scored
    return logits.clone(), labels.clone()
