"""Words that Hydra's grammar of overrides does not take: what is wrong with them, and how they are written."""

import re
import shlex
from collections.abc import Sequence

from mnist_exp.config import choices, schema
from mnist_exp.config.guesses import closest, meant, written
from mnist_exp.config.sweeps import reads
from mnist_exp.errors import ConfigError

CLOSING = {"[": "]", "{": "}", "(": ")"}
CALLS = {
    "choice": "choice(64,128)",
    "range": "range(32,257,32)",
    "interval": "interval(0.01,0.1)",
    "tag": "tag(log,interval(1e-4,1e-1))",
    "int": "int(interval(16,512))",
    "sort": "sort(3,1,2)",
    "shuffle": "shuffle(range(1,9))",
    "glob": "glob(sgd*)",
}
"""How each function is called."""
ELSEWHERE = {
    "uniform": "interval({})",
    "loguniform": "tag(log,interval({}))",
    "log_uniform": "tag(log,interval({}))",
    "randint": "int(interval({}))",
    "log": "tag(log,{})",
    "reversed": "sort({},reverse=true)",
    "arange": "range({})",
}
"""What other tools call a function → how it is written here, with its arguments."""


def unreadable(word: str, typed: Sequence[str], reason: str) -> ConfigError:
    """The error for *word*, one of the *typed* ones, which is no override.

    Args:
        reason: What Hydra says, in its words.
    """
    position = typed.index(word) if word in typed else len(typed)
    after = list(typed[position + 1 :])
    key, equals, value = word.partition("=")
    if not equals:
        return _without_value(word, typed[position - 1] if 0 < position < len(typed) else "", after)
    if schema.is_text(key.lstrip("+")):
        return ConfigError(f"{word} has characters with a meaning of their own.", _as_text(key, value))
    if match := re.search(r"Unknown function '([^']+)'", reason):
        near = closest(match[1], CALLS)
        way_out = f"Did you mean {CALLS[near]}?" if near else f"There are: {', '.join(CALLS)}."
        if match[1] in ELSEWHERE and (inside := re.fullmatch(rf"{match[1]}\((.*)\)", value)):
            ours = f"{key}={ELSEWHERE[match[1]].format(inside[1])}"
            way_out = f"Write {shlex.quote(ours)}" if reads(ours) else way_out
        return ConfigError(f"{word}: there is no function {match[1]}.", way_out)
    pieces = [value]
    while after and (opened("".join(pieces)) or pieces[-1].endswith(",")) and "=" not in after[0]:
        pieces.append(after.pop(0))  # a shell splits at spaces
    whole = "".join(pieces)
    mended = re.sub(r",(?=[\])},])|(?<=[\[({]),", "", whole.strip(",")) + opened(whole)  # without idle commas
    if re.fullmatch(r"\{[^:]*\}", mended):  # a shell's way to write several words
        several = mended.strip("{}")
        way_out = f"{key}={several} is a sweep, with -m; '{key}=[{several}]' is a list."
        if span := re.fullmatch(r"(-?\d+)\.\.(-?\d+)", several):
            counted = shlex.quote(f"{key}=range({span[1]},{int(span[2]) + 1})")
            way_out = f"Write {counted}, a sweep, with -m."
        return ConfigError(f"{word} has braces around values.", way_out)
    if re.fullmatch(r"[(<].*[)>]", mended):
        mended = f"[{mended[1:-1]}]"
    if mended != value and reads(f"{key}={mended}"):
        what = "spaces in it" if len(pieces) > 1 else "brackets or commas too many, or too few"
        return ConfigError(f"{key}={' '.join(pieces)} has {what}.", f"Write {shlex.quote(f'{key}={mended}')}")
    if (bare := _without_strays(mended)) not in ("", mended) and reads(f"{key}={bare}"):
        return ConfigError(f"{word} has a sign that does not belong there.", f"Write {shlex.quote(f'{key}={bare}')}")
    if logarithmic := re.fullmatch(r"(interval\([^,]+,[^,]+),.*log.*\)", value):
        tagged = shlex.quote(f"{key}=tag(log,{logarithmic[1]}))")
        return ConfigError(f"{word}: interval() has two bounds.", f"Write {tagged}")
    if name := next((name for name in CALLS if re.search(rf"\b{name}\(", value)), ""):
        example = shlex.quote(f"{key}={CALLS[name]}")
        return ConfigError(f"{word}: {name}() is not called like that.", f"Such as {example}")
    return ConfigError(f"{word} has characters with a meaning of their own.", _as_text(key, value))


def opened(value: str) -> str:
    """The brackets that are missing at the end of *value*."""
    missing: list[str] = []
    for each in re.sub(r"""'[^']*'|"[^"]*\"""", "", value):
        if each in CLOSING:
            missing.insert(0, CLOSING[each])
        elif missing and each == missing[0]:
            missing.pop(0)
    return "".join(missing)


def _without_strays(value: str) -> str:
    """*value* without `=` or quotes at its ends, and brackets that close nothing; a `;` between values as a comma."""
    kept, missing = "", list[str]()
    for each in value.strip("=\"'").replace(";", ";" if "(" in value else ","):
        if each in CLOSING:
            missing.append(CLOSING[each])
        elif each in CLOSING.values() and (not missing or each != missing.pop()):
            continue
        kept += each
    return kept


def _as_text(key: str, value: str) -> str:
    """How *value* is written as a text; which key takes one is known for settings only."""
    if (setting := schema.settings().get(key)) and not schema.is_text(key):
        return meant(key, value) or f"{key}: {setting.help}."
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    text = f'{key}="{quoted}"'
    return f"As a text it has quotes twice: {shlex.quote(text)}"


def _without_value(word: str, before: str, after: Sequence[str]) -> ConfigError:
    """The error for a *word* without `=` between those *before* and *after* it."""
    key, colon, value = word.partition(":")
    in_a_text = "=" in before and schema.is_text(before.lstrip("+").partition("=")[0])
    if after and not colon and ("=" not in after[0] or after[0].startswith("=")):
        value = after[0].lstrip("=") or next(iter(after[1:]), "")
    if meant := "" if in_a_text and not choices.known(key) else written(key, value):
        return ConfigError(f"'{word}' has no value.", f"Write {meant}")
    if in_a_text:
        key, _, value = before.partition("=")
        return ConfigError(f"'{word}' stands alone, after {before}.", _as_text(key, f"{value} {word}".strip()))
    if "=" in before:
        joined = before + word if before.endswith(("=", ",")) else f"{before},{word.lstrip(',')}"
        return ConfigError(f"'{word}' stands alone, after {before}.", f"Write {shlex.quote(joined)}, without spaces.")
    return ConfigError(f"'{word}' is no override.", "One is key=value, such as hidden=256.")
