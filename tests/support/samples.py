"""Paths, the smallest experiment, and the programs of docs/ as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType

import platformdirs

from mnist_exp.config.overrides import key_of

REPO = Path(__file__).resolve().parents[2]
CACHE = Path(platformdirs.user_cache_dir())  # read before a fixture changes it
MNIST = CACHE / "mnist_exp" / "mnist"

# The smallest experiment that still learns: a tenth of a second with its overhead.
TINY = (
    "data=synthetic",
    "data.train_images=120",
    "data.test_images=40",
    "data.val_size=20",
    "batch_size=16",
    "hidden=16",
    "epochs=2",
    "device=cpu",
    "threads=1",
    "checkpoint.model=false",
    "tracking=off",
)


def once(*typed: str) -> list[str]:
    """*typed* with the last value of each key only: a test may change `TINY`, a user may set nothing twice."""
    return list({key_of(word) if "=" in word else (i, word): word for i, word in enumerate(typed)}.values())


def script(name: str, folder: str = "docs") -> ModuleType:
    """The program *folder*/*name*.py as a module."""
    spec = importlib.util.spec_from_file_location(name, REPO / folder / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
