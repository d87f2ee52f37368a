"""A race against equal seeds for all settings, on an equal number of runs of the real MNIST.

    python -m benchmarks.race              # 12 settings, 20 seeds each, 3 epochs: results/<machine>/race.json
    python -m benchmarks.race --quick      # synthetic images, few seeds, to see that it runs; keeps nothing

One grid trains all settings with all seeds. Then both ways of spending runs are replayed on it, with its seeds in 200
orders. The best setting is that of the highest mean validation accuracy over all seeds; what counts is how often each
way finds it, and how much worse its choice is. Other load on the machine does not change either.

The same seeds tell what several of them for each trial of a search are worth: how often the better one of two settings
has the higher mean, and how much worse the choice is, of all settings with one seed or of some with several, by as many
runs.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import measure, suite, table
from benchmarks.measure import Benchmark, Case, Spread
from mnist_exp.console.formats import plural
from mnist_exp.disk import hits, plan
from mnist_exp.results.statistics import Scores, contenders
from mnist_exp.sweep.race import Race

SETTINGS = ["hidden=48,64,96,128", "lr=1e-3,2e-3,4e-3"]
COMMON = ["data.order_seed=0", "tracking=off", "checkpoint=off", "threads=1", "hydra.sweeper.report=false"]
ORDERS = 200
EACH = (4, 6, 8)
"""Seeds that each setting has where all have as many; a race has as many runs."""
SEEDS = (1, 2, 3, 6)
"""Seeds of a trial."""


def trained(folder: Path, seeds: int, images: Sequence[str]) -> np.ndarray:
    """Which validation images each setting gets right with each seed: (setting, seed, image)."""
    typed = [*SETTINGS, f"seed=range(0,{seeds})", *COMMON, *images]
    measure.command([*suite.OURS, "-m", *typed], folder)
    (home,) = (path.parent for path in folder.glob("outputs/sweeps/*/*/sweep.json"))
    right: dict[tuple[str, ...], list[np.ndarray]] = {}
    for number, point in enumerate(plan.read(home).points):
        kept = hits.read(home / str(number), "val")
        assert kept is not None
        right.setdefault(tuple(o for o in point if not o.startswith("seed=")), []).append(kept)
    return np.stack([np.stack(each) for each in right.values()])


def raced(right: np.ndarray, limit: int) -> list[int]:
    """The settings that a race leaves which takes its seeds from *right* (setting, seed, image), the best first.

    Args:
        limit: The most runs.
    """
    race = Race(None, [[]] * len(right), [""] * right.shape[1], 3, None, limit)  # type: ignore[arg-type]
    left, n, spent, look = list(range(len(right))), 0, 0, 0
    while len(left) > 1 and (new := race.more(n, len(left), spent)):
        n, spent, look = n + new, spent + new * len(left), look + 1
        scores = []
        for i in left:
            kept = dict(enumerate(right[i, :n]))
            scores.append(Scores({seed: float(each.mean()) for seed, each in kept.items()}, right.shape[2], kept))
        left = [left[i] for i in contenders(scores, look)]
    return left


def compared(right: np.ndarray, orders: int) -> list[Case]:
    """How both ways do on *right*, with its seeds in so many orders."""
    rng, truth, cases = np.random.default_rng(0), right.mean((1, 2)), []
    for each in EACH:
        chosen: dict[str, list[int]] = {"race": [], "equal seeds": []}
        for _ in range(orders):
            shuffled = right[:, rng.permutation(right.shape[1])]
            chosen["race"].append(raced(shuffled, each * len(right))[0])
            chosen["equal seeds"].append(int(shuffled[:, :each].mean((1, 2)).argmax()))
        found = {way: Spread([100 * float(np.mean(several == truth.argmax()))]) for way, several in ways(chosen)}
        worse = {way: Spread([100 * float((truth.max() - truth[several]).mean())]) for way, several in ways(chosen)}
        cases.append(Case(f"{each * len(right)} runs: how often the best was found", found))
        cases.append(Case(f"{each * len(right)} runs: how much worse the choice is", worse))
    return cases


def seeded(right: np.ndarray, orders: int) -> list[Case]:
    """What one seed and several for each trial come to on *right*, with its seeds and settings in so many orders."""
    rng, truth, scores = np.random.default_rng(0), right.mean((1, 2)), right.mean(2)
    a, b = np.triu_indices(len(truth), 1)
    agreed: dict[str, Spread] = {}
    worse: dict[str, Spread] = {}
    for n in SEEDS:
        agrees, lost = [], []
        for _ in range(orders):
            means = scores[:, rng.permutation(scores.shape[1])[:n]].mean(1)
            agrees.append(((means[a] > means[b]) == (truth[a] > truth[b])).mean())
            tried = rng.permutation(len(truth))[: len(truth) // n]
            lost.append(truth.max() - truth[tried[means[tried].argmax()]])
        name = plural(n, "seed")
        agreed[name], worse[name] = Spread([100 * float(np.mean(agrees))]), Spread([100 * float(np.mean(lost))])
    cases = [Case("two settings: how often the better one is chosen", agreed)]
    return [*cases, Case(f"{len(truth)} runs of a search: how much worse the choice is", worse)]


def ways(chosen: dict[str, list[int]]) -> list[tuple[str, np.ndarray]]:
    """Each way with the settings that it has chosen."""
    return [(way, np.array(several)) for way, several in chosen.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, replays, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.race", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="to see that it runs; keeps nothing")
    options = parser.parse_args(arguments)
    quick = ["data=synthetic", "data.train_images=500", "data.val_size=100", "epochs=1"]
    with suite.scratch() as folder:
        shutil.rmtree(folder / "outputs", ignore_errors=True)
        right = trained(folder, 8 if options.quick else 20, quick if options.quick else ["epochs=3"])
        shutil.rmtree(folder / "outputs")
    notes = ["of 200 orders of the same seeds", "points of validation accuracy (5,000 images), mean over all seeds"]
    orders = 5 if options.quick else ORDERS
    cases = compared(right, orders) + seeded(right, orders)
    benchmark = Benchmark("race", "A race and equal seeds on an equal number of runs", "%", cases, notes)
    table.finish(benchmark, not options.quick)


if __name__ == "__main__":
    main()
