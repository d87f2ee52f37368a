"""MLflow: the store, what is written to it, and the process that does the writing."""
