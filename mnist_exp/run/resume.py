"""Resuming a run: its folder, its stored config, and what has changed since."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import config
from mnist_exp.config import Config, choices
from mnist_exp.config.identity import has_effect
from mnist_exp.config.overrides import is_control, key_of
from mnist_exp.config.schema import FOLLOWING, within
from mnist_exp.disk import ledger, provenance, trust
from mnist_exp.disk.layout import RunFolder
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ConfigError


def register() -> None:
    """Registers `run_folder` as a resolver of Hydra; can be repeated."""
    OmegaConf.register_new_resolver("mnist_exp.folder", run_folder, use_cache=True, replace=True)


def run_folder(root: str, name: str | None) -> str:
    """The folder of the run called *name* (see `results.names`; `last`: the newest in *root*); else a new one there.

    Raises:
        ConfigError: there is no such run on this machine.
    """
    if not name:
        return config.new_folder(root)
    from mnist_exp.results import names  # not for --help

    runs = Path(root)
    if name == "last":
        if newest := names.last(runs.parent, runs.name):
            return str(newest)
        raise ConfigError(f"There is no run in {root}.", "Train one first: python -m mnist_exp.train")
    selection = names.resolve(name, runs.parent)
    if selection.sweep:
        again = names.resuming(selection.home, selection.sweep.cluster)
        raise ConfigError(f"{selection.title} has many runs.", f"Go on with all of them:\n{again}")
    if len(selection.folders) != 1:
        raise ConfigError(f"{selection.title}: that is not one run on this machine.", "Give the folder of a run.")
    return str(selection.folders[0])


def stored(folder: Path, asked: Config, overrides: list[str]) -> Config:
    """The config of the run in *folder*, changed by *overrides*.

    Args:
        asked: The config of the resuming command, for its control settings.

    Raises:
        ConfigError: there is no such run, or an override does more than change a value.
    """
    before = trust.load(folder)
    typed = [o for o in overrides if not (is_control(o) or _is_so(o, folder, before, asked))]
    if chosen := [o for o in typed if key_of(o) in choices.groups()]:
        raise ConfigError(
            f"{' '.join(chosen)} cannot be changed in a run that exists.",
            "With resume=, change plain values only, such as tracking.enabled=false.",
        )
    try:
        plain = [o.lstrip("+") for o in typed]
        merged = OmegaConf.merge(OmegaConf.structured(before), OmegaConf.from_dotlist(plain))
        assert isinstance(merged, DictConfig)
        for group, key in FOLLOWING:  # what is stored has no references left
            if key in merged[group] and merged[key] != getattr(before, key):
                merged[group][key] = merged[key]
        now = config.typed(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{' '.join(typed)} cannot be changed in a run that exists.", "With resume=, change plain values only."
        ) from error
    if not trust.own(folder):
        now.tracking.uri, now.tracking.register = asked.tracking.uri, asked.tracking.register
    now.resume, now.force = asked.resume, asked.force
    return now


def _is_so(override: str, folder: Path, before: Config, asked: Config) -> bool:
    """Whether *override* chooses what the run in *folder* has: it was typed then, or comes to the same."""
    group, entry = key_of(override), ledger.find(folder)
    if group not in choices.groups():
        return False
    if group == "cluster" or (entry and override in entry.overrides):
        return True
    following = {f"{group}.{key}" for group, key in FOLLOWING}
    was, now = (
        [pair for pair in config.flatten(config.to_dict(each)).items() if within(pair[0], [group])]
        for each in (before, asked)
    )
    return bool(was) and [p for p in was if p[0] not in following] == [p for p in now if p[0] not in following]


def changed(folder: Path, entry: Ledger, now: Config) -> str:
    """How config, code and data differ from those of the run in *folder*, for the user; empty if they are the same.

    Raises:
        DataError: the images of *now* are missing or damaged.
    """
    from mnist_exp import data  # torch

    differences = []
    if entry.fingerprint.get("config") != config.fingerprint(now):
        try:
            before = config.flatten(config.to_dict(config.load(RunFolder(folder).config)))
        except ConfigError:
            before = {}
        after = config.flatten(config.to_dict(now))
        differences = [
            f"{key} was {before.get(key)}, now {after.get(key)}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) and has_effect(key)
        ] or ["the config has changed"]
    if entry.fingerprint.get("code") != provenance.code_fingerprint():
        differences.append("the code has changed")
    was = entry.fingerprint.get("data")
    if was and was != (here := data.digest(now.data)):
        differences.append(f"the images ({now.data.name}) were {was}, now {here}")
    return "; ".join(differences)
