"""Sweeps of small image classifiers, described by Hydra, trained with PyTorch, compared in MLflow.

From Python, `mnist_exp.train_from(["hidden=256"])` trains and `mnist_exp.results.load()` compares. Importing the
package loads neither, so that commands start fast.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_exp.notebook import train_from

__all__ = ["train_from"]

# How long OpenMP threads wait busily for each other, read when torch is loaded. Left alone, two threads on two
# cores lose each other for 80 ms a step as soon as any other program wants a core; with this it is 2 ms, and on
# an idle machine a step takes as long as before (0.38 against 0.36 ms at hidden=128, benchmarks/spin.py).
os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def __getattr__(name: str) -> Any:
    if name == "train_from":
        from mnist_exp.notebook import train_from

        return train_from
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
