"""Pictures of one run, drawn without a screen and without pyplot's global state."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Distinguishable without colour vision (Okabe and Ito, 2008), and by line style as well.
COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73"}
STYLES = {"train": "--", "val": "-.", "test": "-"}


def learning_curves(rows: list[dict[str, Any]], title: str) -> Figure:
    """Loss (log axis) and accuracy over epochs, for each split.

    Args:
        rows: As in `metrics.jsonl`, at least one.
    """
    figure = Figure(figsize=(9, 3.6))
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, top=0.88, wspace=0.22)
    figure.suptitle(title, fontsize=10)
    loss, accuracy = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for split, colour in COLOURS.items():
        if f"{split}/loss" not in rows[0]["metrics"]:
            continue
        style = {"color": colour, "linestyle": STYLES[split], "marker": "o", "markersize": 3, "label": split}
        loss.plot(epochs, [row["metrics"][f"{split}/loss"] for row in rows], **style)
        accuracy.plot(epochs, [100 * row["metrics"][f"{split}/accuracy"] for row in rows], **style)
    loss.set(yscale="log", ylabel="loss", xlabel="epoch")
    accuracy.set(ylabel="accuracy, %", xlabel="epoch")
    for axes in (loss, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    accuracy.legend()
    return figure
