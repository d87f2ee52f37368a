"""Errors of Hydra and OmegaConf about an override, in the user's terms."""

import difflib
import re
import traceback
from pathlib import Path

from hydra.errors import OverrideParseException

from mnist_exp.config import schema
from mnist_exp.config.loading import deleted_key, unknown_key
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
    chain = [text]
    cause = error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, ConfigError):  # ours, raised inside a resolver
            return cause
        chain.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    everything = "\n".join(chain)
    if match := re.search(r"Could not override '([^']+)'", text):
        return unknown_key(match[1], _override(match[1], typed))
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
    if key := _full_key(everything) or _merged_key(text):
        about = next((each for each in chain if "full_key:" in each), text)
        return _wrong_value(key, everything, reason=about.splitlines()[0])
    if is_bad_choice(error):
        return ConfigError(
            "A group takes the name of one of its options, not null, a number or a list.",
            "Drop it, or see the options: python -m mnist_exp.train --help",
        )
    if "Could not find 'hydra/launcher/submitit_slurm'" in text:
        return extra_missing("slurm")
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        options = re.search(r"Available options in '[^']+':\n((?:\t.*\n?)+)", text)
        names = [n.strip() for n in options[1].splitlines()] if options else []
        near = difflib.get_close_matches(match[2], names, n=1)
        guess = f"Did you mean '{match[1]}={near[0]}'? " if near else ""
        return ConfigError(f"There is no {match[1]} called '{match[2]}'.", f"{guess}There are: {', '.join(names)}")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ConfigError(" ".join(lines[:2]) or type(error).__name__, "See python -m mnist_exp.train --help")


def extra_missing(cluster: str) -> ConfigError:
    """The error for `cluster=…` where the packages of the extra of that name are missing."""
    return ConfigError(
        f"cluster={cluster} needs packages that are not installed.", f'Install them: pip install -e ".[{cluster}]"'
    )


def _wrong_value(key: str, text: str, reason: str) -> ConfigError:
    """The error for the value of *key*, given OmegaConf's messages in *text*; *reason* is the first line about it."""
    if match := re.search(r"Value '?(.*?)'? (?:of type '\w+' could not be converted to|is not a valid) (\w+)", text):
        kinds = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
        return ConfigError(f"{key} must be {kinds.get(match[2], match[2])}, but got {match[1]!r}.", _rule(key))
    if match := re.search(r"Invalid value '(.*?)', expected one of \[(.*?)\]", text):
        return ConfigError(f"{key} must be one of {match[2]}, but got {match[1]!r}.")
    if "is not Optional" in text:
        return ConfigError(f"{key} must have a value, but got null.", _rule(key))
    if "does not support deletion" in text:
        return deleted_key(key)
    return ConfigError(f"{key}: {reason}.", _rule(key))


def _override(key: str, typed: list[str]) -> str:
    """The override of *key*, as it was typed."""
    return next((each for each in typed if key_of(each) == key), "")


def _full_key(text: str) -> str:
    match = re.search(r"full_key: (\S+)", text)
    return match[1] if match else ""


def _merged_key(text: str) -> str:
    match = re.search(r"override (?:\+\+?)?([^\s=]+)=", text)
    return match[1] if match else ""


def _rule(key: str) -> str:
    """What `--help` says about *key*."""
    if not (setting := schema.settings().get(key)):
        return ""
    return f"{key}: {setting.help}" + (f" ({setting.rule.text})" if setting.rule.text else "")
