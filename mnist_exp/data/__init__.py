"""Images: fetched, checked, divided, on the device."""

from mnist_exp.data.splits import Order, Split, Splits, load, mix

__all__ = ["Order", "Split", "Splits", "load", "mix"]
