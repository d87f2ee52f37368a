"""Apple's GPU where there is none: tensors that say they are on it and compute on the CPU, under its rules."""

from collections.abc import Iterator
from typing import Any, final

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map

MPS = torch.device("meta")  # a device of this name that every torch has: it need not be linked with support for MPS


@final
class OnMPS(Tensor):
    """A tensor of that device whose numbers are those of *inner*, on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnMPS":
        assert inner.dtype != torch.float64, "the MPS framework has no float64"
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made: OnMPS = Tensor._make_wrapper_subclass(cls, inner.size(), **layout, device=MPS)  # type: ignore[attr-defined]
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Does *func* on the CPU; the result is on MPS unless it was to move to the CPU."""
        given = list(tree_iter((args, kwargs or {})))
        wrappers = {id(each.inner): each for each in given if isinstance(each, OnMPS)}
        copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        for each in given:
            if isinstance(each, Tensor) and each.dim() and not copies:
                assert isinstance(each, OnMPS), f"{func}: a tensor is elsewhere"
            assert not isinstance(each, torch._C.Generator) or each._cdata in Generator.on_mps, (
                "the generator is elsewhere"
            )
        args, kwargs = tree_map(lambda each: each.inner if isinstance(each, OnMPS) else each, (args, kwargs or {}))
        result = func(*args, **kwargs)
        if kwargs.get("device") == torch.device("cpu") or (copies and id(args[0]) not in wrappers):
            return result
        return tree_map(lambda each: wrappers[id(each)] if id(each) in wrappers else moved(each), result)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnMPS({self.inner})"


def moved(value: Any) -> Any:
    """*value* on MPS, if it is a tensor elsewhere."""
    return OnMPS(value) if isinstance(value, Tensor) and not isinstance(value, OnMPS) else value


class Generator(torch.Generator):
    """A generator of the CPU that says it is on *device*."""

    on_mps: dict[int, torch.Generator] = {}  # noqa: RUF012  # torch hands over another Python object each time
    where: torch.device

    def __new__(cls, device: Any = "cpu") -> "Generator":
        made = super().__new__(cls)
        made.where = torch.device(device)
        if made.where == MPS:
            cls.on_mps[made._cdata] = made
        return made

    def manual_seed(self, seed: int) -> "Generator":
        super().manual_seed(seed)
        return self

    @property
    def device(self) -> torch.device:
        return self.where


READS = (torch.device, torch._C._nn._parse_to)  # they get a device and make nothing on it


class SimulatedMPS(TorchFunctionMode):
    """While it is active, tensors can be made there and moved there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tree_iter((args, kwargs))
        if func in READS or MPS not in [each for each in given if isinstance(each, torch.device)]:
            return func(*args, **kwargs)
        if func is Tensor.to and isinstance(args[0], OnMPS):
            return args[0]
        args, kwargs = tree_map(elsewhere, (args, kwargs))
        return tree_map(moved, func(*args, **kwargs))


def elsewhere(value: Any) -> Any:
    """The CPU in place of MPS."""
    return torch.device("cpu") if isinstance(value, torch.device) and value == MPS else value


@pytest.fixture
def simulated_mps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with that device, which `device=auto` takes."""
    monkeypatch.setattr("mnist_exp.run.build.device", lambda config: MPS)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
    Generator.on_mps.clear()
    with SimulatedMPS():
        yield
