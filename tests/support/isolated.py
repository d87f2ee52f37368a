"""Hides variables of the user; imported before the package and its libraries, which read some at their import."""

import os

OTHERS = ("HYDRA_FULL_ERROR", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "JPY_PARENT_PID", "MPLBACKEND", "TZ")

for name in [*os.environ]:
    if name.startswith("MLFLOW_") or name in OTHERS:
        del os.environ[name]
