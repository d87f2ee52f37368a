"""The arguments of a training command as Hydra wants them: its options first, and one config for `--cfg` of a sweep."""

import argparse
import re
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import OverrideParseException

from mnist_exp.config import choices, sweeps
from mnist_exp.config.chosen import holds_names
from mnist_exp.config.explain import translate
from mnist_exp.config.guesses import closest, written
from mnist_exp.config.overrides import FIXED, check_deletions, check_once, check_single
from mnist_exp.console import help
from mnist_exp.errors import ConfigError

DRY = "--dry-run"
PARAMS = "hydra.sweeper.params."


def arranged(typed: Sequence[str]) -> list[str]:
    """*typed* in the order that argparse wants, which takes overrides in one series only.

    Raises:
        ConfigError: an argument is no option of Hydra's, no override, or deletes a group.
        SystemExit: an option has a wrong value (2), or shows something and ends (0).
    """
    parser = get_args_parser()
    parser.add_argument(DRY, action="store_true")
    for word in typed:  # of -hidden=64 argparse would take -h
        key = word.partition("=")[0].removeprefix("-")
        if word.startswith("-") and len(key) > 2 and choices.known(key):
            raise unknown_option(word, typed)
    options, strangers = parser.parse_known_intermixed_args(typed)
    if strangers:
        if near := closest(strangers[0].replace("_", "-"), re.findall(r"--[\w-]+", parser.format_usage()), 0.8):
            raise ConfigError(f"There is no option {strangers[0]}.", f"Did you mean {near}?")
        raise unknown_option(strangers[0], typed)
    if options.resolve and not options.cfg:
        raise ConfigError("--resolve is for --cfg.", "Write --cfg job --resolve")
    if options.experimental_rerun:
        reason = "--experimental-rerun loads a pickle, which can run any code."
        raise ConfigError(reason, "Run it again: python -m mnist_exp.rerun RUN")
    overrides = list(options.overrides)
    left, flags = list(overrides), []
    for word in typed:
        if left and word == left[0]:
            left.pop(0)
        else:
            flags.append(word)
    if flags and flags[-1] in ("-i", "--info"):  # it would take the first override for what is asked
        flags[-1] = f"--info={options.info}"
    if options.dry_run:
        if not options.multirun:
            raise ConfigError(f"{DRY} is for a sweep.", "Add -m; --cfg job shows the config of a single run.")
        flags.remove(DRY)
        overrides.append("hydra.sweeper.dry_run=true")
    if options.help:
        return [*flags, *help.asked(overrides)]
    if options.shell_completion:
        return [*flags, *overrides]
    check_deletions(overrides)
    check_once(word for word in overrides if "=" in word)
    parsed = _parsed(overrides)
    if options.multirun:
        return _for_many(options, flags, parsed)
    # Of several values Hydra would say that they are ambiguous.
    check_single([str(each.input_line) for each in parsed if each.is_sweep_override()], typed)
    return [*flags, *overrides]


def unknown_option(word: str, typed: Sequence[str]) -> ConfigError:
    """The error for *word*, which begins with a dash and is no option; the next one of *typed* may be its value."""
    key, _, value = word.lstrip("-").partition("=")
    following = [*typed[typed.index(word) + 1 :], ""][0]
    if not value and "=" not in following and not following.startswith("-"):
        value = following
    meant = written(key, value)
    way_out = f"Settings are written without dashes: {meant}" if meant else "See --help and --hydra-help."
    return ConfigError(f"There is no option {word}.", way_out)


def _parsed(typed: list[str]) -> list[Override]:
    """The *typed* overrides. Raises ConfigError if one cannot be read, or Hydra would take it for what it is not."""
    try:
        parsed: list[Override] = sweeps.parser().parse_overrides(typed)
    except OverrideParseException as error:
        raise translate(error, typed) from error
    for each in parsed:
        sweeps.check_inside(each)
        if each.key_or_group in ("hydra.sweeper", "hydra.launcher") and not isinstance(each.value(), dict):
            raise holds_names(each.key_or_group, str(each.value()))  # Hydra would find out too late
    return parsed


def _for_many(options: argparse.Namespace, flags: list[str], parsed: list[Override]) -> list[str]:
    """The arguments of a sweep, of which Hydra composes what all jobs share before it composes a job."""
    for each in parsed:
        if each.is_sweep_override() and (each.key_or_group in FIXED or each.is_hydra_override()):
            plain = str(each.input_line).lstrip("+").removeprefix(PARAMS)
            way_out = f"Write {plain}" if PARAMS in each.key_or_group else "Give it one value."
            raise ConfigError(f"{each.input_line}: a sweep has one {each.key_or_group}.", way_out)
    if options.cfg:
        return [*(flag for flag in flags if flag not in ("-m", "--multirun")), *map(_first, parsed)]
    groups = choices.groups()
    swept = any(each.is_sweep_override() and each.key_or_group in groups for each in parsed)
    return [*flags, *(f"{'++' if swept and _of_an_option(each) else ''}{each.input_line}" for each in parsed)]


def _of_an_option(override: Override) -> bool:
    """Whether *override* sets one value of a keyword that options of a group may have or not."""
    plain = not (override.is_sweep_override() or override.is_delete() or override.is_add() or override.is_force_add())
    return plain and "." in override.key_or_group and override.key_or_group.partition(".")[0] in choices.nodes()


def _first(override: Override) -> str:
    """*override* with the first of its values."""
    if not override.is_sweep_override():
        return str(override.input_line)
    if isinstance(values := override.value(), IntervalSweep):
        first = str(values.start)
    elif isinstance(values, Glob):
        first = next(iter(values.filter(choices.options(override.key_or_group))), "")
    else:
        first = next(iter(override.sweep_string_iterator()), "")
    return f"{override.get_key_element()}={first}"
