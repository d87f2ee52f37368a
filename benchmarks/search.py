"""Grid, random search and TPE with successive halving on an equal budget of epochs, on the real MNIST.

    python -m benchmarks.search              # five repeats: results/<machine>/search.json and docs/images/search.png
    python -m benchmarks.search --quick      # synthetic images, one repeat, to see that it runs; keeps nothing

Each contender spends 108 epochs: 12 runs of 9, or as many more as pruning allows. They train on 55,000 images and
validate on 5,000 others. The result is the best validation accuracy so far by epochs spent; other load on the machine
does not change it.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks import measure, suite, table
from benchmarks.measure import Benchmark, Case, Spread
from mnist_exp.charts.style import COLOURS, DASHES, Picture, drawn
from mnist_exp.disk import journal, ledger, plan

EPOCHS, RUNS = 9, 12
BUDGET = EPOCHS * RUNS
LOOKS = (27, 54, 108)
COMMON = [f"epochs={EPOCHS}", "tracking=off", "checkpoint=off", "threads=1"]
COMMON += ["hydra.sweeper.report=false", "hydra.launcher.pack=off"]
SPACE = ["hidden=int(interval(16,256))", "lr=tag(log,interval(1e-4,1))", "optimizer=adam,sgd"]
MANY = ["n_trials=45", "hydra.sweeper.max_failures=45"]  # more than the budget pays for
CONTENDERS = {
    "grid": ["hidden=32,128", "lr=1e-3,3e-2,0.5", "optimizer=adam,sgd"],
    "random": ["search=random", f"n_trials={RUNS}", *SPACE],
    "random, halving": ["search=asha", *MANY, *SPACE],
    "TPE, halving": ["search=tpe", *MANY, *SPACE],
}
CURVES = Path(__file__).resolve().parent / "results" / "search_curves.json"


def spent(home: Path) -> tuple[list[float], int, int]:
    """Best validation accuracy so far in percent, for each epoch of the sweep in *home*; number of epochs, of runs."""
    runs = [home / str(number) for number in range(len(plan.read(home).points))]
    rows = [(row["time_ms"], row["metrics"]["val/accuracy"]) for run in runs for row in journal.read(run)]
    best = np.maximum.accumulate([100 * accuracy for _, accuracy in sorted(rows)])
    began = sum((run / "ledger.json").exists() and ledger.read(run).epoch > 0 for run in runs)
    return best.tolist(), len(rows), began


def run(folder: Path, repeats: int, quick: bool) -> tuple[Benchmark, dict[str, list[list[float]]]]:
    """Runs the contenders in turns; returns the benchmark, and the curves of each over epochs spent."""
    curves: dict[str, list[list[float]]] = {name: [] for name in CONTENDERS}
    saved: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    images = ["data=synthetic", "data.train_images=500", "data.val_size=100"] if quick else []
    for seed in range(repeats):
        for name, typed in CONTENDERS.items():
            own = [f"seed={seed}", f"hydra.sweeper.seed={seed}", *images]
            try:
                measure.command([*suite.OURS, "-m", *COMMON, *typed, *own], folder)
            except RuntimeError as error:
                if "ended with 1:" not in str(error):  # 1: some runs diverged, which is normal at such rates
                    raise
            (home,) = (path.parent for path in folder.glob("outputs/sweeps/*/*/sweep.json"))
            best, epochs, began = spent(home)
            curves[name].append(best[:BUDGET])
            saved[name].append(100 * (1 - epochs / (began * EPOCHS)))
            shutil.rmtree(folder / "outputs")
        if not quick:
            CURVES.write_text(json.dumps(curves), encoding="utf-8")
    cases = [
        Case(
            f"after {look} epochs", {name: Spread([c[min(look, len(c)) - 1] for c in curves[name]]) for name in curves}
        )
        for look in LOOKS
    ]
    cases.append(Case("epochs saved by pruning", {name: Spread(saved[name]) for name in saved if "halving" in name}))
    notes = [
        "best validation accuracy (5,000 images) of any epoch so far; training on 55,000 images",
        "saved: epochs not trained of all that the begun runs would have had",
    ]
    return Benchmark("search", "Search on an equal budget of epochs", "%", cases, notes), curves


@drawn
def draw(curves: dict[str, list[list[float]]]) -> Picture:
    """Median and extremes of each contender over epochs spent."""
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for i, (name, repeats) in enumerate(curves.items()):
        length = min(map(len, repeats))
        values = np.array([repeat[:length] for repeat in repeats])
        epochs = np.arange(1, length + 1)
        axes.fill_between(epochs, values.min(0), values.max(0), color=COLOURS[i], alpha=0.15, linewidth=0)
        axes.plot(epochs, np.median(values, 0), color=COLOURS[i], linestyle=DASHES[i], label=name)
    ends = [np.median([repeat[-1] for repeat in repeats]) for repeats in curves.values()]
    axes.set(xlabel="epochs spent", ylabel="best validation accuracy so far, %", ylim=(min(ends) - 2, max(ends) + 0.4))
    axes.legend(loc="lower right")
    return Picture("search", "Search", "Best validation accuracy by epochs spent", figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, writes and draws."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="to see that it runs; keeps nothing")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    with suite.scratch() as folder:
        shutil.rmtree(folder / "outputs", ignore_errors=True)
        benchmark, curves = run(folder, 1 if options.quick else options.repeats, options.quick)
    table.finish(benchmark, not options.quick, draw(curves))


if __name__ == "__main__":
    main()
