"""How pictures lay out what they show: scales, bounds, ticks."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from mnist_exp.charts import style, sweep
from mnist_exp.charts.style import FEW, MANY, Scale


@pytest.fixture
def axes() -> Axes:
    return plt.figure().add_subplot()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3, 4], "linear"),
        ([3, 1, 2], "linear"),
        ([64, 128, 256], "log"),
        ([1e-4, 1e-3, 1e-2], "log"),
        ([1, 2, 100], "order"),
        ([0, 1, 2], "linear"),
        (["a", "b"], "order"),
        ([True, False], "order"),
        ([5], "order"),
        (list(range(1, FEW + 3)), "log"),
        (list(range(100, 102 + FEW)), "linear"),
    ],
)
def test_values_are_spaced_as_evenly_as_can_be(values: list[object], kind: str) -> None:
    made = style.scale(pd.Series(values, dtype=object))
    assert made.kind == kind
    assert made.values == (values if kind == "order" and len(values) < 3 else sorted(values))  # type: ignore[type-var]


def test_a_value_comes_once_and_what_is_missing_not_at_all() -> None:
    assert style.scale(pd.Series(["b", None, "a", "b"])).values == ["b", "a"]


def test_cells_lie_around_their_values() -> None:
    assert Scale([1, 2, 4], "linear").edges.tolist() == [0.5, 1.5, 3.0, 5.0]
    assert Scale(["x", "y"], "order").edges.tolist() == [-0.5, 0.5, 1.5]
    assert Scale([7], "linear").edges.tolist() == [6.5, 7.5]
    assert np.allclose(Scale([10, 1000], "log").edges, [0, 2, 4])


def test_few_values_are_named_and_many_are_ticked(axes: Axes) -> None:
    Scale([64, 128, 256], "log").label(axes, "x", "hidden")
    assert axes.get_xlabel() == "hidden"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["64", "128", "256"]
    assert np.allclose(axes.get_xticks(), np.log10([64, 128, 256]))
    many = [10.0**-i for i in range(FEW + 1)]
    Scale(many, "log").label(axes, "y", "lr")
    assert axes.yaxis.get_major_formatter()(-3, 0) == "0.001"
    assert axes.get_ylabel() == "lr"


def test_long_names_below_a_picture_are_turned(axes: Axes) -> None:
    Scale(["x" * 18, "y" * 18], "order").label(axes, "x", "name")
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {0.0}
    Scale(["x" * 18, "y" * 19], "order").label(axes, "x", "name")
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {30.0}


def test_bounds_show_the_good_ones_apart() -> None:
    low, high = style.limits(pd.Series([10.0, 97.0, 97.5, 98.0]))
    assert low == pytest.approx(98 - 5 * 0.75 - 0.06 * 3.75)
    assert high == pytest.approx(98 + 0.06 * 3.75)
    assert style.limits(pd.Series([98.0, 98.0])) == pytest.approx((97.95, 98.05))
    assert style.limits(pd.Series([95.0, 97.9, 98.0]))[0] == pytest.approx(96 - 0.06 * 2)


def test_a_wide_axis_is_logarithmic_with_plain_numbers(axes: Axes) -> None:
    style.spread(axes, pd.Series([1.0, 10.0]), ratio=10)
    assert axes.get_xscale() == "linear"
    style.spread(axes, pd.Series([0.0, 1000.0]), ratio=10)
    assert axes.get_xscale() == "linear"
    style.spread(axes, pd.Series([1.0, 11.0]), ratio=10)
    assert axes.get_xscale() == "log"
    names = [axes.xaxis.get_major_formatter()(at, 0) for at in (0.5, 2000, 10_000, 50_000, 1e6, 2.5e6)]
    assert names == ["0.5", "2000", "10k", "50k", "1M", "2.5M"]


def test_many_dots_are_small_and_drawn_as_pixels() -> None:
    assert style.dotted(MANY, 8) == {"s": 8}
    assert style.dotted(MANY + 1, 8) == {"s": 2, "rasterized": True}
    assert style.plain("optimizer.betas[0]") == "optimizer_betas_0_"
    assert math.isclose(style._evenness([1, 2, 4]), 0.5)


@pytest.mark.parametrize("bounds", [(0.021, 0.068), (1e-4, 1e8), (0.5, 3), (100, 101), (3e-7, 2e-3), (1, 1e40)])
def test_a_logarithmic_axis_has_a_few_round_ticks(bounds: tuple[float, float]) -> None:
    """Of any width: previously one, or none once a run had diverged."""
    at = [tick for tick in style.RoundLocator().tick_values(*bounds) if bounds[0] <= tick <= bounds[1]]
    assert 3 <= len(at) <= 7
    assert all(len(f"{tick:g}".strip("0.").partition("e")[0].replace(".", "")) <= 4 for tick in at)


def test_ticks_that_would_overlap_are_left_out() -> None:
    figure, axes = style.canvas()
    values = [0.0002, 0.00021, 0.0005, 0.05]
    style.scale(pd.Series(values)).label(axes, "x", "lr")
    assert style.scale(pd.Series(values)).kind == "order"
    style.Scale(values, "log").label(axes, "x", "lr")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.0002", "0.0005", "0.05"]
    assert figure.axes == [axes]


def test_what_lies_below_an_axis_is_said_and_not_drawn() -> None:
    _, axes = style.canvas()
    sweep.dots(axes, np.arange(4), pd.Series([97.0, 98.0, 20.0, 10.0]), 96.0, "run")
    (points,) = axes.collections
    assert points.get_offsets().tolist() == [[0, 97], [1, 98]]
    assert [text.get_text() for text in axes.texts] == ["2 runs below 96 %"]
