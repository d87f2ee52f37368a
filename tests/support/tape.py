"""The rules of a CUDA graph on a CPU: a replay repeats the operations on the same tensors with the same scalars."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Records each torch operation while it is active; refuses what a capture would refuse.

    Args:
        generators: Allowed random generators, besides torch's default one.
    """

    def __init__(self, generators: list[torch.Generator]) -> None:
        super().__init__()
        self.generators = {generator._cdata for generator in generators}  # Python wrappers differ between calls
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "it reads a number from a tensor"
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
    """Replaces `mnist_exp.engine.graph.Recorder`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def warm_up(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any], generators: list[torch.Generator]) -> Callable[[], Any]:
        """A CUDA graph records without executing; here recording executes, so the first replay does nothing."""
        with Tape(generators) as tape:
            result = work()
        done = [True]

        def replay() -> Any:
            if not done:
                tape.replay()
            done.clear()
            return result

        return replay
