"""Search with Optuna: what may vary, the study that suggests values, and the word from each run that may end it.

Optuna is an extra, and only this package imports it.
"""
