"""What the process that workers are forked from loads once for all of them."""

import gc

gc.disable()  # nothing of this is garbage, and frozen it stays in memory that all of them share

import mnist_exp.run.session  # noqa: E402, F401  torch and everything that a job needs

gc.freeze()
gc.enable()
