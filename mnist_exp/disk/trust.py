"""Whose a run or a sweep is, and what one from elsewhere may do.

A stored config names code (`_target_`, packages, classes of torchvision), folders and addresses, and a folder may hold
links. What lies in `outputs/runs` or `outputs/sweeps` of the working folder is the user's own work, and does what it
says. Any other folder may be anybody's: it is read as data. It calls only what a file of the user's `conf/` names (or
of `--config-dir`), or an optimiser of torch; its images come from where the user's `conf/data` says; MLflow is the one
of the present command; and nothing is written into it if it has a link.
"""

import dataclasses
import functools
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import config
from mnist_exp.config import Config, Data, schema
from mnist_exp.config.overrides import key_of, split
from mnist_exp.config.schema import Kind
from mnist_exp.errors import ConfigError

log = logging.getLogger(__name__)

KNOWN = re.compile(r"(torch\.optim|optuna\.samplers|optuna\.pruners)\.[A-Z]\w*")
"""Targets that only make what they are called."""
PRIVATE = schema.of(Kind.PRIVATE)
"""Settings that are never taken from elsewhere: what is fetched and read, and where runs are reported."""
SOURCES = tuple(key.removeprefix("data.") for key in PRIVATE if key.startswith("data."))
"""Settings of `Data` that say where images come from, and which bytes are theirs."""
RECORDS = {"ledger.json", "sweep.json"}
"""A folder with one of these is a run's or a sweep's: its files are not the user's config."""


def own(folder: Path) -> bool:
    """Whether *folder* lies where this program puts what the user starts."""
    place = folder.resolve()
    return any(place.is_relative_to(Path("outputs", kind).resolve()) for kind in ("runs", "sweeps"))


def load(folder: Path) -> Config:
    """The config of the run in *folder*, fit to be built; of one from elsewhere without its `PRIVATE` settings.

    Raises:
        ConfigError: as `config.load` and `check`.
    """
    found = config.load(folder / "config.yaml")
    if own(folder):
        return found
    check(config.to_dict(found), folder)
    stored = dataclasses.replace(found)
    found.data = dataclasses.replace(found.data, **_sources(found.data.name))
    found.tracking = dataclasses.replace(found.tracking, uri=None, register=None)
    for group, key in (setting.split(".") for setting in PRIVATE):
        value = getattr(getattr(stored, group), key)
        if value and value != getattr(getattr(found, group), key):
            log.warning(
                "%s is not below outputs/runs: its %s.%s is not used. If it is yours, keep it there, or type that "
                "setting again with resume=.",
                *(folder, group, key),
            )
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
    named = _named(tuple(_files(conf)))
    strangers = sorted(target for target in targets(plain) - named if not KNOWN.fullmatch(target))
    if strangers:
        raise ConfigError(
            f"{folder} comes from elsewhere and would call {', '.join(strangers)}, which no file of conf/ names.",
            "If you trust it, give it a file of its own, such as conf/model/<name>.yaml with that _target_.",
        )


def reaches(override: str) -> bool:
    """Whether *override* does more than set a value and choose an option of `conf/`."""
    key, value = key_of(override), split(override)[2]
    whole = any(private.startswith(f"{key}.") for private in PRIVATE)  # of a group: its option, and not a mapping
    named = schema.within(key, PRIVATE)
    return named or "${" in override or ".." in override or (whole and not re.fullmatch(r"[\w,-]*", value))


def check_links(folder: Path) -> None:
    """Refuses a *folder* from elsewhere that has a link: what is written there would be written where it leads.

    Raises:
        ConfigError: it has one.
    """
    if own(folder):
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


def _files(conf: Iterable[str] = ()) -> list[Path]:
    """The user's config files: of `conf/`, of *conf*, and of the Hydra job that this is; none of a run or a sweep."""
    if HydraConfig.initialized():
        conf = [*conf, *files_of(HydraConfig.get().runtime.config_sources)]
    found = []
    for place, folders, names in (each for top in {config.conf_dir(), *conf} for each in os.walk(top)):
        if RECORDS.intersection(names):
            folders.clear()
        else:
            found += [Path(place, name) for name in names if name.endswith(".yaml")]
    return sorted(found)


def _sources(name: str) -> dict[str, Any]:
    """`SOURCES` of the dataset *name*, as the user's `conf/data` has them; without such a file there are none."""
    nothing = {key: getattr(Data(), key) for key in SOURCES}
    for path in _files():
        if path.parent.name == "data" and (found := _dataset(path)).get("name") == name:
            return nothing | {key: found[key] for key in SOURCES if key in found}
    return nothing


def _dataset(path: Path) -> dict[str, Any]:
    """What the file *path* of `conf/data` sets, with the options of the same folder that it begins with."""
    try:
        node: Any = OmegaConf.load(path)
        found: dict[str, Any] = {}
        for option in node.get("defaults", []):
            found |= _dataset(path.with_name(f"{option}.yaml")) if option != "_self_" else {}
        return found | {key: _plain(node[key]) for key in node if key != "defaults"}
    except (OSError, yaml.YAMLError, OmegaConfBaseException):  # such as a reference to what only a whole config has
        return {}


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


@functools.cache
def _named(files: tuple[Path, ...]) -> set[str]:
    """Every target in *files*."""
    return set().union(*(targets(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files))


def targets(node: Any) -> set[str]:
    """Every `_target_` in a tree of plain data."""
    if isinstance(node, list):
        return set().union(*map(targets, node))
    if not isinstance(node, dict):
        return set()
    here = {str(node["_target_"])} if "_target_" in node else set()
    return here.union(*map(targets, node.values()))
