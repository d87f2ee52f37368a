"""Commands that something happens to from within: what `hook/sitecustomize.py` looks at."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent


def hook(**environment: str) -> dict[str, str]:
    """The environment of a command with a fault in it."""
    path = os.pathsep.join([str(HERE / "hook"), str(HERE), os.environ["PYTHONPATH"]])
    return {"PYTHONPATH": path, **environment}


@contextlib.contextmanager
def held(file: Path = Path("held")) -> Iterator[dict[str, str]]:
    """While it lasts and *file* is there, no run of a command with this environment gets beyond its second epoch."""
    file = file.absolute()
    file.touch()
    try:
        yield hook(MNIST_EXP_HELD=str(file))
    finally:
        file.unlink(missing_ok=True)
