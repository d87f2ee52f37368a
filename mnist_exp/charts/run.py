"""Pictures of one run, drawn without a screen and without pyplot's global state."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_exp.charts.style import SPLIT_COLOURS, seen

SPLIT_DASHES = {"train": "--", "val": "-.", "test": "-"}  # as distinguishable as the colours


def learning_curves(rows: list[dict[str, Any]], title: str) -> Figure:
    """Loss (log axis) and accuracy over epochs, for each split, from *rows* of `metrics.jsonl`, at least one."""
    figure = Figure(figsize=(9, 3.6))
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, top=0.88, wspace=0.22)
    figure.suptitle(title, fontsize=10, parse_math=False)
    loss, accuracy = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for split, colour in SPLIT_COLOURS.items():
        if f"{split}/loss" not in rows[0]["metrics"]:
            continue
        style = {"color": colour, "linestyle": SPLIT_DASHES[split], "marker": "o", "markersize": 3, "label": split}
        loss.plot(epochs, [row["metrics"][f"{split}/loss"] for row in rows], **style)
        accuracy.plot(epochs, [100 * row["metrics"][f"{split}/accuracy"] for row in rows], **style)
    loss.set(yscale="log", ylabel="loss", xlabel="epoch")
    accuracy.set(ylabel="accuracy, %", xlabel="epoch")
    for axes in (loss, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    accuracy.legend()
    return figure


def augmented(before: np.ndarray, after: np.ndarray) -> Figure:
    """Images as they are in the top row, and what augmentation makes of them below.

    Args:
        before: (n, channel, height, width), 0 to 255.
        after: (m, n, channel, height, width), likewise: m versions of each.
    """
    edge = np.pad(np.concatenate([before[None], after]), (*3 * [(0, 0)], (1, 1), (1, 1)), constant_values=64)
    rows, columns, _, height, width = edge.shape
    sheet = seen(edge.transpose(2, 0, 3, 1, 4).reshape(1, -1, rows * height, columns * width))[0]
    figure = Figure(figsize=(columns * 0.6 + 0.9, rows * 0.6))
    axes = figure.add_axes((0.9 / figure.get_figwidth(), 0, 1 - 0.9 / figure.get_figwidth(), 1))
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([height / 2, (1 + rows) * height / 2], ["original", "augmented"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
