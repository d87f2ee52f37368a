"""How pictures look: one style, one set of colours, and what turns a figure into a file or a part of a page.

Readable without colour vision: sequences in viridis, groups by colour, marker and line style together, failures
hatched. What is neither data nor background is drawn in `INK`, which `svg` turns into the colour of the page's
text, so that one picture serves light and dark pages.
"""

import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, MultipleLocator, NullLocator

from mnist_exp.console.formats import plural, value

if TYPE_CHECKING:
    import pandas as pd

INK = "#1a1a1b"
MUTED = "#8a8f98"  # readable on white and on black
# Okabe and Ito (2008), without the yellow that vanishes on white and the black that vanishes on black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SPLIT_COLOURS = {"train": COLOURS[0], "val": COLOURS[4], "test": COLOURS[2]}
DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1)), (0, (3, 1, 1, 1)))
MARKERS = "osD^vP"
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.18,
    "grid.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names and values are the user's, and may hold dollars
    **{key: INK for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")},
}
drawn = rc_context(STYLE)  # type: ignore[arg-type]  # its type lists every key there is
"""Decorates what draws: the style ends with the call."""
SIZE = (5.0, 3.6)  # inches; legible at the width of a phone
FEW = 12  # a key with more values than that is drawn as a continuous one
MANY = 1000  # more dots than that are small, since they would hide each other, and pixels: each weighs 110 bytes


@final
@dataclass(frozen=True)
class Picture:
    """A figure with what a page needs to show it."""

    name: str
    """Of its file, without suffix."""
    title: str
    alt: str
    """What it shows, for those who can't see it."""
    figure: Figure


def canvas(width: float = SIZE[0], height: float = SIZE[1]) -> tuple[Figure, Any]:
    """A new figure of this size in inches, and its only axes."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def seen(images: np.ndarray) -> np.ndarray:
    """Images (n, channel, height, width), 0 to 255, as `imshow` takes each: (height, width), or with three colours."""
    return images[:, 0] if images.shape[1] == 1 else np.moveaxis(images, 1, -1).astype(np.uint8)


@drawn
def svg(picture: Picture) -> str:
    """The picture as the text of an SVG file; the same picture gives the same text."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.hashsalt": picture.name}):  # names inside are unique on the page, and repeatable
        picture.figure.savefig(buffer, format="svg", transparent=True, metadata=metadata, dpi=110)
    return buffer.getvalue()


def inline(text: str) -> str:
    """The text of an SVG file as an `<svg>` element for a page, in the page's own ink and font."""
    head, body = text[text.index("<svg") :].split(">", 1)
    head = re.sub(r' (xmlns[:\w]*|version|width|height)="[^"]*"', "", head)  # HTML knows; the page decides the size
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # pictures on one page would share these names
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", body)
    return f"{head}>{body.replace(INK, 'currentColor')}"


@drawn
def png(picture: Picture, folder: Path) -> None:
    """Writes the picture to *folder*."""
    picture.figure.savefig(folder / f"{picture.name}.png", dpi=150, facecolor="white")


@final
@dataclass(frozen=True)
class Scale:
    """How the values of a key are laid out: in proportion, by their logarithm, or one after the other."""

    values: list[Any]
    """Each once, in order."""
    kind: Literal["linear", "log", "order"]

    def at(self, values: Iterable[Any]) -> np.ndarray:
        """The position of each of *values*, (n,)."""
        if self.kind == "order":
            index = {value: i for i, value in enumerate(self.values)}
            return np.array([index[value] for value in values], float)
        numbers = np.array(values, float)
        return np.asarray(np.log10(numbers)) if self.kind == "log" else numbers

    @property
    def centres(self) -> np.ndarray:
        """The position of each value, (n,)."""
        return self.at(self.values)

    @property
    def edges(self) -> np.ndarray:
        """Borders of one cell around each value, (n + 1,)."""
        at = self.centres
        if len(at) == 1:
            return np.array([at[0] - 0.5, at[0] + 0.5])
        middle = (at[1:] + at[:-1]) / 2
        return np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])

    def label(self, axes: Axes, which: Literal["x", "y"], key: str) -> None:
        """Names an axis, and its ticks by the values as one types them."""
        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_label_text(key)
        names = [value(v) for v in self.values]
        if len(names) <= FEW:
            apart = _apart(self.centres)
            axis.set_ticks(self.centres[apart], [names[i] for i in apart])
        elif self.kind == "log":
            axis.set_major_locator(MultipleLocator(1))
            axis.set_major_formatter(FuncFormatter(lambda at, _: f"{10**at:g}"))
        else:
            axis.set_major_locator(MaxNLocator(6, integer=self.kind == "order"))
        if which == "x" and len(names) <= FEW and len("".join(names)) > 36:
            axes.tick_params(axis="x", labelrotation=30)


