"""How numbers and settings are written for people; an unknown one is `–`."""

from typing import Any

SPLIT_NAMES = {"val": "validation", "test": "test", "train": "training"}


def percent(share: float, digits: int = 2) -> str:
    """0.9783 as `97.83 %`."""
    return f"{100 * share:.{digits}f} %"


def score(mean: float, sd: float | None) -> str:
    """Mean and standard deviation from 0 to 1, as `97.83 ± 0.12`; no spread for a single run."""
    if _unknown(mean):
        return "–"
    return f"{100 * mean:.2f}" + ("" if sd is None or _unknown(sd) else f" ± {100 * sd:.2f}")


def value(setting: Any) -> str:
    """A setting as one types it."""
    if _unknown(setting):
        return "–"
    if isinstance(setting, bool):
        return str(setting).lower()
    return f"{setting:g}" if isinstance(setting, float) else str(setting)


def count(number: float) -> str:
    """`101,770`."""
    return "–" if _unknown(number) else f"{int(number):,}"


def plural(number: int | str, noun: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def seconds(time: float) -> str:
    """A duration that was measured: `0.82 s`, `42 s`, `3:05 min`, `2:10 h`."""
    if _unknown(time):
        return "–"
    if time < 100:
        return f"{time:.2f} s" if time < 10 else f"{time:.0f} s"
    whole, minutes = round(time), round(time / 60)
    return f"{whole // 60}:{whole % 60:02} min" if minutes < 100 else f"{minutes // 60}:{minutes % 60:02d} h"


def duration(seconds: float) -> str:
    """A duration that is estimated: `48 s`, `3 min` or `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _unknown(number: Any) -> bool:
    """Whether it is None, or not a number."""
    return number is None or (isinstance(number, float) and number != number)
