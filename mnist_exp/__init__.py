"""Sweeps of small image classifiers, described by Hydra, trained with PyTorch, compared in MLflow.

From Python, `mnist_exp.train_from(["hidden=256"])` trains and `mnist_exp.results.load()` compares. Importing the
package loads neither, so that commands start fast.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_exp.notebook import train_from

__all__ = ["train_from"]

# How many times OpenMP threads look for each other before they sleep, read when torch is loaded. Left alone, two
# threads on two cores lose each other for 80 ms a step as soon as another program wants a core. Too few, and they
# sleep between any two operations: at hidden=128 a step took 0.43 ms with 2,000 on an idle machine with Intel's
# processors, 0.22 with 10,000 and more; beside two busy programs 0.96, 0.24, with 20,000 2.6 (benchmarks/spin.py).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def __getattr__(name: str) -> Any:
    if name == "train_from":
        from mnist_exp.notebook import train_from

        return train_from
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
