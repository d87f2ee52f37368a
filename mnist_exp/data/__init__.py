"""Images: fetched, checked, divided, on the device, augmented. Only its names load torch, not its import."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_exp.data.augment import Augment
    from mnist_exp.data.splits import Order, Split, Splits, check, digest, load, mix

__all__ = ["Augment", "Order", "Split", "Splits", "check", "digest", "load", "mix"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "augment" if name == "Augment" else "splits"
    return getattr(importlib.import_module(f"mnist_exp.data.{home}"), name)
