"""The overrides of a sweep as Hydra's parser reads them, with the right values, and each with some."""

import math
import re
from collections.abc import Sequence
from typing import Any, final

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep, Sweep
from hydra.errors import HydraException

from mnist_exp.config import choices
from mnist_exp.errors import ConfigError

TAGS = {"log"}
"""What a sweep may be tagged as."""
LARGEST = 10_000_000  # points, which take some GB


@final
class SortedRange(RangeSweep):  # type: ignore[misc]  # hydra ships no types
    """The values of a range in order."""

    reverse = False

    def range(self) -> Any:
        return sorted(super().range(), reverse=self.reverse)


def parser(loader: ConfigLoader | None = None) -> OverridesParser:
    """Hydra's parser of overrides.

    Its own `sort(range(16,70,20),reverse=true)` gives 50, 30, 10 instead of 56, 36, 16 (up to Hydra 1.3.8).
    """
    functions = create_functions()
    hydras = functions.functions["sort"]

    def sort(*values: Any, sweep: Any = None, reverse: bool = False, **rest: Any) -> Any:
        several = values[0] if len(values) == 1 else sweep
        if not isinstance(several, RangeSweep):
            return hydras(*values, sweep=sweep, reverse=reverse, **rest)
        ordered = SortedRange(start=several.start, stop=several.stop, step=several.step, tags=several.tags)
        ordered.reverse = reverse
        return ordered

    functions.functions["sort"] = sort
    return OverridesParser(functions, loader)


def reads(word: str) -> Override | None:
    """*word* as an override; None if it is none."""
    try:
        return parser().parse_override(word)
    except (HydraException, ValueError, TypeError):
        return None


def parsed(overrides: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    """*overrides* as Hydra's parser reads them.

    Raises:
        OverrideParseException: one cannot be read.
        ConfigError: one that is to vary has no values, or a tag that nothing knows.
    """
    read: list[Override] = parser(loader).parse_overrides(list(overrides))
    for override in read:
        check(override)
    return read


def check(override: Override) -> None:
    """Raises ConfigError if *override* is to vary, but with no or too many values, a wrong tag, or inside a list."""
    check_inside(override)
    values, typed, key = override.value(), override.input_line, override.key_or_group
    if isinstance(values, Sweep) and (unknown := values.tags - TAGS):
        raise ConfigError(f"{typed}: there is no tag {', '.join(sorted(unknown))}.", f"'{key}=tag(log,interval(…))'")
    if "log" in getattr(values, "tags", ()) and not isinstance(values, IntervalSweep):
        raise ConfigError(f"{typed}: only an interval has a logarithmic scale.", f"{key}=tag(log,interval(low,high))")
    if isinstance(values, RangeSweep) and not values.step:
        raise ConfigError(f"{typed} has steps of 0.", "A range is range(start,stop,step), such as range(16,65,16).")
    count = math.ceil((values.stop - values.start) / values.step) if isinstance(values, RangeSweep) else 0
    if count > LARGEST:  # before anybody lists them
        reason = f"{typed} has {count:,} values; {LARGEST:,} are the most."
        raise ConfigError(reason, f"Take larger steps, or search: 'search=random' and '{key}=interval(low,high)'")
    if override.is_discrete_sweep() and not any(True for _ in override.sweep_iterator()):
        raise ConfigError(f"{typed} has no values.", _some(override))


def check_inside(override: Override) -> None:
    """Raises ConfigError if a list of *override* has an interval or the like in it, which Hydra takes as a value."""
    if _has_inside(override.value()):
        typed = str(override.input_line).partition("=")[2]
        raise ConfigError(
            f"{override.input_line}: what varies cannot be inside a list.",
            f"List whole values, '{override.key_or_group}={_with(0, typed)},{_with(1, typed)}', or search with a "
            "function that returns them: hydra.sweeper.space=mysearch.space (docs/search.md)",
        )


def _with(index: int, typed: str) -> str:
    """*typed*, with one argument in the place of each call; of a tag, what is tagged."""

    def argument(call: re.Match[str]) -> str:
        values = call[2].split(",")
        return values[-1] if call[1] == "tag" else values[min(index, len(values) - 1)]

    plain = re.sub(r"(\w+)\(([^()]*)\)", argument, typed)
    return plain if plain == typed else _with(index, plain)


def _some(override: Override) -> str:
    """How *override*, which has no values, would have some."""
    if isinstance(override.value(), RangeSweep):
        return "A range goes from its start in steps to before its stop: range(16,65,16), or down: range(64,15,-16)."
    options = choices.options(override.key_or_group)
    return f"There are: {', '.join(options)}" if options else f"{override.key_or_group} is no group of options."


def _has_inside(values: Any) -> bool:
    """Whether a list, a mapping or a choice of such holds an interval, a range or another choice."""
    if isinstance(values, ChoiceSweep):
        values = values.list
    inside = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return any(isinstance(each, Sweep | Glob) or _has_inside(each) for each in inside)
