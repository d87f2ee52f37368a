"""Which code, on which machine, with which versions: what makes a result repeatable."""

import contextlib
import functools
import os
import platform
import runpy
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import mnist_exp
from mnist_exp.config.secrets import hide
from mnist_exp.disk.files import sha256

PACKAGE = Path(mnist_exp.__file__).resolve().parent


@functools.cache
def code_fingerprint() -> str:
    """Digest of this package's Python sources, 16 hexadecimal digits."""
    parts = [f"{path.relative_to(PACKAGE)}:{sha256(path.read_bytes())}" for path in sorted(PACKAGE.rglob("*.py"))]
    return sha256("\n".join(parts).encode())[:16]


@functools.cache
def git() -> dict[str, str]:
    """Commit, whether the tree differs (`true` or `false`), and the difference without secrets; empty outside git."""
    commit = _git("rev-parse", "HEAD").strip()
    if not commit:
        return {}
    diff = _git("diff", "HEAD", "--no-color", "--no-ext-diff")
    dirty = bool(_git("status", "--porcelain").strip())
    return {"commit": commit, "dirty": str(dirty).lower(), "diff": hide(diff)}


def _git(*arguments: str) -> str:
    """What git prints; nothing without git or a repository."""
    try:
        done = subprocess.run(["git", "-C", str(PACKAGE), *arguments], capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    installed = {"python": platform.python_version()}
    for package in ("torch", "hydra-core", "mlflow", "numpy", "mnist_exp"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = torch_version() if package == "torch" else metadata.version(package)
    return installed


@functools.cache
def torch_version() -> str:
    """What `torch.__version__` says, without importing torch.

    Its metadata may say `2.14.1` of a build that calls itself `2.14.1+cu130`, and MLflow warns of a model whose torch
    is called otherwise than the one that loads it.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    torch = find_spec("torch")
    if not torch or not torch.origin:
        raise metadata.PackageNotFoundError("torch")
    return str(runpy.run_path(str(Path(torch.origin).with_name("version.py")))["__version__"])


def environment() -> str:
    """All installed distributions, as `pip freeze` would list them: the run's `environment.txt`.

    From the names of their folders: reading every package's metadata takes thirty times as long.
    """
    stems = {path.stem for entry in sys.path for path in Path(entry).glob("*.dist-info")}
    lines = sorted((stem.replace("-", "==", 1) for stem in stems), key=str.lower)
    head = f"# Python {sys.version.split()[0]}, {platform.platform()}, {os.cpu_count()} cores\n"
    return head + "\n".join(lines) + "\n"
