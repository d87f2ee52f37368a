"""The address of the MLflow store, and what mlflow reads from the environment when it is imported."""

import logging
import os
from pathlib import Path

from mnist_exp.config.secrets import hide
from mnist_exp.errors import ExperimentError, first_line

SQLITE = "sqlite:///"

os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# A dead server may hold one call this long, not the default four minutes: what is unsent stays on disk.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
logging.getLogger("urllib3").setLevel(logging.ERROR)  # or it logs each retry


def uri_for(configured: str | None) -> str:
    """The store's URI: configured, else $MLFLOW_TRACKING_URI, else mlflow.db in this folder; always absolute."""
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    path = database(uri)
    return uri if path is None else f"{SQLITE}{path.absolute()}"


def database(uri: str) -> Path | None:
    """The file of a store in SQLite; None for any other."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def made(database: Path) -> bool:
    """Whether there is a store in that file: an empty one is as good as none."""
    return database.is_file() and database.stat().st_size > 0


def reason(error: Exception) -> str:
    """Why MLflow did not take something, in one line."""
    if isinstance(error, ExperimentError):
        return f"{error.message} {error.help}".strip()
    text = hide(first_line(error).partition(" Response body")[0])  # a page of another server
    return "it cannot be reached" if "Max retries exceeded" in text else f"{type(error).__name__}: {text}"
