"""Test accuracy of the default network over seeds, beside plain PyTorch's: `python -m benchmarks.accuracy`.

Speed counts only at unchanged accuracy. The score is that of the last epoch, never the best on the test set.
"""

import tempfile
from pathlib import Path

import pandas as pd

from benchmarks import measure, ours, papers
from benchmarks.measure import Benchmark, Case, Spread
from benchmarks.peers import eager, settings


def ours_once(folder: Path, *overrides: str) -> float:
    """Test accuracy in percent of one of our runs, without a tracker."""
    chosen = ours.configure("tracking=off", "checkpoint=off", *overrides)
    return 100 * ours.train(chosen, folder).summary["final/test_accuracy"]


def compare_paths(root: Path, seeds: int = 5, epochs: int = 10, quick: bool = False) -> Benchmark:
    """Both paths at a constant learning rate, with and without the 5,000 validation images among the training images.

    Args:
        root: torchvision's root folder with MNIST in it.
        quick: Few steps, and synthetic images for ours: only checks that it runs.
    """
    few = ["data=synthetic"] if quick else []
    cases = []
    for label, val_size in (("validation cut off", settings.VAL), ("val_size=0", 0)):
        sized = [] if quick else [f"data.val_size={val_size}"]
        costs: dict[str, list[float]] = {"ours": [], "in-memory PyTorch": [], "ours, schedule=cosine (the default)": []}
        for seed in range(seeds):
            typed = [*few, *sized, f"seed={seed}", f"epochs={epochs}"]
            for name, schedule in (("ours", "constant"), ("ours, schedule=cosine (the default)", "cosine")):
                with tempfile.TemporaryDirectory() as folder:
                    costs[name].append(ours_once(Path(folder) / "run", *typed, f"schedule={schedule}"))
            peer = settings.Settings(epochs=epochs, seed=seed, root=str(root), steps=5 * quick)
            costs["in-memory PyTorch"].append(100 * eager.train(peer, settings.TRAIN + settings.VAL - val_size)[1])
        cases.append(Case(label, {name: Spread(values) for name, values in costs.items()}))
    notes = [
        f"{case.label}, {name}: {papers.summary(pd.Series(spread.values))}"
        for case in cases
        for name, spread in case.costs.items()
    ]
    return Benchmark("accuracy", f"Test accuracy, 784-128-10, Adam, {epochs} epochs", "%", cases, notes)


def main() -> None:
    """Measures and prints."""
    from benchmarks import suite, table

    with suite.scratch() as folder:
        table.show(compare_paths(folder / "root"), measure.environment())


if __name__ == "__main__":
    main()
