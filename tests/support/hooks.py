"""Fault injection into commands, through variables that `hook/sitecustomize.py` reads."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent


def hook(**environment: str) -> dict[str, str]:
    """The environment of a command with an injected fault."""
    path = os.pathsep.join([str(HERE / "hook"), str(HERE), os.environ["PYTHONPATH"]])
    return {"PYTHONPATH": path, **environment}


@contextlib.contextmanager
def held(file: Path = Path("held"), run: str = "") -> Iterator[dict[str, str]]:
    """Yields an environment: until *file* is removed, no run of such a command completes its third epoch.

    Where *run* names a folder, only the run there does not. A signal that is handled meanwhile leaves a file beside
    *file*, with `.signalled` after its name.
    """
    file = file.absolute()
    file.touch()
    try:
        yield hook(MNIST_EXP_HELD=str(file), MNIST_EXP_HELD_RUN=run)
    finally:
        file.unlink(missing_ok=True)
