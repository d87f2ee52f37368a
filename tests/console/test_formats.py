"""How numbers and settings are written."""

import math
from typing import Any

import numpy as np
import pytest

from mnist_exp.console import formats


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (True, "true"),
        (0.001, "0.001"),
        (np.float64(1e-5), "1e-05"),
        (64, "64"),
        ("[64,32]", "[64,32]"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_a_setting_is_written_as_one_types_it(setting: Any, text: str) -> None:
    assert formats.value(setting) == text


def test_shares_are_percent() -> None:
    assert formats.percent(0.9783) == "97.83 %"
    assert formats.percent(0.9783, 1) == "97.8 %"
    assert formats.score(0.9783, 0.0012) == "97.83 ± 0.12"
    assert formats.score(0.9783, math.nan) == formats.score(0.9783, None) == "97.83"
    assert formats.score(math.nan, math.nan) == "–"


def test_one_is_singular() -> None:
    assert [formats.plural(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
    assert formats.plural("no", "fault") == "no faults"


@pytest.mark.parametrize(
    ("time", "measured", "estimated"),
    [
        (0.824, "0.82 s", "1 s"),
        (42, "42 s", "42 s"),
        (185, "3:05 min", "3 min"),
        (7500, "2:05 h", "2 h 05 min"),
        (9.99, "9.99 s", "10 s"),
        (10, "10 s", "10 s"),
        (89, "89 s", "89 s"),
        (90, "90 s", "2 min"),
        (99, "99 s", "2 min"),
        (100, "1:40 min", "2 min"),
        (119.7, "2:00 min", "2 min"),  # and not 1:60
        (89 * 60, "89:00 min", "89 min"),
        (90 * 60, "90:00 min", "1 h 30 min"),
        (99 * 60, "99:00 min", "1 h 39 min"),
        (100 * 60, "1:40 h", "1 h 40 min"),
    ],
)
def test_durations_say_as_much_as_is_known(time: float, measured: str, estimated: str) -> None:
    assert (formats.seconds(time), formats.duration(time)) == (measured, estimated)


def test_an_unknown_number_is_a_dash() -> None:
    assert formats.count(101_770.0) == "101,770"
    assert formats.count(math.nan) == formats.seconds(math.nan) == "–"
