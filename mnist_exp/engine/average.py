"""Averaged weights: they are closer to an optimum than a run that jumps about it."""

import contextlib
from collections.abc import Iterator
from typing import final

import torch

from mnist_exp.engine.fused import Optimizer


@final
class Average:
    """An exponential moving average of all weights, for evaluation (Polyak and Juditsky, 1992).

    Buffers, such as the statistics of batch norm, are not averaged: the current ones serve.

    Args:
        optimizer: Its parameters are averaged, from their present values on.
        decay: Share of the average that one step keeps, 0 <= decay < 1. Early steps keep less,
            (1 + step) / (10 + step), so that the initial weights are soon forgotten. 0: no average, and every method
            does nothing.
    """

    def __init__(self, optimizer: Optimizer, decay: float) -> None:
        self.decay = decay
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]] if decay else []
        self.restart()

    def restart(self) -> None:
        """Sets the average to the current weights."""
        self.values = [p.detach().clone() for p in self.parameters]

    def update(self, step: int) -> None:
        """Adds the weights after step number *step*, counting from 1; autograd must be off."""
        if self.values:
            torch._foreach_lerp_(self.values, self.parameters, 1 - min(self.decay, (1 + step) / (10 + step)))

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, the weights are the averaged ones; afterwards they are the original ones, to the last bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, value in zip(self.parameters, self.values, strict=True):
            kept = parameter.clone()
            parameter.copy_(value)
            value.copy_(kept)
