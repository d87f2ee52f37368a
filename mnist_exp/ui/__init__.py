"""This folder's sweeps and runs in a browser: one page that leads to each one's own and to MLflow."""
