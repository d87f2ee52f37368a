"""Sweeps of small image classifiers, described by Hydra, trained with PyTorch, compared in MLflow."""

import os

# How long OpenMP threads wait busily for each other, read when torch is loaded. Left alone, two threads on two
# cores lose each other for 80 ms a step as soon as any other program wants a core; with this it is 2 ms, and on
# an idle machine a step takes as long as before (0.38 against 0.36 ms at hidden=128, benchmarks/spin.py).
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
