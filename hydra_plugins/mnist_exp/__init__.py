"""Launchers and sweepers, as Hydra finds them.

Hydra imports these modules at every start of every application in the environment, so they hold options and
thin shells only; the work is in mnist_exp.sweep. (No `from __future__ import annotations`: with a dataclass it
breaks Hydra's scan.)
"""
