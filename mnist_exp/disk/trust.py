"""Own and foreign folders, and the limits of a foreign one.

A stored config names code (`_target_`, packages, classes of torchvision), folders and addresses, and a folder may hold
links. A run or sweep in `outputs/runs` or `outputs/sweeps` of the working folder is the user's own, and is trusted. Any
other folder is foreign, and is read as data: it may call only targets that a file of the user's `conf/` (or of
`--config-dir`) names, and optimisers of torch; its images come from the sources in the user's `conf/data`; MLflow is
that of the present command; and with a link or a pipe in it, it is not opened.
"""

import copy
import functools
import logging
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import config, system
from mnist_exp.config import Config, schema
from mnist_exp.config.overrides import key_of, split, steers
from mnist_exp.config.schema import Kind
from mnist_exp.config.stores import started_in
from mnist_exp.disk.layout import RunFolder, SweepFolder
from mnist_exp.errors import ConfigError

log = logging.getLogger(__name__)

KNOWN = re.compile(r"(torch\.optim|optuna\.samplers|optuna\.pruners)\.[A-Z]\w*")
"""Constructors without side effects: always allowed."""
PRIVATE = schema.of(Kind.PRIVATE)
"""Settings that are never taken from a foreign folder: what is fetched and read, and where results are sent."""
TYPED = (*PRIVATE, *schema.of(Kind.CONTROL))
"""Settings that no plan of a foreign sweep may have: those, and what says with what a command goes on."""
RECORDS = {RunFolder.ledger, SweepFolder.plan}
"""A folder with one of these is a run's or a sweep's: its files are not the user's config."""


def own(folder: Path) -> bool:
    """Whether *folder* lies where this program puts the user's runs and sweeps."""
    path = folder.resolve()
    return any(path.is_relative_to((started_in() / "outputs" / kind).resolve()) for kind in ("runs", "sweeps"))


def load(folder: Path) -> Config:
    """The config of the run in *folder*, safe to be built; of a foreign one without its `PRIVATE` settings.

    Raises:
        ConfigError: as `config.load` and `check`.
    """
    stored = config.load(RunFolder(folder).config)
    if own(folder):
        return stored
    check({**config.to_dict(stored), "callbacks": {}}, folder)  # they are dropped
    safe, mine = copy.deepcopy(stored), _sources(stored.data.name)
    for key in PRIVATE:
        group, _, name = key.rpartition(".")
        part = getattr(safe, group) if group else safe
        value, allowed = getattr(part, name), mine.get(key, schema.settings()[key].default)
        setattr(part, name, copy.copy(allowed))
        if value and value != allowed:
            log.warning(
                "%s is not below outputs/runs: its %s is not used. If it is yours, keep it there, or type that "
                "setting again with resume=.",
                *(folder, key),
            )
    if stored.init:
        safe.init = "@" + stored.init.rpartition("@")[2]  # what it began with; it goes on from its checkpoint
    return safe


def check(plain: dict[str, Any], folder: Path, conf: Iterable[str] = ()) -> None:
    """Refuses *plain*, part of a config from *folder*, if that is foreign and would call a target that is not allowed.

    Args:
        conf: Folders of config files, besides `conf/` and those of the present Hydra job.

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
    """Whether *override* does more than set a value or choose an option of `conf/`."""
    key, value = key_of(override), split(override)[2]
    whole = any(private.startswith(f"{key}.") for private in PRIVATE)  # of a group: its option, and not a mapping
    hydras = "hydra" in key and (not steers(override) or schema.within(key, schema.PRIVATE_OPTIONS))
    named = hydras or schema.within(key, TYPED)
    return named or "${" in override or ".." in override or (whole and not re.fullmatch(r"[\w,-]*", value))


def check_entries(folder: Path) -> None:
    """Refuses a foreign *folder* with anything but folders and files of its own.

    What is written to a link, or to a file with a second name elsewhere, would land there; who reads a pipe waits.

    Raises:
        ConfigError: it has one.
    """
    if own(folder):
        return
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if what := _fault(path.lstat()):
                reason = f"{folder} comes from elsewhere, and {path.relative_to(folder)} in it is {what}."
                raise ConfigError(reason, "If you trust it, copy it without: rsync -rL --no-specials --no-devices")


def _fault(entry: os.stat_result) -> str:
    """What *entry* is, unless it is a folder, or a file with one name."""
    if stat.S_ISLNK(entry.st_mode):
        return "a symbolic link"
    if stat.S_ISREG(entry.st_mode):
        if system.hollow(entry):
            return "a file of holes, which fills the memory and no disk"
        return "a hard link: it has a second name" if entry.st_nlink > 1 else ""
    return "" if stat.S_ISDIR(entry.st_mode) else "a pipe, a socket or a device"


def files_of(sources: Iterable[Any]) -> list[str]:
    """The folders in *sources*, Hydra's search path."""
    return [source.path for source in sources if source.schema == "file" and source.path]


def _files(conf: Iterable[str] = ()) -> list[Path]:
    """The user's config files: of `conf/`, of *conf*, and of the present Hydra job; none of a run or a sweep."""
    if HydraConfig.initialized():
        conf = [*conf, *files_of(HydraConfig.get().runtime.config_sources)]
    files: list[Path] = []
    for parent, folders, names in (each for top in {config.conf_dir(), *conf} for each in os.walk(top)):
        if RECORDS.intersection(names):
            folders.clear()
        else:
            files += [Path(parent, name) for name in names if name.endswith(".yaml")]
    return sorted(files)


def _sources(name: str) -> dict[str, Any]:
    """Settings of the dataset *name* in the user's `conf/data`, by their dotted keys; none if no file has that name."""
    for path in _files():
        if path.parent.name == "data" and (dataset := _dataset(path)).get("name") == name:
            return {f"data.{key}": value for key, value in dataset.items()}
    return {}


def _dataset(path: Path) -> dict[str, Any]:
    """The settings in the file *path* of `conf/data`, with the options of the same folder in its defaults list."""
    try:
        node: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True, throw_on_missing=True)
        settings: dict[str, Any] = {}
        for option in node.pop("defaults", []):
            settings |= _dataset(path.with_name(f"{option}.yaml")) if option != "_self_" else {}
        return {**settings, **node}
    except (OSError, TypeError, yaml.YAMLError, OmegaConfBaseException):  # a list, or a reference into another file
        return {}


@functools.cache
def _named(files: tuple[Path, ...]) -> set[str]:
    return set().union(*(targets(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files))


def targets(node: Any) -> set[str]:
    """All `_target_` values in a tree of plain data."""
    if isinstance(node, list):
        return set().union(*map(targets, node))
    if not isinstance(node, dict):
        return set()
    here = {str(node["_target_"])} if "_target_" in node else set()
    return here.union(*map(targets, node.values()))
