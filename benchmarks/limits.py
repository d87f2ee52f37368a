"""Test error by number of training images, of two recipes of `conf/experiment`, on the real MNIST.

    python -m benchmarks.limits              # results/<machine>/limits.json and docs/images/limits.png
    python -m benchmarks.limits --quick      # synthetic images, one seed, to see that it runs; keeps nothing

One sweep trains each recipe on some of the images, each class by its share, with three seeds. 5,000 others validate.
The number of epochs is that of the recipe, so fewer images are fewer steps, too. Other load on the machine does not
change the result.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from benchmarks import measure, suite, table
from benchmarks.measure import Benchmark, Case, Spread
from mnist_exp import results
from mnist_exp.charts.style import COLOURS, DASHES, MARKERS, Picture, drawn, plain_ticks

RECIPES = ("mlp128", "small_cnn")
LIMITS = (500, 2000, 8000)
COMMON = ["tracking=off", "checkpoint=off", "threads=1", "hydra.sweeper.report=false"]
NOTES = (
    "error on the 10,000 test images after the recipe's own number of epochs: fewer images are fewer steps, too",
    f"-m experiment={','.join(RECIPES)} data.limit={','.join(map(str, LIMITS))} data.val_size=5000 seed=0,1,2",
)


def trained(
    folder: Path, limits: Sequence[int], seeds: int, images: Sequence[str]
) -> dict[str, dict[int, list[float]]]:
    """Test error in percent of each recipe, with each limit, for each seed."""
    shutil.rmtree(folder / "outputs", ignore_errors=True)
    grid = [f"experiment={','.join(RECIPES)}", f"data.limit={','.join(map(str, limits))}"]
    measure.command([*suite.OURS, "-m", *grid, f"seed=range(0,{seeds})", *COMMON, *images], folder)
    runs = results.load("last", folder / "outputs").assign(
        error=lambda runs: 100 * (1 - runs["final/test_accuracy"]),
        recipe=lambda runs: runs["overrides"].map(lambda typed: chosen(typed, "experiment")),
        limit=lambda runs: runs["overrides"].map(lambda typed: int(chosen(typed, "data.limit"))),
    )
    return {recipe: {limit: errors(runs, recipe, limit) for limit in limits} for recipe in RECIPES}


def chosen(overrides: Sequence[str], key: str) -> str:
    """The value of *key* among *overrides*."""
    return next(each.partition("=")[2] for each in overrides if each.startswith(f"{key}="))


def errors(runs: pd.DataFrame, recipe: str, limit: int) -> list[float]:
    """The errors of those of *runs* with that recipe and limit."""
    return [float(error) for error in runs.loc[(runs["recipe"] == recipe) & (runs["limit"] == limit), "error"]]


@drawn
def draw(errors_of: dict[str, dict[int, list[float]]]) -> Picture:
    """Mean of each recipe over the number of images, and each seed."""
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for i, (recipe, by_limit) in enumerate(errors_of.items()):
        means = [sum(several) / len(several) for several in by_limit.values()]
        line: Any = {"color": COLOURS[i], "linestyle": DASHES[i], "marker": MARKERS[i], "markersize": 5}
        axes.plot(list(by_limit), means, label=f"experiment={recipe}", **line)
        for limit, several in by_limit.items():
            axes.plot([limit] * len(several), several, ".", color=COLOURS[i], alpha=0.5)
    axes.set(xscale="log", yscale="log", xlabel="training images (data.limit)", ylabel="test error, %")
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.legend(loc="upper right")
    return Picture("limits", "Error by number of images", "Test error by number of training images", figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, prints, writes and draws."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="to see that it runs; keeps nothing")
    options = parser.parse_args(arguments)
    quick = ["data=synthetic", "data.train_images=900", "data.test_images=100", "data.val_size=100", "epochs=1"]
    with suite.scratch() as folder:
        limits = (100, 200) if options.quick else LIMITS
        errors_of = trained(
            folder, limits, 1 if options.quick else 3, quick if options.quick else ["data.val_size=5000"]
        )
    cases = [
        Case(f"{limit:,} images", {recipe: Spread(errors_of[recipe][limit]) for recipe in RECIPES}) for limit in limits
    ]
    benchmark = Benchmark("limits", "Test error by number of training images", "%", cases, list(NOTES))
    table.finish(benchmark, not options.quick, draw(errors_of))


if __name__ == "__main__":
    main()
