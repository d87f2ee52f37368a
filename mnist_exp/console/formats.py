"""How numbers and settings are written for people; an unknown one is `–`."""

from collections.abc import Iterable
from typing import Any

from mnist_exp.config.numerals import brief, in_text
from mnist_exp.config.overrides import compact

LONGEST = 80  # characters of a setting or of a name in a column
SPLIT_NAMES = {"val": "validation", "test": "test", "train": "training"}


def percent(share: float, digits: int = 2) -> str:
    """0.9783 as `97.83 %`."""
    return f"{100 * share:.{digits}f} %"


def score(mean: float, sd: float | None) -> str:
    """Mean and standard deviation from 0 to 1, as `97.83 ± 0.12`; no spread for a single run."""
    if _unknown(mean):
        return "–"
    return f"{100 * mean:.2f}" + ("" if sd is None or _unknown(sd) else f" ± {100 * sd:.2f}")


def points(difference: float) -> str:
    """A difference of two shares in percentage points: `+0.12`."""
    return f"{100 * difference:+.2f}"


def loss(number: float) -> str:
    """A loss: `0.2875`."""
    return f"{number:.4f}"


def short(text: str) -> str:
    """*text* without its middle where it is too long for a column; both of its ends, by which one may tell it."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}…{text[-half:]}"


def value(setting: Any) -> str:
    """A setting as one types it, for a column: `short`."""
    return short(whole(setting))


def whole(setting: Any) -> str:
    """A setting as one types it, however long."""
    if _unknown(setting):
        return "–"
    if isinstance(setting, bool):
        return str(setting).lower()
    return brief(setting) if isinstance(setting, float) else compact(setting)


def settings(overrides: Iterable[str]) -> str:
    """*overrides* in a line: `hidden=64 lr=1e-5`; each `short`."""
    return in_text(" ".join(short(override.removeprefix("++")) for override in overrides))


def count(number: float) -> str:
    """`101,770`."""
    return "–" if _unknown(number) else f"{int(number):,}"


def plural(number: int | str, noun: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def seconds(time: float) -> str:
    """A duration that was measured: `0.82 s`, `5.1 s`, `42 s`, `3 min 05 s`, `2 h 10 min`."""
    if _unknown(time):
        return "–"
    if time < 90:
        return f"{time:.{2 if time < 0.995 else 1 if time < 9.95 else 0}f} s"
    whole = round(time)
    return f"{whole // 60} min {whole % 60:02} s" if whole < 90 * 60 else duration(time)


def duration(seconds: float) -> str:
    """A duration that is estimated: `48 s`, `3 min` or `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def size(count: float) -> str:
    """Bytes: `340 MB`, `2.1 GB`."""
    unit, name = (1e9, "GB") if count >= 999.5e6 else (1e6, "MB")
    amount = count / unit
    return f"{amount:,.{0 if amount >= 9.95 else 1}f} {name}"


def _unknown(number: Any) -> bool:
    """Whether it is None, or not a number."""
    return number is None or (isinstance(number, float) and number != number)