def _apart(at: np.ndarray) -> list[int]:
    """Which of the ascending positions *at* have room for a tick's label: no two are nearer than a twelfth."""
    chosen: list[int] = []
    for i, position in enumerate(at):
        if not chosen or position - at[chosen[-1]] >= (at[-1] - at[0]) / 12:
            chosen.append(i)
    return chosen


def scale(column: "pd.Series[Any]") -> Scale:
    """The scale that spaces the values of *column* most evenly; one after the other if none does."""
    values = list(dict.fromkeys(column.dropna()))
    if len(values) < 2 or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return Scale(values, "order")
    values.sort()
    wide = values[0] > 0 and values[-1] / values[0] >= 4
    if len(values) > FEW:
        return Scale(values, "log" if wide else "linear")
    linear, log = _evenness(values), _evenness(np.log(values)) if wide else 0.0
    if max(linear, log) < 0.25:
        return Scale(values, "order")
    return Scale(values, "log" if log >= linear else "linear")


def _evenness(at: Any) -> float:
    """Smallest gap over largest."""
    gaps = np.diff(np.array(at, float))
    return float(gaps.min() / gaps.max())


def dotted(count: int, size: float) -> dict[str, Any]:
    """How *count* dots are drawn, of *size* square points where they are few."""
    return {"s": size} if count <= MANY else {"s": size / 4, "rasterized": True}


def limits(percent: "pd.Series[float]") -> tuple[float, float]:
    """Bounds for accuracies that show the good ones apart, though a failed one lies at ten percent."""
    best, median, worst = percent.max(), percent.median(), percent.min()
    low = max(worst, best - 5 * max(best - median, 0.4))
    margin = max(0.06 * (best - low), 0.05)
    return float(low - margin), float(best + margin)


@final
class RoundLocator(Locator):
    """At most `MOST` round numbers on a logarithmic axis, and three at least, however wide or narrow it is."""

    MOST = 7
    PARTS = ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,))

    def __call__(self) -> Any:
        """The ticks of the axis as it is."""
        return self.tick_values(*self.axis.get_view_interval())  # type: ignore[union-attr]  # set by matplotlib

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """The ticks between two positive numbers."""
        low, high = max(min(vmin, vmax), 1e-300), max(vmin, vmax)
        decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        for parts in self.PARTS:
            ticks = [part * 10.0**e for e in decades for part in parts if low <= part * 10.0**e <= high]
            if len(ticks) <= self.MOST:
                return ticks if len(ticks) > 2 else MaxNLocator(self.MOST - 2).tick_values(low, high)
        return [10.0**e for e in decades if e % -(-len(decades) // self.MOST) == 0]


def plain_ticks(axis: Any) -> None:
    """Round ticks for a logarithmic axis, written as numbers."""
    axis.set_major_locator(RoundLocator())
    plain_numbers(axis)
    axis.set_minor_locator(NullLocator())


def plain_numbers(axis: Any) -> None:
    """Ticks written as short numbers: `0.003`, `200k`, `1M`, `1e+09`."""
    axis.set_major_formatter(FuncFormatter(lambda at, _: _short(at)))


def _short(number: float) -> str:
    if not 1e4 <= number < 1e9:
        return f"{number:g}"
    return f"{number / 1e6:g}M" if number >= 1e6 else f"{number / 1e3:g}k"


def spread(axes: Axes, x: "pd.Series[float]", ratio: float) -> None:
    """Makes the axis of *x* logarithmic if its largest value is more than *ratio* times its smallest."""
    if x.min() > 0 and x.max() / x.min() > ratio:
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
        plain_numbers(axes.xaxis)


def left_out(axes: Axes, count: int, low: float, what: str) -> None:
    """Says how many of *what* lie below an axis of accuracies that begins at *low*; they are not drawn."""
    if count:
        text = f"{plural(count, what)} below {low:.4g} %"
        axes.text(0.01, 0.02, text, transform=axes.transAxes, fontsize=8.5, alpha=0.7)


def plain(key: str) -> str:
    """*key* as part of a file's name."""
    return re.sub(r"\W+", "_", key)
