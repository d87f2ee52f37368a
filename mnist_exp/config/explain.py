"""Errors of Hydra and OmegaConf about an override, in the user's terms."""

import re
import shlex
import traceback
from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config import choices, schema
from mnist_exp.config.chosen import LONGEST, File, fault, holds_names, in_file, located
from mnist_exp.config.guesses import NOTHING, closest, guess, meant, takes, unknown_key
from mnist_exp.config.overrides import deleted_key, for_a_sweep, key_of, split
from mnist_exp.config.sweeps import reads
from mnist_exp.config.unreadable import unreadable
from mnist_exp.errors import ConfigError

NO_YAML = {
    r"'\t'": "Indent with spaces, not with tabs.",
    "mapping values": "Indent it as the lines beside it, or quote a text that holds a colon.",
    "expected ','": "Close the bracket of line {began}.",
    "end of stream": "Close the quotes of line {began}.",
    "any token": "Quote a text that begins with it.",
    "alias": "Quote a text that begins with *.",
    "expected ':'": "Write a name, a colon, a blank and a value.",
}
"""What PyYAML says of a file → the way out; the line is that where the bracket or the quotes began."""


def explained(error: Exception, typed: Sequence[str]) -> Exception:
    """*error* as one of ours, with the file and line that it is about; itself if it is not Hydra's or OmegaConf's.

    Args:
        typed: The overrides of the command.
    """
    if isinstance(error, (HydraException, OmegaConfBaseException, yaml.YAMLError)) or is_bad_choice(error):
        error = translate(error, typed)
    return located(error, typed) if isinstance(error, ConfigError) else error


def is_bad_choice(error: Exception) -> bool:
    """Whether Hydra failed, without an error of its own, at the option of a group, such as experiment=null."""
    frames = traceback.extract_tb(error.__traceback__)
    kinds = (ValueError, TypeError, RecursionError)
    return type(error) in kinds and any(Path(f.filename).name == "defaults_list.py" for f in frames)


def translate(error: Exception, typed: Sequence[str]) -> ConfigError:
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
    if match := re.search(r"Sweep parameters '(.+)' requires --multirun", text):
        return for_a_sweep(match[1], typed)
    if match := re.search(r"Ambiguous value for argument '(.+)'", text):
        return _several(match[1])
    if isinstance(error, OverrideParseException):
        return unreadable(error.override, typed, text)
    if in_a_file := fault(typed):
        return in_a_file
    if "Could not override 'hydra.sweeper.dry_run'" in text:
        return ConfigError("--dry-run is for the sweepers that search= chooses.", "Leave hydra/sweeper out.")
    if match := re.search(r"Could not override '([^']+)'", text):
        return unknown_key(match[1], next((each for each in typed if key_of(each) == match[1]), ""))
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        way_out = next(
            (out for problem, out in NO_YAML.items() if problem in (error.problem or "")), "Put that file right."
        )
        began = (error.context_mark or mark).line + 1
        return in_file(Path(mark.name), mark, f"{error.problem}.", way_out.format(began=began))
    if match := re.search(r"Multiple values for ([^.\s]+)", text):
        return ConfigError(f"{match[1]} is chosen already.", f"Write it without +: {match[1]}=…")
    if match := re.search(r"An item is already at '([^']+)'", text):
        already = ConfigError(f"{match[1]} is a setting already.", f"Write it without +: {match[1]}=…")
        return unknown_key(match[1]) if match[1] == "tags" else already
    if match := re.search(r"Could not delete (?:from config\. )?'([^']+)'", text):
        return ConfigError(f"'~{match[1]}' deletes what is not there.", "Drop it.")
    if match := re.search(r"Cannot find primary config '([^']+)'", text):
        way_out = "Drop --config-name; files of your own are choices."
        return ConfigError(f"There is no config called '{match[1]}' beside ours.", way_out)
    if match := re.search(r"Additional config directory '([^']+)' not found", text):
        return ConfigError(f"--config-dir: there is no folder {match[1]}.", "Name one that is there.")
    if match := re.match(r"In '([^']+)': ConfigKeyError[\s\S]*full_key: (\S+)", text):
        return _unknown_in_file(match[1], match[2], typed)
    if match := re.match(r"In '([^']+)':[\s\S]*Merge error: \w+ is not a subclass of \w+\. value: (.*)", text):
        reason = f"{match[1]}.yaml: {match[2]} stands where names with values belong."
        return ConfigError(reason, "Write them below it.")
    merged = r"override (?:\+\+?)?([^\s=]+)="
    if match := re.search(r"full_key: (\S+)", everything) or re.search(merged, text):
        about = next((each for each in texts if "full_key:" in each), text)
        return _wrong_value(match[1], everything, reason=about.splitlines()[0])
    if is_bad_choice(error):
        if any(key_of(each) == "hydra" for each in typed):
            return holds_names("hydra")
        idle = [
            key
            for key, _, value in map(split, typed)
            if value.lower() in NOTHING and value not in choices.options(key) and choices.nothing(key)
        ]
        way_out = f"Write {choices.nothing(idle[0])}. " if idle else ""
        return ConfigError(
            "A group takes the name of one of its options, not null, a number or a list.",
            f"{way_out}See the options: python -m mnist_exp.train --help. "
            "In a file, off, on, yes and no need quotes: 'off'",
        )
    if "Could not find 'hydra/launcher/submitit_slurm'" in text:
        return extra_missing("slurm")
    if match := re.search(r"Could not find '([^']+)/([^'/]*)'", text):
        if match[1].partition("/")[0] == "data" and "/" in match[1]:
            path = f"{match[1]}/{match[2]}".removeprefix("data/")
            way_out = f"Pictures of your own: data=folder data.root={path}"
            return ConfigError(f"There is no data called '{path}'.", way_out)
        options = re.search(r"Available options in '[^']+':\n((?:\t.*\n?)+)", text)
        names = options[1].split() if options else []
        near = closest(match[2].lower(), names)
        meant_by = choices.nothing(match[1]) if match[2].lower() in NOTHING else near and f"{match[1]}={near}"
        guess = f"Did you mean '{meant_by}'? " if meant_by else ""
        lying = next(
            (each for each in (Path(), *Path().glob("*/")) if File(match[1], match[2][:LONGEST], (each,)).path), None
        )
        guess = f"{lying}/{match[1]}/{match[2]}.yaml is found with --config-dir {lying}. " if lying else guess
        return ConfigError(f"There is no {match[1]} called '{match[2]}'.", f"{guess}There are: {', '.join(names)}")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ConfigError(" ".join(lines[:2]) or type(error).__name__, "See python -m mnist_exp.train --help all")


