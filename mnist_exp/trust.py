"""Whose a run or a sweep is, and what one from elsewhere may do.

A stored config names code (`_target_`, packages, classes of torchvision), folders and addresses, and a folder may hold
links. What lies in `outputs/runs` or `outputs/sweeps` of the working folder is the user's own work, and does what it
says. Any other folder may be anybody's: it is read as data. It calls only what a file of the user's `conf/` names (or
of `--config-dir`), or an optimiser of torch; its images come from where the user's `conf/data` says; MLflow is the one
of the present command; and nothing is written into it if it has a link.
"""

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import config
from mnist_exp.config import Config, Data
from mnist_exp.errors import ConfigError

KNOWN = re.compile(r"(torch\.optim|optuna\.samplers|optuna\.pruners)\.[A-Z]\w*")
"""Targets that only make what they are called."""
SOURCES = ("root", "torchvision", "package", "sha256")
"""Settings of `Data` that say where images come from, and which ones are thrown away as damaged."""


def own(folder: Path) -> bool:
    """Whether *folder* lies where this program puts what the user starts."""
    place = folder.resolve()
    return any(place.is_relative_to(Path("outputs", kind).resolve()) for kind in ("runs", "sweeps"))


def load(folder: Path) -> Config:
    """The config of the run in *folder*, fit to be built; of one from elsewhere without its sources and its store.

    Raises:
        ConfigError: as `config.load` and `check`.
    """
    found = config.load(folder / "config.yaml")
    if own(folder):
        return found
    check(config.to_dict(found), folder)
    sources = _sources(found.data.name, _folders())
    here = dataclasses.replace(found.tracking, uri=None, register=None)
    return dataclasses.replace(found, data=dataclasses.replace(found.data, **sources), tracking=here)


def check(plain: dict[str, Any], folder: Path, conf: Iterable[str] = ()) -> None:
    """Refuses *plain*, part of a config out of *folder*, if that is from elsewhere and would call what is not named.

    Args:
        conf: Folders of config files, besides `conf/` and those of the Hydra job that this is.

    Raises:
        ConfigError: it would.
    """
    if own(folder):
        return
    named = _named(_folders(conf))
    strangers = sorted(target for target in targets(plain) - named if not KNOWN.fullmatch(target))
    if strangers:
        raise ConfigError(
            f"{folder} comes from elsewhere and would call {', '.join(strangers)}, which no file of conf/ names.",
            "If you trust it, give it a file of its own, such as conf/model/<name>.yaml with that _target_.",
        )


def check_composed(found: Config, asked: DictConfig, folder: Path) -> None:
    """As `check`, for *found*, composed from overrides that came with *folder*.

    Args:
        asked: The whole config of the present command.

    Raises:
        ConfigError: as `check`; or the overrides choose where images come from, or where to track.
    """
    if own(folder):
        return
    plain, conf = config.to_dict(found), files_of(asked.hydra.runtime.config_sources)
    check(plain, folder, conf)
    usual = {f"data.{key}": value for key, value in _sources(found.data.name, _folders(conf)).items()}
    for key in (*usual, "tracking.uri"):
        group, _, name = key.partition(".")
        value = plain[group][name]
        if value not in (usual.get(key), _plain(OmegaConf.select(asked, key))):
            raise ConfigError(
                f"{folder} comes from elsewhere and has {key}={config.as_typed(value)}, which is not taken from there.",
                f"If you want that, type {key}=… with resume=. If the sweep is yours, keep it below outputs/sweeps.",
            )


def check_links(folder: Path) -> None:
    """Refuses a *folder* from elsewhere that has a link: what is written there would be written where it leads.

    Raises:
        ConfigError: it has one.
    """
    if own(folder) or Path.cwd().is_relative_to(folder.resolve()):
        return
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            if path.is_symlink():
                found = f"{path.relative_to(folder)} in it is a link to {path.readlink()}"
                raise ConfigError(
                    f"{folder} comes from elsewhere, and {found}.",
                    "If you trust it, copy it without links: cp -rL",
                )


def files_of(sources: Iterable[Any]) -> list[str]:
    """The folders among *sources*, Hydra's search path."""
    return [source.path for source in sources if source.schema == "file" and source.path]


def _folders(conf: Iterable[str] = ()) -> frozenset[str]:
    """Where the user's config files are: `conf/`, *conf*, and the folders of the Hydra job that this is."""
    if HydraConfig.initialized():
        conf = [*conf, *files_of(HydraConfig.get().runtime.config_sources)]
    return frozenset([config.conf_dir(), *conf])


def _sources(name: str, folders: Iterable[str]) -> dict[str, Any]:
    """`SOURCES` of the dataset *name*, as the user's `conf/data` has them; without such a file there are none."""
    found = {key: getattr(Data(), key) for key in SOURCES}
    for path in (path for folder in folders for path in sorted(Path(folder, "data").glob("*.yaml"))):
        with contextlib.suppress(OmegaConfBaseException):  # it refers to what only a whole config has
            node: Any = OmegaConf.load(path)
            if node.get("name") == name:
                return found | {key: _plain(node[key]) for key in SOURCES if key in node}
    return found


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


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
