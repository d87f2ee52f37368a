"""A training step as a CUDA graph: recorded once, then replayed by one call.

At these sizes a GPU finishes a kernel before the host has launched the next, so a step takes as long as its twenty or
more launches. A graph launches them all at once. It records the kernels, the addresses that they read and write, and
every plain number. So everything that changes from step to step (images, labels, the schedule's factor) is copied into
tensors of fixed address, and dropout's generators are registered.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from mnist_exp.engine.fused import Fused, Optimizer
from mnist_exp.engine.stack import Stack

WARM_UP = 3  # as in torch's own examples; they are steps of the training like any other

Step = Callable[[Tensor, Tensor, Any], Tensor]
"""Trains on (images, labels) with this factor of the learning rate, a number or a tensor; returns the logits."""


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

    def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
        """Does *work* once, after everything launched before and before everything launched later."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = work()
        current.wait_stream(self.stream)
        return result

    def record(self, work: Callable[[], Tensor], generators: list[torch.Generator]) -> Callable[[], Tensor]:
        """Records *work* without doing it; returns a function that does it and returns the same tensor each time."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self.stream):
            result = work()

        def replay() -> Tensor:
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
        self.replay: Callable[[], Tensor] | None = None
        self.warm = 0

    def __call__(self, images: Tensor, labels: Tensor, factor: float) -> Tensor:
        if not self.warm:
            self.recorder = Recorder(images.device)
            self.images, self.labels = torch.empty_like(images), torch.empty_like(labels)
            self.factor = torch.empty((), device=images.device)
        self.factor.fill_(factor)
        if len(labels) != len(self.labels):
            return self.step(images, labels, self.factor)
        self.images.copy_(images)
        self.labels.copy_(labels)
        if self.warm < WARM_UP:
            self.warm += 1
            return self.recorder.warm_up(self._work)
        if self.replay is None:
            self.replay = self.recorder.record(self._work, self.generators)
        return self.replay().clone()  # the next replay overwrites it

    def _work(self) -> Tensor:
        return self.step(self.images, self.labels, self.factor)
