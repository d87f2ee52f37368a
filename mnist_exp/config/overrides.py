"""Overrides: how one is read, written and quoted, and which setting it concerns."""

import itertools
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from mnist_exp.config import choices, schema
from mnist_exp.config.schema import Kind
from mnist_exp.errors import ConfigError

MOST_DIGITS, DEEPEST = 309, 40
_ENDLESS = re.compile(rf"\d{{{MOST_DIGITS + 1},}}")

CONTROL = schema.of(Kind.CONTROL)
"""Settings that control resuming and are no part of what is run."""

STEERING = (*schema.STEERING_GROUPS, *schema.of(Kind.SWEEP))
"""Settings and groups that steer a sweep, besides `hydra.sweeper.*`; none of its runs has them."""

SEVERAL = ("experiment", "callbacks")
"""Groups of which a run may have several options."""

FIXED = (*CONTROL, *STEERING, "cluster")
"""Settings and groups that a sweep has as a whole."""


def split(override: str) -> tuple[str, str, str]:
    """The key that *override* sets, the `=` if it has one, and the value; the key of a deletion keeps its `~`."""
    return override.lstrip("+").partition("=")


def key_of(override: str) -> str:
    """The key that *override* concerns; of two overrides with the same key, the one typed on resuming counts."""
    return split(override)[0].lstrip("~")


def is_control(override: str) -> bool:
    """Whether *override* sets one of `CONTROL`."""
    return key_of(override) in CONTROL


def steers(override: str) -> bool:
    """Whether *override* steers a sweep, and sets nothing in its runs."""
    key = key_of(override)
    return key in STEERING or key.startswith("hydra.sweeper.")


def check_text(overrides: Sequence[str]) -> None:
    """Raises ConfigError for what no parser reads: bytes that are no text, endless numbers, and bottomless brackets.

    Files, MLflow and the report are UTF-8; no number has more than 309 digits before its point.
    """
    for override in overrides:
        start = override[:40] + ("…" if len(override) > 40 else "")
        if number := _ENDLESS.search(override):
            way_out = f"{MOST_DIGITS} are the most; write 1e9."
            raise ConfigError(f"{start} has a number of {len(number[0]):,} digits.", way_out)
        depths = itertools.accumulate((char in "[{(") - (char in "]})") for char in override)
        if (depth := max(depths, default=0)) > DEEPEST:
            raise ConfigError(f"{start} has brackets that are {depth:,} deep.", f"{DEEPEST} are the most.")
        try:
            override.encode()
        except UnicodeEncodeError as error:
            shown = override.encode(errors="backslashreplace").decode()
            way_out = "Type it anew, in a terminal of UTF-8."
            raise ConfigError(f"{shown} holds bytes that are not UTF-8.", way_out) from error


def check_single(overrides: Sequence[str], typed: Sequence[str]) -> None:
    """Raises ConfigError if a single run has an override that only a sweep has, such as `search=tpe` without -m.

    Args:
        typed: The whole command line, with options such as --config-dir.
    """
    for override in overrides:
        if steers(override) or key_of(override).startswith(("hydra.sweep.", "hydra.launcher.", "hydra/launcher")):
            raise for_a_sweep(override, typed)


def for_a_sweep(override: str, typed: Sequence[str]) -> ConfigError:
    """The error for an *override* of a single run that only a sweep has, on the command line *typed*."""
    way_out = f"Add -m: {command(typed, sweep=True)}"
    return ConfigError(f"{override} is for a sweep, and this would be a single run.", way_out)


def check_once(overrides: Iterable[str]) -> None:
    """Raises ConfigError if a key is set twice, or a group to a list of options: the last would count, silently."""
    typed: dict[str, list[str]] = {}
    for override in overrides:
        typed.setdefault(key_of(override), []).append(override)
        key, _, value = split(override)
        if key in choices.groups() and key not in SEVERAL and (mixed := re.search(r"(?<!glob\()\[(.*,.*)\]", value)):
            way_out = "Choose one." if key in FIXED else f"Choose one, or try each: -m {key}={mixed[1]}"
            raise ConfigError(f"{override} mixes options, and a run has one {key}.", way_out)
    for key, several in typed.items():
        if len(several) < 2:
            continue
        if deletion := next((each for each in several if each.startswith("~")), ""):
            raise ConfigError(f"{key} is set and deleted: {' '.join(several)}.", f"Drop '{deletion}'.")
        way_out, values = "Set it once.", ",".join(dict.fromkeys(split(each)[2] for each in several))
        if "," in values and key not in FIXED and not key.startswith("hydra"):
            word = several[0].partition("=")[0] + "=" + values
            in_bash = f"(bash makes several words of {key}={{{values}}})"
            way_out = f"Set it once, or try each value: -m {shlex.quote(word)} {in_bash}"
        raise ConfigError(f"{key} is set more than once: {' '.join(several)}.", way_out)


def check_deletions(overrides: Sequence[str]) -> None:
    """Raises ConfigError if a setting or a group is deleted: it would get the schema's default, which nobody chose."""
    for override in overrides:
        if not override.startswith("~"):
            continue
        key = key_of(override)
        if key in choices.groups() or key.startswith("hydra/"):
            nothing = choices.nothing(key)
            way_out = f"Write {nothing}" if nothing else f"Drop '{override}'."
            raise ConfigError(f"'{override}' leaves no choice of {key}, and every run needs one.", way_out)
        if key in schema.settings() or key in schema.parts():
            raise deleted_key(key, override)


def deleted_key(key: str, override: str = "") -> ConfigError:
    """The error for the *override* that deletes *key*: the schema has no optional parts."""
    return ConfigError(f"{key} was deleted, but every run needs it.", f"Drop '{override or f'~{key}'}'.")


def compact(value: Any) -> str:
    """A value as one types it: `[512,256]`, not `[512, 256]`."""
    if not isinstance(value, list):
        return str(value)
    return f"[{','.join(compact(v) if isinstance(v, list) else repr(v) for v in value)}]"


def as_typed(value: Any) -> str:
    """A value as the right-hand side of an override; text is taken as it is."""
    constants = {None: "null", True: "true", False: "false"}
    return constants[value] if value is None or isinstance(value, bool) else compact(value)


def override(key: str, text: str) -> str:
    """`key=text` as Hydra reads it, whatever *text* holds; in a shell it still needs quotes."""
    typed = re.fullmatch(r"(?i)[-+]?[\d._]+(e[-+]?\d+)?|nan|[-+]?inf|null|true|false", text)  # no text without quotes
    plain = re.fullmatch(r"[\w./:-]+", text) and not typed
    return f"{key}={text if plain else QuotedString(text, Quote.single).with_quotes()}"


def command(overrides: Sequence[str], sweep: bool = False) -> str:
    """The line that trains with *overrides*, quoted for a shell."""
    return shlex.join(["python", "-m", "mnist_exp.train", *(["-m"] if sweep else []), *overrides])
