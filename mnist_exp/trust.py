"""Whose a run or a sweep is, and what one from elsewhere may call.

A stored config names code: `_target_`. What lies in `outputs/runs` or `outputs/sweeps` of the working folder is the
user's own work, and calls what it names. Any other folder may be anybody's: it is read as data, and calls only what a
file of the user's `conf/` names (or of `--config-dir`), or an optimiser of torch.
"""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig

from mnist_exp import config
from mnist_exp.config import Config
from mnist_exp.errors import ConfigError

KNOWN = re.compile(r"(torch\.optim|optuna\.samplers|optuna\.pruners)\.[A-Z]\w*")
"""Targets that only make what they are called."""


def own(folder: Path) -> bool:
    """Whether *folder* lies where this program puts what the user starts."""
    place = folder.resolve()
    return any(place.is_relative_to(Path("outputs", kind).resolve()) for kind in ("runs", "sweeps"))


def load(folder: Path) -> Config:
    """The config of the run in *folder*, fit to be built.

    Raises:
        ConfigError: as `config.load` and `check`.
    """
    found = config.load(folder / "config.yaml")
    check(config.to_dict(found), folder)
    return found


def check(plain: dict[str, Any], folder: Path, conf: Iterable[str] = ()) -> None:
    """Refuses *plain*, part of a config out of *folder*, if that is from elsewhere and would call what is not named.

    Args:
        conf: Folders of config files, besides `conf/` and those of the Hydra job that this is.

    Raises:
        ConfigError: it would.
    """
    if own(folder):
        return
    if HydraConfig.initialized():
        conf = [*conf, *files_of(HydraConfig.get().runtime.config_sources)]
    named = _named(frozenset([config.conf_dir(), *conf]))
    strangers = sorted(target for target in targets(plain) - named if not KNOWN.fullmatch(target))
    if strangers:
        raise ConfigError(
            f"{folder} comes from elsewhere and would call {', '.join(strangers)}, which no file of conf/ names.",
            "If you trust it, give it a file of its own, such as conf/model/<name>.yaml with that _target_.",
        )


def files_of(sources: Iterable[Any]) -> list[str]:
    """The folders among *sources*, Hydra's search path."""
    return [source.path for source in sources if source.schema == "file" and source.path]


@functools.cache
def _named(folders: frozenset[str]) -> set[str]:
    """Every target in the files of *folders*."""
    files = [file for folder in folders for file in Path(folder).rglob("*.yaml")]
    return set().union(*(targets(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files))


def targets(node: Any) -> set[str]:
    """Every `_target_` in a tree of plain data."""
    if isinstance(node, list):
        return set().union(*map(targets, node))
    if not isinstance(node, dict):
        return set()
    here = {str(node["_target_"])} if "_target_" in node else set()
    return here.union(*map(targets, node.values()))
