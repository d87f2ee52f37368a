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
        (np.float64(1e-5), "1e-5"),
        (1e9, "1e9"),
        (0.00123456789, "0.00123457"),
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
        (0.0, "0.00 s", "0 s"),
        (0.996, "1.0 s", "1 s"),
        (5.1, "5.1 s", "5 s"),
        (185, "3 min 05 s", "3 min"),
        (7500, "2 h 05 min", "2 h 05 min"),
        (9.99, "10 s", "10 s"),
        (10, "10 s", "10 s"),
        (89, "89 s", "89 s"),
        (90, "1 min 30 s", "2 min"),
        (119.7, "2 min 00 s", "2 min"),  # and not 1 min 60 s
        (89 * 60, "89 min 00 s", "89 min"),
        (90 * 60, "1 h 30 min", "1 h 30 min"),
        (100 * 60, "1 h 40 min", "1 h 40 min"),
    ],
)
def test_durations_say_as_much_as_is_known(time: float, measured: str, estimated: str) -> None:
    assert (formats.seconds(time), formats.duration(time)) == (measured, estimated)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("lr=1000000000.0", "lr=1e9"),
        ("lr=1e-05", "lr=1e-5"),
        ("lr=1e-3", "lr=0.001"),
        ("optimizer.betas=[0.9,0.99912345678]", "optimizer.betas=[0.9,0.999123]"),
        ("seed=1000000007", "seed=1000000007"),
        ("hidden=[512,256]", "hidden=[512,256]"),
        ("name=v1.50", "name=v1.50"),
        ("tags.day=2026.01.30", "tags.day=2026.01.30"),
        ("name=a1e05", "name=a1e05"),
    ],
)
def test_settings_have_their_numbers_written_as_in_tables(typed: str, shown: str) -> None:
    assert formats.settings([typed, "seed=1"]) == f"{shown} seed=1"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0.0 MB"), (3.4e6, "3.4 MB"), (421e6, "421 MB"), (999.6e6, "1.0 GB"), (1.2e13, "12,000 GB")]
)
def test_bytes_have_a_unit(count: float, text: str) -> None:
    assert formats.size(count) == text


def test_a_difference_has_a_sign() -> None:
    assert [formats.points(d) for d in (0.0012, -0.0012)] == ["+0.12", "-0.12"]


def test_an_unknown_number_is_a_dash() -> None:
    assert formats.count(101_770.0) == "101,770"
    assert formats.count(math.nan) == formats.seconds(math.nan) == "–"


def test_what_is_too_long_for_a_column_keeps_its_ends() -> None:
    text = "a" * 5000 + "b" * 4999 + "1"
    assert formats.short(text) == "a" * 40 + "…" + "b" * 39 + "1"
    assert formats.value(text) == formats.short(text)
    assert formats.whole(text) == text
    assert formats.short("x" * formats.LONGEST) == "x" * formats.LONGEST
    assert formats.settings([f"++note={text}", "hidden=64"]).endswith("b1 hidden=64")
    assert len(formats.settings([f"++note={text}"])) == formats.LONGEST + 1