def _several(word: str) -> ConfigError:
    """The error for *word*, which has several values where one run has one."""
    key, _, value = split(word)
    head = word.removesuffix(value)
    listed, point = f"{head}[{value}]", value.replace(",", ".")
    read = reads(listed)
    way_out = "Add -m to sweep over them"
    if re.fullmatch(r"\d+,\d+", value) and takes(key, float(point)):
        way_out += f", or write {head}{point} for a number."
    elif key == "callbacks" or (takes(key, read.value()) if read and key in schema.settings() else "." in key):
        way_out += f", or write {shlex.quote(listed)} for a list."
    else:
        way_out += "; one run has one."
    return ConfigError(f"'{word}' names several values for one run.", way_out)


def _unknown_in_file(file: str, key: str, typed: Sequence[str]) -> ConfigError:
    """The error for *key*, which *file* of a `conf/` sets and the schema has not; *typed* chooses it."""
    if key == file.partition("/")[0]:
        reason = f"{file}.yaml sets what is not in {key}: its settings are read as those of {key}."
        return ConfigError(reason, "Make its first line: # @package _global_")
    error = unknown_key(key)
    at = located(error, typed, key)
    return at if at is not error else ConfigError(f"{file}.yaml: {error.message}", error.help)


def _bad_reference(key: str, text: str) -> ConfigError | None:
    """The error for a `${…}` in the value of *key* that leads nowhere, given OmegaConf's messages in *text*."""
    if match := re.search(r"Interpolation key '(.*?)' not found", text):
        near = guess(match[1])
        way_out = (
            f"Did you mean ${{{near}}}?" if near in schema.settings() else "Write a value, or the name of a setting."
        )
        return ConfigError(f"{key} refers to ${{{match[1]}}}, and there is no such setting.", way_out)
    if match := re.search(r"Environment variable '(.*?)' not found", text):
        way_out = f"Set it, or give it a default: ${{oc.env:{match[1]},null}}"
        return ConfigError(f"{key} refers to the variable {match[1]}, which is not set.", way_out)
    if match := re.search(r"Unsupported interpolation type (\S+)", text):
        way_out = "${lr} is the value of a setting, ${oc.env:NAME} that of a variable."
        return ConfigError(f"{key} refers to ${{{match[1]}:…}}, and there is no such function.", way_out)
    if "Recursive interpolation" in text:
        return ConfigError(f"{key} refers to itself.", f"Give it a value: {key}=…")
    if re.search(r"no viable alternative|mismatched input|extraneous input|token recognition|missing .* at", text):
        return ConfigError(f"{key} has a reference that is not whole.", "One is written ${lr}, with both braces.")
    return None


def extra_missing(cluster: str) -> ConfigError:
    """The error for `cluster=…` where the packages of the extra of that name are missing."""
    install = f'Install them: pip install -e ".[{cluster}]"'
    return ConfigError(f"cluster={cluster} needs packages that are not installed.", install)


def _wrong_value(key: str, text: str, reason: str) -> ConfigError:
    """The error for the value of *key*, given OmegaConf's messages in *text*; *reason* is the first line about it."""
    if reference := _bad_reference(key, text):
        return reference
    setting = schema.settings().get(key)
    rule = f"{key}: {setting.meaning}" if setting else ""  # as in --help
    if match := re.search(r"Value '?(.*?)'? (?:of type '\w+' could not be converted to|is not a valid) (\w+)", text):
        kinds = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
        way_out = meant(key, match[1]) or rule
        return ConfigError(f"{key} must be {kinds.get(match[2], match[2])}, but got {match[1]!r}.", way_out)
    if match := re.search(r"Invalid value '(.*?)', expected one of \[(.*?)\]", text):
        return ConfigError(f"{key} must be one of {match[2]}, but got {match[1]!r}.", meant(key, match[1]) or rule)
    if match := re.search(r"Cannot convert '\w+' to string: '(.*)'", text):
        return ConfigError(f"{key} must be a text, but got {match[1]}.", rule)
    if re.search(r"Cannot assign \w+ to Dict|not a subclass of", text):
        return holds_names(key)
    if "is not a ListConfig" in text:
        return ConfigError(f"{key} must be a list.", rule)
    if "is not Optional" in text or "Incompatible value 'None'" in text:
        return ConfigError(f"{key} must have a value, but got null.", rule)
    if "does not support deletion" in text:
        return deleted_key(key)
    return ConfigError(f"{key}: {reason}.", rule)
