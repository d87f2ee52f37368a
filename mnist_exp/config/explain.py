"""Errors of Hydra and OmegaConf about an override, in the user's terms."""

import difflib
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.errors import OverrideParseException

from mnist_exp.config import schema
from mnist_exp.config.overrides import key_of, split
from mnist_exp.errors import ConfigError, first_line


def is_bad_choice(error: Exception) -> bool:
    """Whether Hydra failed, without an error of its own, at the option of a group, such as experiment=null."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error) in (ValueError, TypeError) and any(Path(f.filename).name == "defaults_list.py" for f in frames)


def translate(error: Exception, typed: list[str]) -> ConfigError:
    """The error of Hydra or OmegaConf as one of ours.

    Args:
        typed: The overrides of the command, of which the error names one.
    """
    text = str(error)
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        if isinstance(cause, ConfigError):  # ours, raised inside a resolver
            return cause
        chain.append(cause)
    texts = [str(each) for each in chain]
    everything = "\n".join(texts)
    if match := re.search(r"Could not override '([^']+)'", text):
        return unknown_key(match[1], next((each for each in typed if key_of(each) == match[1]), ""))
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        _, _, value = split(match[1])
        return ConfigError(
            f"'{match[1]}' names several values for one run.",
            f"Add -m to sweep over them, or write {match[1].removesuffix(value)}[{value}] for a list.",
        )
    if isinstance(error, OverrideParseException):
        return ConfigError(
            f"An override cannot be read: {first_line(error)}",
            "Put special characters into quotes twice: 'name=\"what I mean\"'.",
        )
    merged = r"override (?:\+\+?)?([^\s=]+)="
    if match := re.search(r"full_key: (\S+)", everything) or re.search(merged, text):
        about = next((each for each in texts if "full_key:" in each), text)
        return _wrong_value(match[1], everything, reason=about.splitlines()[0])
    if is_bad_choice(error):
        return ConfigError(
            "A group takes the name of one of its options, not null, a number or a list.",
            "Drop it, or see the options: python -m mnist_exp.train --help",
        )
    if "Could not find 'hydra/launcher/submitit_slurm'" in text:
        return extra_missing("slurm")
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        options = re.search(r"Available options in '[^']+':\n((?:\t.*\n?)+)", text)
        names = options[1].split() if options else []
        guess = _guess(match[2], names, f"{match[1]}=")
        return ConfigError(f"There is no {match[1]} called '{match[2]}'.", f"{guess}There are: {', '.join(names)}")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ConfigError(" ".join(lines[:2]) or type(error).__name__, "See python -m mnist_exp.train --help")


def extra_missing(cluster: str) -> ConfigError:
    """The error for `cluster=…` where the packages of the extra of that name are missing."""
    install = f'Install them: pip install -e ".[{cluster}]"'
    return ConfigError(f"cluster={cluster} needs packages that are not installed.", install)


def unknown_key(path: str, typed: str = "") -> ConfigError:
    """The error for a key that is not in the schema, with the nearest one that is.

    Args:
        typed: The override that names it.
    """
    where = f" (override '{typed}')" if typed else ""
    if path == "pruner":  # a group that only files of conf/search add
        return ConfigError(f"{path} is for a search{where}.", "Choose one, with -m: search=tpe")
    group, _, keyword = path.partition(".")
    if group == "hydra":
        way_out = f"{_guess(path, sweep_settings(), cutoff=0.8)}Hydra's settings: python -m mnist_exp.train --cfg hydra"
    elif keyword and group in schema.settings() and schema.settings()[group].default == {}:
        way_out = f"--cfg job shows what the chosen {group} has; +{path}=… passes it a keyword that is not listed."
    else:
        way_out = f"{_guess(path, schema.settings(), cutoff=0.5)}All settings: python -m mnist_exp.train --help"
    return ConfigError(f"There is no setting '{path}'{where}.", way_out)


def deleted_key(path: str) -> ConfigError:
    """The error for `~key`: the schema has no optional parts."""
    return ConfigError(f"{path} was deleted, but every run needs it.", f"Drop '~{path}'.")


def sweep_settings() -> list[str]:
    """The options of every installed launcher and sweeper, as one types them."""
    store, keys = ConfigStore.instance(), []
    for group in ("launcher", "sweeper"):
        for file in store.list(f"hydra/{group}"):
            keys += [f"hydra.{group}.{key}" for key in store.load(f"hydra/{group}/{file}").node]
    return keys


def _guess(name: str, known: Iterable[str], prefix: str = "", cutoff: float = 0.6) -> str:
    """The question whether the nearest of the *known* names was meant; empty if none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"Did you mean '{prefix}{near[0]}'? " if near else ""


def _wrong_value(key: str, text: str, reason: str) -> ConfigError:
    """The error for the value of *key*, given OmegaConf's messages in *text*; *reason* is the first line about it."""
    rule = ""
    if setting := schema.settings().get(key):  # as in --help
        rule = f"{key}: {setting.help}" + (f" ({setting.rule.text})" if setting.rule.text else "")
    if match := re.search(r"Value '?(.*?)'? (?:of type '\w+' could not be converted to|is not a valid) (\w+)", text):
        kinds = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
        return ConfigError(f"{key} must be {kinds.get(match[2], match[2])}, but got {match[1]!r}.", rule)
    if match := re.search(r"Invalid value '(.*?)', expected one of \[(.*?)\]", text):
        return ConfigError(f"{key} must be one of {match[2]}, but got {match[1]!r}.")
    if "is not Optional" in text:
        return ConfigError(f"{key} must have a value, but got null.", rule)
    if "does not support deletion" in text:
        return deleted_key(key)
    return ConfigError(f"{key}: {reason}.", rule)
