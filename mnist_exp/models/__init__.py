"""Networks: images in, a logit for each class out.

A class that takes `shape` (channels, height, width) and `classes` gets those of the dataset (`run/build.py`).

A class with `recordable = True` promises that no number decides what its forward pass does next, so that a step can be
recorded as a CUDA graph (`engine/graph.py`).
"""

from mnist_exp.models.classifier import Classifier, export, exporting
from mnist_exp.models.cnn import FiveConvCNN, SimardCNN, SmallCNN, StrongCNN
from mnist_exp.models.mlp import MLP

__all__ = ["MLP", "Classifier", "FiveConvCNN", "SimardCNN", "SmallCNN", "StrongCNN", "export", "exporting"]
