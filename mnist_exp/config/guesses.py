"""What was meant by a key that is no setting, and by a value that its setting does not take.

A key is known by its name, by the field's other names for it, or by its spelling.
"""

import contextlib
import difflib
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config import choices, schema
from mnist_exp.config.overrides import as_typed
from mnist_exp.errors import ConfigError

NOTHING = ("off", "none", "no", "null", "nil", "false", "")
"""How people say that they want nothing."""
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
    if path.partition(".")[0] == "tags":
        tag = path if "." in path else "tags.why"
        return ConfigError(f"tags holds names with values, and each is added{where}.", f"Write +{tag}=…")
    group, near, other = path.partition(".")[0], guess(path), _other(path)
    every = "Hydra's settings: python -m mnist_exp.train --cfg hydra"
    every = every if group == "hydra" else "All settings: python -m mnist_exp.train --help all"
    if path in choices.keywords():
        way_out = [having(path), f"+{path}=… passes a keyword that is not listed."]
    elif near:
        way_out = [f"Did you mean '{near}'?", having(near) or every]
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
    if near := SETTING_OF.get(name) or SETTING_OF.get(last):
        return near
    if _other(path):
        return ""
    known = [*schema.settings(), *choices.groups(), *choices.keywords()]
    if name.startswith("hydra."):
        known = ["n_trials", *(key for owner, keys in sweep_settings().items() if owner in OURS for key in keys)]
    if head and last in ("name", "type", "kind", "class"):
        return head if head in choices.groups() else guess(head)
    if exact := sorted((key for key in known if key.rpartition(".")[2] == last), key=lambda key: key.count(".")):
        return exact[0]
    inside = [key for key in known if key.rpartition(".")[0] == head]
    for keys, cutoff in ((inside, 0.6), ([key for key in known if "." not in key], 0.7), (known, 0.8)):
        ends = {key.rpartition(".")[2]: key for key in reversed(keys)}
        if near := closest(last, ends, cutoff):
            return ends[near]
    return SETTING_OF.get(closest(last, SETTING_OF, 0.85), "")


def written(key: str, value: str) -> str:
    """The override that was probably meant by *key* with *value*, which may be empty; empty if nothing is near."""
    near = key if choices.known(key) else guess(key)
    return near if "=" in near or not near else f"{near}={value or '…'}"


def likely(name: str, known: Iterable[str]) -> str:
    """The question whether one of the *known* names was meant; empty if none is near."""
    near = difflib.get_close_matches(name, known)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The nearest of the *known* names; empty if none is near."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), "")


def meant(key: str, typed: Any) -> str:
    """How *typed*, which the setting *key* does not take, was probably meant, as a way out; empty if unknown."""
    value = next((value for value in _readings(key, typed) if takes(key, value)), "")
    return "" if value == "" else f"Write {shlex.quote(f'{key}={as_typed(value)}')}"


def takes(key: str, value: Any) -> bool:
    """Whether *key* is a setting of the schema that may have that *value*, by its type and its rule."""
    if key not in schema.settings():
        return False
    with contextlib.suppress(OmegaConfBaseException, ConfigError):
        config = OmegaConf.structured(schema.Config)
        OmegaConf.update(config, key, value)
        kept = OmegaConf.select(config, key)
        schema.settings()[key].check(OmegaConf.to_object(kept) if OmegaConf.is_config(kept) else kept)
        return True
    return False


def _readings(key: str, typed: Any) -> Iterator[Any]:
    """What *typed* may stand for: nothing, a number, several, or one of the words that the rule of *key* names."""
    if isinstance(typed, list):
        yield [_number(part) for each in typed for part in re.split(r"[\s;|]+", str(each).strip())]
        return
    setting, text = schema.settings().get(key), str(typed).strip().lower()
    if text in NOTHING and setting and setting.default is None:
        yield None
    if (number := _number(text)) is not None:
        yield number
    yield [_number(each) for each in re.split(r"[\s,;:|/x-]+", text)]
    allowed = re.split(", | or ", setting.rule.text) if setting else []
    if near := closest(text, allowed, 0.7):
        yield near


def _number(text: str) -> float | None:
    """The number that *text* is: `1e2`, `0x10`, `10%`, `1/8` or `10^-3`; whole ones as such."""
    with contextlib.suppress(ValueError):
        return int(text, 0)
    power = re.fullmatch(r"(\d+)(?:\^|\*\*)(-?\d{1,2})", text)
    share = re.fullmatch(r"([\d.]+)(?:/(\d*[1-9]\d*)|%)", text)
    with contextlib.suppress(ValueError, OverflowError):
        number = float(power[1]) ** int(power[2]) if power else float(share[1] if share else text)
        number /= float(share[2] or 100) if share else 1
        return int(number) if number.is_integer() else number
    return None


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


def having(key: str) -> str:
    """Which options have the keyword *key*, if not all options of its group do."""
    group, names = key.partition(".")[0], choices.keywords().get(key, [])
    if not names or names == choices.options(group):
        return ""
    return f"Of {group}=…, {', '.join(names)} {'has' if len(names) == 1 else 'have'} it."
