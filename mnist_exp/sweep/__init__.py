"""Many runs: as a grid or a search, on this machine or a cluster, from what was typed to the leaderboard.

Called, as `mnist_exp.sweep(["hidden=64,128"])`, it runs a sweep from Python.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """The folder has the name of the function, and Python sets `mnist_exp.sweep` to it whenever it is imported."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `notebook.sweep`, which is above this layer: it is found when it is called."""
        return importlib.import_module("mnist_exp.notebook").sweep(*arguments, **options)


sys.modules[__name__].__class__ = _Package
