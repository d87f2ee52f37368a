"""A key that is no setting: which one was meant, by its name, by the field's other names for it, or by its spelling."""

import difflib
from collections.abc import Iterable

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from mnist_exp.config import choices, schema
from mnist_exp.errors import ConfigError

OURS = {"local": "cluster=local", "grid": "search=grid", "race": "search=race", "optuna": "search=tpe"}
"""The launcher and the sweepers that `cluster=local` and `search=` choose, each with one way to choose it."""
CHOSEN = OURS | {"submitit_slurm": "cluster=slurm", "submitit_local": "cluster=slurm", "ray_cluster": "cluster=ray"}
"""How a launcher or sweeper is chosen, where not by `hydra/launcher=<name>`."""
SETTING_OF = {name: key for key, names in schema.SYNONYMS.items() for name in names.split()}
"""What the field also calls a setting → the setting."""


def unknown_key(path: str, typed: str = "") -> ConfigError:
    """The error for a key that is not in the schema, with the one that was probably meant.

    Args:
        typed: The override that names it.
    """
    where = f" (override '{typed}')" if typed else ""
    if path == "pruner":  # a group that only files of conf/search add
        return ConfigError(f"{path} is for a search{where}.", "Choose one, with -m: search=tpe")
    group, near, other = path.partition(".")[0], guess(path), _other(path)
    every = "Hydra's settings: python -m mnist_exp.train --cfg hydra"
    every = every if group == "hydra" else "All settings: python -m mnist_exp.train --help all"
    if path in choices.keywords():
        way_out = [_having(path), f"+{path}=… passes a keyword that is not listed."]
    elif near:
        way_out = [f"Did you mean '{near}'?", _having(near) or every]
    elif other:
        way_out = [f"It is an option of {other}.", every]
    elif group in choices.nodes():
        way_out = [f"--cfg job shows what the chosen {group} has; +{path}=… passes it a keyword that is not listed."]
    else:
        way_out = [every]
    return ConfigError(f"There is no setting '{path}'{where}.", " ".join(way_out))


def guess(path: str) -> str:
    """The setting, group or keyword that was probably meant by *path*, which is none; empty if nothing is near."""
    name = path.lower().replace("-", "_")
    head, _, last = name.rpartition(".")
    for each in (name, last):
        if each in SETTING_OF:
            return SETTING_OF[each]
    if _other(path):
        return ""
    known = [*schema.settings(), *choices.groups(), *choices.keywords()]
    if name.startswith("hydra."):
        known = ["n_trials", *(key for owner, keys in sweep_settings().items() if owner in OURS for key in keys)]
    inside = [key for key in known if key.rpartition(".")[0] == head]
    for keys, cutoff in ((inside, 0.6), ([key for key in known if "." not in key], 0.7), (known, 0.8)):
        ends = {key.rpartition(".")[2]: key for key in reversed(keys)}
        if near := closest(last, ends, cutoff):
            return ends[near]
    return SETTING_OF.get(closest(last, SETTING_OF, 0.85), "")


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The nearest of the *known* names; empty if none is near."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), "")


def sweep_settings() -> dict[str, list[str]]:
    """The options of every installed launcher and sweeper, as one types them, by its name."""
    Plugins.instance()  # registers them
    store = ConfigStore.instance()
    return {
        file.removesuffix(".yaml"): [f"hydra.{group}.{key}" for key in store.load(f"hydra/{group}/{file}").node]
        for group in ("launcher", "sweeper")
        for file in store.list(f"hydra/{group}")
    }


def _other(path: str) -> str:
    """How the launcher or sweeper, besides those that are chosen, with the option *path* is chosen; or empty."""
    kind = path.split(".")[1] if path.count(".") > 1 else ""
    owners = [name for name, keys in sweep_settings().items() if path in keys]
    return " or ".join(dict.fromkeys(CHOSEN.get(name, f"hydra/{kind}={name}") for name in owners))


def _having(key: str) -> str:
    """Which options have the keyword *key*, if not all options of its group do."""
    group, names = key.partition(".")[0], choices.keywords().get(key, [])
    if not names or names == choices.options(group):
        return ""
    return f"Of {group}=…, {', '.join(names)} {'has' if len(names) == 1 else 'have'} it."
