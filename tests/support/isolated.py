"""Hides variables of the user, and simulates another system if MNIST_EXP_ELSEWHERE names one.

Imported before the package and its libraries, which look at both when they are imported.
"""

import os

import elsewhere

OTHERS = ("HYDRA_FULL_ERROR", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "JPY_PARENT_PID", "MPLBACKEND", "TZ")

for name in [*os.environ]:
    if name.startswith("MLFLOW_") or name in OTHERS:
        del os.environ[name]

if "MNIST_EXP_ELSEWHERE" in os.environ:
    elsewhere.install(os.environ["MNIST_EXP_ELSEWHERE"])
