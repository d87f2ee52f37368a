"""Hydra-configured sweeps of small image classifiers.

From Python: `mnist_exp.train_from(["hidden=256"])` trains, `mnist_exp.results.load()` compares. Importing the
package loads nothing else, so that commands start fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_exp.notebook import train_from

__all__ = ["train_from"]


def __getattr__(name: str) -> Any:
    if name == "train_from":
        from mnist_exp.notebook import train_from

        return train_from
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
