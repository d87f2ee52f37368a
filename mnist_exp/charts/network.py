"""Pictures of one network: what it gets wrong, how sure it is, and what its first layer looks for.

Everywhere *where* are the images, as text, and *names* those of the classes.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from mnist_exp.charts.style import COLOURS, INK, MUTED, Picture, canvas, drawn, plain_ticks, seen
from mnist_exp.console.formats import percent


@drawn
def confusion(matrix: np.ndarray, where: str, names: Sequence[str]) -> Picture:
    """Counts (class, class) of true against predicted classes; the diagonal is muted, so that mistakes show."""
    side = max(1.0, len(matrix) / 20)  # as many inches for 20 classes as for ten, more for more
    figure, axes = canvas(5 * side, 4.6 * side)
    axes.grid(False)
    wrong = matrix * (1 - np.eye(len(matrix), dtype=int))
    shade = np.zeros((*matrix.shape, 4))
    shade[:] = to_rgba(COLOURS[1])
    shade[..., 3] = 0.8 * wrong / max(wrong.max(), 1)  # by opacity: right on light and on dark pages
    axes.imshow(shade)
    small = 8 if side == 1 else 6
    for true, guess in np.ndindex(*matrix.shape):
        if count := matrix[true, guess]:
            muted = 0.7 if true == guess else 1.0
            text = axes.text(guess, true, str(count), ha="center", va="center", fontsize=small, color=INK, alpha=muted)
            text.set_in_layout(False)  # it lies inside; measuring it is slow
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_xticks(range(len(names)), names, rotation=0 if _short(names) else 90)
    axes.set_yticks(range(len(names)), names)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8 if side > 1 else None)
    alt = f"Confusion matrix of the {where}: {wrong.sum()} of {matrix.sum()} images are taken for another class."
    return Picture("confusion", f"Confusion matrix, {where}", alt, figure)


@drawn
def mistakes(
    images: np.ndarray, true: np.ndarray, predicted: np.ndarray, p: np.ndarray, where: str, names: Sequence[str]
) -> Picture:
    """The most confident mistakes, most confident first.

    Args:
        images: (n, channel, height, width), 0 to 255.
        true, predicted: (n,) classes.
        p: (n,) probability that the network gave to its answer.
    """
    columns = 5
    rows = max(1, -(-len(images) // columns))
    short = _short(names)
    height = 1.2 if short else 1.5  # inches of a picture with its title; it is one inch wide
    figure, axes = canvas(columns, height * rows)  # one for all: twenty would take half a second
    axes.set_axis_off()
    for i, image in enumerate(seen(images)):
        left, bottom = i % columns, height * (i // columns + 1)
        span = (left + 0.04, left + 0.96, bottom, bottom - 0.92)
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=255, extent=span)
        answer = f"{names[true[i]]}", f"→ {names[predicted[i]]},", capped(p[i])
        title = (" " if short else "\n").join(answer)
        axes.text(left + 0.5, bottom - 0.96, title, fontsize=8, ha="center", va="bottom", in_layout=False)
    axes.set(xlim=(0, columns), ylim=(height * rows, 0))
    listed = "; ".join(f"a {names[t]} taken for a {names[g]}" for t, g in zip(true[:5], predicted[:5], strict=True))
    alt = f"The {len(images)} most confident mistakes on the {where}, such as {listed}."
    return Picture("mistakes", "Most confident mistakes: true → predicted", alt, figure)


@drawn
def reliability(bins: np.ndarray, ece: float, where: str) -> Picture:
    """How often answers are right, against how sure the network is; below, how many answers are that sure.

    Args:
        bins: (m, 3): for each bin of confidence its images, their mean confidence, and the share that is right.
        ece: Expected calibration error, 0 to 1.
    """
    images, confidence, right = bins.T
    edges, filled = np.linspace(0, 1, len(bins) + 1), images > 0
    middle = (edges[1:] + edges[:-1]) / 2
    figure = Figure(figsize=(5, 5))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 1), (0, 1), color=MUTED, linestyle="--", label="as right as sure")
    upper.bar(middle[filled], right[filled], 1 / len(bins), color=COLOURS[0], alpha=0.35, edgecolor=COLOURS[0])
    upper.plot(confidence[filled], right[filled], "o-", color=COLOURS[0], markersize=4, label="this network")
    upper.set(ylabel="share right", ylim=(0, 1.02), xlim=(0, 1))
    upper.legend(loc="upper left")
    lower.bar(middle[filled], images[filled], 1 / len(bins), color=COLOURS[5], edgecolor=COLOURS[0])
    lower.set(yscale="log", ylabel="images", xlabel="confidence")
    plain_ticks(lower.yaxis)
    mean = float(np.average(confidence, weights=images)), float(np.average(right, weights=images))
    alt = f"Reliability on the {where}: {capped(mean[0])} sure on average, {capped(mean[1])} right; ECE {percent(ece)}."
    return Picture("reliability", f"Reliability, {where}: ECE {percent(ece)}", alt, figure)


@drawn
def first_layer(weights: np.ndarray) -> Picture:
    """Weights of the first layer as tiles, zero in the middle of the colours; the 64 largest if there are more.

    Args:
        weights: (units, height, width).
    """
    norms = np.linalg.norm(weights.reshape(len(weights), -1).astype(float), axis=1)  # of a diverged one beyond float32
    chosen = weights[np.argsort(-norms, kind="stable")[:64]]
    columns = int(np.ceil(np.sqrt(len(chosen))))
    rows = -(-len(chosen) // columns)
    height, width = chosen.shape[1:]
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for i, tile in enumerate(chosen):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        sheet[top : top + height, left : left + width] = tile
    figure, axes = canvas(5, max(1.2, 4.6 * rows / columns))
    axes.set_axis_off()
    bound = float(np.quantile(np.abs(chosen), 0.995)) or 1.0
    image = axes.imshow(sheet, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, extend="both")
    bar.outline.set_visible(False)
    bar.set_label("weight")
    units = f"{len(chosen)} of {len(weights)} units"
    alt = f"Weights of the first layer, {units}, as pictures: red positive, blue negative."
    return Picture("first_layer", f"First layer, {units}", alt, figure)


def capped(share: float) -> str:
    """A probability in percent, never rounded up to certainty."""
    return percent(min(share, 0.999), 1) if share < 1 else "100 %"


def _short(names: Sequence[str]) -> bool:
    """Whether they are single characters, which need no room."""
    return max(map(len, names)) == 1
