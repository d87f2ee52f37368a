"""What one network says."""

from mnist_exp.console.arguments import Key
from mnist_exp.results import names

RUN = Key("last", "whose network: a folder, an MLflow run id, last, best, or best:<sweep>", names.offered)
"""The run that a command about one network takes."""
