"""Rules for one value: what must hold, how `--help` states it, and the error where it does not hold."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from mnist_exp.errors import ConfigError

Test = Callable[[Any], bool]


@final
@dataclass(frozen=True)
class Rule:
    """What one value must satisfy.

    Each test states what must hold, not what must not: `lr <= 0` is false for NaN.
    """

    text: str = ""
    """As `--help` and docs/configuration.md show it; alone, for a rule that the type or a second setting decides."""
    tests: tuple[tuple[Test, str], ...] = ()
    """Each with its message, which may name `{key}`, `{value}` and, of a list, `{count}`."""
    way_out: str = ""

    def check(self, key: str, value: Any) -> None:
        """Raises ConfigError unless *value*, that of *key*, passes every test."""
        for holds, message in self.tests:
            if not holds(value):
                count = len(value) if isinstance(value, list) else 1
                raise ConfigError(message.format(key=key, value=value, count=count), self.way_out.format(key=key))


ANY = Rule()


def at_least(lowest: int, highest: float = math.inf, text: str = "") -> Rule:
    """*lowest* or more, and at most *highest*, which only a slip exceeds."""
    return Rule(
        text or f">= {lowest}",
        (
            (lambda value: value >= lowest, f"{{key}} must be at least {lowest}, but got {{value}}."),
            (lambda value: value <= highest, f"{{key}} must be at most {highest}, but got {{value}}."),
        ),
        f"Try {{key}}={max(lowest, 1)}.",
    )


def between(lowest: float, highest: float, typical: float, last: str = "") -> Rule:
    """From *lowest* to *highest*, both included; *last* is how the latter is written."""
    last = last or str(highest)
    message = f"{{key}} must be between {lowest} and {last}, but got {{value}}."
    return Rule(
        f"{lowest} to {last}", ((lambda value: lowest <= value <= highest, message),), f"Try {{key}}={typical}."
    )


def share() -> Rule:
    """A share of less than all."""
    return Rule(
        "0 to below 1", ((lambda value: 0 <= value < 1, "{key} must be at least 0 and below 1, but got {value}."),)
    )


def positive(way_out: str) -> Rule:
    """Neither zero nor infinite where it is used, as a float32."""
    message = "{key} must be a finite number > 0 in float32, but got {value}."
    return Rule("> 0", ((lambda value: 1e-37 <= value <= 1e38, message),), way_out)


def finite() -> Rule:
    """Zero or more, and not infinite."""
    return Rule(">= 0", ((lambda value: 0 <= value < math.inf, "{key} must be finite and >= 0, but got {value}."),))


def widths(largest: int) -> Rule:
    """A positive whole number, or a list of them."""

    def holds(value: Any) -> bool:
        each = value if isinstance(value, list) else [value]
        return bool(each) and all(type(width) is int and 1 <= width <= largest for width in each)

    return Rule(
        "each >= 1",
        ((holds, "{key} must be a positive integer or a list of them, but got {value!r}."),),
        "Try {key}=128 or '{key}=[512,256]'.",
    )


def pattern(expression: str, what: str, way_out: str = "", text: str = "") -> Rule:
    """A text that *expression* matches as a whole; *what* states it in the message."""
    test = re.compile(expression).fullmatch
    return Rule(text, ((lambda value: bool(test(value)), f"{{key}} must be {what}, but got {{value!r}}."),), way_out)


def filled(way_out: str) -> Rule:
    """A text with more than spaces."""
    return Rule("", ((lambda value: bool(value.strip()), "{key} must not be empty."),), way_out)


def names(count: int, word: str) -> Rule:
    """A list of *count* names; *word* is the number as the message writes it."""
    message = f"{{key}} must name {word} classes, but has {{count}}."
    return Rule("", ((lambda value: len(value) == count, message),), "Try {key}=null.")


def target(optional: bool = False) -> Rule:
    """A node with a `_target_`; an *optional* one may be empty."""
    return Rule(
        "",
        ((lambda node: bool(node.get("_target_")) or (optional and not node), "{key} has no _target_."),),
        "Choose a file of conf/{key}: {key}=…",
    )
