"""Hides variables of the user, keeps pytest apart from threads, and may simulate another system (MNIST_EXP_ELSEWHERE).

Imported before the package and its libraries, which look at both when they are imported.
"""

import logging
import os
from typing import Any

import elsewhere

OTHERS = ("HYDRA_FULL_ERROR", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "JPY_PARENT_PID", "MPLBACKEND", "TZ")

for name in [*os.environ]:
    if name.startswith("MLFLOW_") or name in OTHERS:
        del os.environ[name]


class Loggers(dict[str, Any]):
    """All loggers: pytest goes through them before each phase, while a thread of the test before may import modules."""

    def values(self) -> Any:
        """As they are now: to copy them, unlike to go through them, is one step."""
        return list(super().values())


logging.root.manager.loggerDict = Loggers(logging.root.manager.loggerDict)

if "MNIST_EXP_ELSEWHERE" in os.environ:
    elsewhere.install(os.environ["MNIST_EXP_ELSEWHERE"])
