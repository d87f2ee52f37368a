"""Images: fetched, checked, divided, on the device, augmented."""

from mnist_exp.data.augment import Augment
from mnist_exp.data.splits import Order, Split, Splits, load, mix

__all__ = ["Augment", "Order", "Split", "Splits", "load", "mix"]
