"""A CUDA graph's rules on a CPU: the same operations again, on the same tensors, with the same plain numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """While it is on, notes each operation of torch; refuses what a capture would refuse.

    Args:
        generators: Those that may be drawn from, besides torch's default one.
    """

    def __init__(self, generators: list[torch.Generator]) -> None:
        super().__init__()
        self.generators = {generator._cdata for generator in generators}  # each call has a wrapper of its own
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "it looks at a number"
        drawn_from = (kwargs or {}).get("generator")
        assert drawn_from is None or drawn_from._cdata in self.generators, "its generator is not registered"
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            for old, value in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old is not value:
                    old.copy_(value)


class TapeRecorder:
    """Stands in for `mnist_exp.engine.graph.Recorder`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
        return work()

    def record(self, work: Callable[[], Tensor], generators: list[torch.Generator]) -> Callable[[], Tensor]:
        """A CUDA graph records without doing; here it is done on the way, so the first replay has nothing to do."""
        with Tape(generators) as tape:
            result = work()
        done = [True]

        def replay() -> Tensor:
            if not done:
                tape.replay()
            done.clear()
            return result

        return replay
