"""Search with Optuna: what may vary, the study that suggests values, and the reports of each run, which may end it.

Optuna is an extra, and only this package imports it.
"""
