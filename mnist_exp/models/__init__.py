"""Networks: 28x28 grey images in, ten logits out.

A class with `recordable = True` promises that no number decides what its forward pass does next, so that a step can be
recorded as a CUDA graph (`engine/graph.py`).
"""

from mnist_exp.models.classifier import Classifier, export
from mnist_exp.models.cnn import FiveConvCNN, SimardCNN, SmallCNN, StrongCNN
from mnist_exp.models.mlp import MLP

__all__ = ["MLP", "Classifier", "FiveConvCNN", "SimardCNN", "SmallCNN", "StrongCNN", "export"]
