"""The large products of a step on a CPU, by the faster of torch's two libraries.

torch leaves float32 products to MKL, which keeps its AVX-512 code for Intel's own processors. oneDNN, which torch
brings along for convolutions, takes half the time on AMD's Zen 5 (benchmarks/README.md has both as floors). On Zen 4,
with its 256-bit units, AVX2 is as fast, and MKL leads for small networks. On a Mac torch has neither for products but
Apple's Accelerate, whose matrix units no other library knows; it stays.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mnist_exp import processor


class Products(NamedTuple):
    """One library's way to multiply large matrices."""

    affine: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(bias, a, b) -> bias + a b, of shapes (m, 1), (m, k), (k, n)."""
    product: Callable[[Tensor, Tensor], Tensor]
    """(a, b) -> a b, of shapes (m, k), (k, n)."""
    into: Callable[[Tensor, Tensor, Tensor], object]
    """(out, a, b): writes a b to *out*, of shapes (m, n), (m, k), (k, n)."""


def fastest(like: Tensor) -> Products:
    """The faster library for matrices of the type and device of *like*; always the same on one machine."""
    return ONEDNN if like.device.type == "cpu" and like.dtype == torch.float32 and onednn_pays() else TORCH


@functools.cache
def onednn_pays() -> bool:
    """Whether torch would use MKL on a processor where oneDNN is faster, and has oneDNN."""
    available = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return available and torch.backends.mkl.is_available() and processor.is_zen5()


def onednn(a: Tensor, b: Tensor) -> Tensor:
    """a b, of shapes (m, k) and (k, n), in float32 on a CPU."""
    # Inductor's operator, the only one that hands dense float32 matrices to oneDNN as they lie.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    return product


TORCH = Products(torch.addmm, torch.mm, lambda out, a, b: torch.mm(a, b, out=out))
ONEDNN = Products(lambda bias, a, b: onednn(a, b).add_(bias), onednn, lambda out, a, b: out.copy_(onednn(a, b)))
