"""Sweeps of small image classifiers, described by Hydra, trained with PyTorch, compared in MLflow.

From Python, `mnist_exp.train_from(["hidden=256"])` trains, `mnist_exp.sweep(["hidden=64,128"])` trains many,
`mnist_exp.results.load()` compares and `mnist_exp.load_model("best")` uses. Importing the package loads none of these,
so that commands start fast.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from mnist_exp import processor

if TYPE_CHECKING:
    from mnist_exp import results
    from mnist_exp.notebook import load_model, sweep, train_from

__all__ = ["load_model", "results", "sweep", "train_from"]

# How many times OpenMP threads look for each other before they sleep, read when torch is loaded. Left alone, two
# threads on two cores lose each other for 80 ms a step as soon as another program wants a core. Milliseconds a step at
# hidden=128 on two threads, mean of 1.5 s (benchmarks/spin.py):
#   looks                 1,000   2,000   5,000   10,000
#   AMD, idle              0.18    0.18    0.18     0.18
#   AMD, one busy program   1.2     1.4     4.2      6.9
# On Intel's, whose threads take longer to wake, an idle machine needs 0.43 ms with 2,000 looks and 0.22 with 10,000.
os.environ.setdefault("GOMP_SPINCOUNT", "10000" if processor.is_intel() else "2000")


def __getattr__(name: str) -> Any:
    if name in ("results", "sweep"):  # the second is a folder that can be called
        return importlib.import_module(f"mnist_exp.{name}")
    if name in __all__:
        return getattr(importlib.import_module("mnist_exp.notebook"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
