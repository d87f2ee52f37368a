"""Rules for one value: what must hold, how `--help` states it, and the error where it does not hold."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from mnist_exp.config.numerals import brief
from mnist_exp.errors import ConfigError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Number(str):
    """How messages show a number, also those that show what was typed in quotes."""

    __repr__ = str.__str__


@final
@dataclass(frozen=True)
class Rule:
    """What one value must satisfy.

    Each test states what must hold, not what must not: `lr <= 0` is false for NaN.
    """

    text: str = ""
    """As `--help` and docs/configuration.md show it; alone, for a rule that the type or a second setting decides."""
    tests: tuple[tuple[Callable[[Any], object], str], ...] = ()
    """Each with its message, which may name `{key}`, `{value}` and, of a list, `{count}`."""
    way_out: str = ""
    highest: float = math.inf
    """For a larger number the way out is the default."""

    def check(self, key: str, value: Any, default: Any = None) -> None:
        """Raises ConfigError unless *value*, that of *key*, passes every test."""
        for holds, message in self.tests:
            if not holds(value):
                count = len(value) if isinstance(value, list) else 1
                shown = _Number(brief(value, 12)) if isinstance(value, float) else value
                way_out = self.way_out.format(key=key)
                if isinstance(value, int | float) and value > self.highest:
                    way_out = f"Leave {key} out." if default is None else f"Try {key}={default}."
                raise ConfigError(message.format(key=key, value=shown, count=count), way_out)


def must(what: str, holds: Callable[[Any], object], text: str = "", way_out: str = "", value: str = "{value}") -> Rule:
    """A rule of one test; *value* is how the message shows the value."""
    return Rule(text, ((holds, f"{{key}} must {what}, but got {value}."),), way_out)


def check_options(node: str, options: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Raises ConfigError if one of the *options* of *node* breaks its rule; None breaks none."""
    for key, rule in rules.items():
        if options[key] is not None:
            rule.check(f"{node}.{key}", options[key])


def at_least(lowest: int, highest: float = math.inf, text: str = "") -> Rule:
    """*lowest* or more, and at most *highest*: more than that is a slip, and torch would say so in its own way."""
    floor = must(f"be at least {lowest}", lambda value: value >= lowest)
    ceiling = must(f"be at most {highest}", lambda value: value <= highest)
    return Rule(text or f">= {lowest}", floor.tests + ceiling.tests, f"Try {{key}}={max(lowest, 1)}.", highest)


def between(lowest: float, highest: float, typical: float, last: str = "") -> Rule:
    """From *lowest* to *highest*, both included; *last* is how the latter is written."""
    last = last or str(highest)
    what, way_out = f"be between {lowest} and {last}", f"Try {{key}}={typical}."
    return must(what, lambda value: lowest <= value <= highest, f"{lowest} to {last}", way_out)


def in_float32(value: float) -> bool:
    """Whether it is zero, or a number that is neither zero nor infinite where it is used, as a float32."""
    return value == 0 or 1e-37 <= abs(value) <= 1e38


NUMBER = must("be a number that float32 can hold", in_float32, way_out="Those are 0 and, in size, 1e-37 to 1e38.")
"""For every number of every setting, beside the setting's own rule."""


def positive(way_out: str) -> Rule:
    """Neither zero nor infinite where it is used, as a float32."""
    return must("be a finite number > 0 in float32", lambda value: value > 0 and in_float32(value), "> 0", way_out)


def leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Each plain value in *value*, that of *key*, with its own key; those of a list have the list's."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(f"{key}.{name}" if key else str(name), each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(key, each)
    else:
        yield key, value


def pattern(expression: str, what: str, way_out: str = "", text: str = "") -> Rule:
    """A text that *expression* matches as a whole; *what* states it in the message."""
    return must(f"be {what}", re.compile(expression, re.DOTALL).fullmatch, text, way_out, "{value!r}")


TIME = pattern(
    rf"\d+(\.\d+)?[{''.join(SECONDS)}]?", "a number with s, m, h or d", "Try {key}=10m.", "such as 90s, 10m, 2h"
)


def seconds(typed: str) -> float:
    """A `TIME` as one types it, such as `10m`; a number alone is of seconds."""
    return float(typed.rstrip("".join(SECONDS))) * SECONDS.get(typed[-1], 1)


def each_within(lowest: float, highest: float, kinds: Sequence[type] = (int, float)) -> Callable[[Any], bool]:
    """A test that a value, or each one in a list, is a number of one of *kinds*, from *lowest* to *highest*."""

    def holds(value: Any) -> bool:
        each = value if isinstance(value, list) else [value]
        return bool(each) and all(type(number) in kinds and lowest <= number <= highest for number in each)

    return holds
