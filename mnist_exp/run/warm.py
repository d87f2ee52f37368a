"""Initial weights from another run: `init=RUN`, which becomes `init=<folder>@<digest of its weights>`.

The digest is what counts: it is in the fingerprint, so other weights make another run, and the folder may move.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config import override
from mnist_exp.config.overrides import key_of
from mnist_exp.config.stores import started_in
from mnist_exp.config.sweeps import reads
from mnist_exp.console.terminal import shown
from mnist_exp.disk.files import sha256
from mnist_exp.disk.layout import RunFolder
from mnist_exp.errors import CheckpointError, ConfigError, first_line

if TYPE_CHECKING:
    from torch import nn

SOURCE = re.compile(r"(.*)@([0-9a-f]{12})", re.DOTALL)


def resolved(name: str) -> str:
    """The run called *name* (see `results.names`) as `<folder>@<digest>`.

    Raises:
        ConfigError: there is no such run; or *name* has a digest already, and its weights are others.
        CheckpointError: it has no trained weights.
        ExperimentError: the MLflow store cannot be read.
    """
    from mnist_exp.results import names  # not for --help

    known = SOURCE.fullmatch(name)
    if known and not known[1]:
        raise ConfigError(f"init={name}: where those weights are is not known here.", "Name their run: init=…")
    folder = names.one(known[1] if known else name, needed=(RunFolder.weights,))
    digest = _digest(folder)
    if known and known[2] != digest:
        raise ConfigError(f"init={name}: the weights there are others now ({digest}).", f"Name it without @{known[2]}.")
    return f"{shown(folder)}@{digest}"


def typed(overrides: Sequence[str]) -> list[str]:
    """*overrides*, with each run that `init` names as `resolved`: `last` may soon be another.

    Raises:
        ExperimentError: as `resolved`.
    """
    return [_typed(each) if key_of(each) == "init" else each for each in overrides]


def _typed(each: str) -> str:
    read = reads(each)
    values = [] if read is None else read.value().list if read.is_choice_sweep() else [read.value()]
    if not values or not all(isinstance(value, str | None) for value in values):
        return each  # it has an error of its own
    texts = ["null" if v is None else override("init", resolved(str(v))).partition("=")[2] for v in values]
    return f"init={','.join(texts)}"


def trained(folder: Path) -> Path:
    """The file with the weights of the run in *folder*. Raises CheckpointError where it has none yet."""
    path = RunFolder(folder).weights
    if not path.is_file():
        raise CheckpointError(f"{shown(folder)} has no trained weights: it did not finish.", "Name a run that did.")
    return path


def check(source: str, network: "nn.Module") -> None:
    """Makes sure that *network* takes the weights of *source*, by names and shapes; nothing where they are gone.

    Those of a run that has begun are in its checkpoint.

    Raises:
        ConfigError: they do not fit, or *source* is not `resolved`.
        CheckpointError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = _weights(source)
    if not path.is_file():
        return
    try:
        with safe_open(path, "numpy") as file:
            saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"init={source}: its weights are damaged: {first_line(error)}") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            was, now = (sizes.get(name, "no such weights") for sizes in (saved, wanted))
            raise ConfigError(
                f"init={source} does not fit this network: {name} has {was} there, and {now} here.",
                "Train the same model with the same hidden, or name another run.",
            )


def load(source: str, network: "nn.Module") -> None:
    """Gives *network* the weights of *source*.

    Raises:
        CheckpointError: they are gone, damaged, or others than those that *source* names.
        ConfigError: as `check`.
    """
    import safetensors.torch

    path = _weights(source)
    if not path.is_file() or _digest(path.parent) != source[-12:]:
        now = "others now" if path.is_file() else "gone"
        reason = f"init={source}: those weights are {now}, and this run has not begun."
        raise CheckpointError(reason, "Put them back, or start a run from others.")
    check(source, network)
    network.load_state_dict(safetensors.torch.load_file(path))


def _weights(source: str) -> Path:
    """The file with the weights of *source*."""
    known = SOURCE.fullmatch(source)
    if not known:
        raise ConfigError(
            f"init={source} in a file or a table may soon be another run.", "Type it on the command line: init=…"
        )
    return RunFolder(started_in() / known[1]).weights


def _digest(folder: Path) -> str:
    return sha256(trained(folder).read_bytes())[:12]
