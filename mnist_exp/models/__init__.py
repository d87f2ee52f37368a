"""Networks: 28x28 grey images in, ten logits out."""

from mnist_exp.models.classifier import Classifier, export
from mnist_exp.models.cnn import FiveConvCNN, SimardCNN, SmallCNN, StrongCNN
from mnist_exp.models.mlp import MLP

__all__ = ["MLP", "Classifier", "FiveConvCNN", "SimardCNN", "SmallCNN", "StrongCNN", "export"]
