"""What the process that workers are forked from loads once for all of them."""

import mnist_exp.run  # noqa: F401  torch and everything that a job needs
