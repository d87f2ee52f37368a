"""The address of the MLflow store, and what mlflow reads from the environment when it is imported."""

import logging
import os
import re
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

from hydra.core.hydra_config import HydraConfig

from mnist_exp.config.schema import STORE
from mnist_exp.config.secrets import hide, without_login
from mnist_exp.errors import ExperimentError, first_line

_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", re.DOTALL)

WANTED = {  # read when mlflow is imported
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A dead server may hold one call this long, not the default four minutes: what is unsent stays on disk.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
ADDED = {name: value for name, value in WANTED.items() if name not in os.environ}
os.environ.update(ADDED)
logging.getLogger("urllib3").setLevel(logging.ERROR)  # or it logs each retry


def started_in() -> Path:
    """The folder in which the command was started; with hydra.job.chdir=true its run works in another."""
    config = HydraConfig.instance().cfg
    return Path(config.hydra.runtime.cwd) if config and config.hydra.job.chdir else Path.cwd()


def uri_for(configured: str | None, key: str = "tracking.uri") -> str:
    """The store's URI: configured, else $MLFLOW_TRACKING_URI, else mlflow.db in this folder; always absolute.

    Args:
        key: What the error calls a configured one.

    Raises:
        ConfigError: it is not the address of a store.
    """
    name, uri = (key, configured) if configured else ("MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI"))
    if not uri:
        return in_file(started_in() / "mlflow.db")
    STORE.check(name, without_login(uri))
    if path := database(uri):
        return in_file(started_in() / path, *_SQLITE.fullmatch(uri).group(1, 3))  # type: ignore[union-attr]
    return uri


def in_file(path: PurePath, scheme: str = "sqlite:///", options: str = "") -> str:
    """The URI of the store in the SQLite file *path*."""
    return scheme + re.sub("[%?#]", lambda sign: f"%{ord(sign[0]):02X}", path.as_posix()) + options


def database(uri: str) -> Path | None:
    """The file of a store in SQLite; None for any other."""
    match = _SQLITE.fullmatch(uri)
    return Path(unquote(match[2])) if match else None


def path_of(location: str) -> Path:
    """What is at *location*, a path or the address of a file."""
    from urllib.request import url2pathname  # torch has loaded it where it is trained

    return Path(url2pathname(urlsplit(location).path))


def made(database: Path) -> bool:
    """Whether there is a store in that file: an empty one is as good as none."""
    return database.is_file() and database.stat().st_size > 0


def reason(error: Exception) -> str:
    """Why MLflow did not take something, in one line."""
    if isinstance(error, ExperimentError):
        return f"{error.message} {error.help}".strip()
    text = hide(first_line(error).partition(" Response body")[0])  # a page of another server
    return "it cannot be reached" if "Max retries exceeded" in text else f"{type(error).__name__}: {text}"
