"""How sure it is which setting of a ranking is the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, final

import numpy as np

from mnist_exp.disk import hits
from mnist_exp.results import statistics
from mnist_exp.results.ranking import Ranking, Replicates, Run
from mnist_exp.results.statistics import Scores


@final
@dataclass(frozen=True)
class Certainty:
    """What validation tells about the best setting."""

    interval: tuple[float, float]
    """The 95 % confidence interval of its accuracy; see `statistics.interval`."""
    rivals: list[int]
    """Positions in the ranking of the others that may be the best; see `statistics.contenders`."""
    compared: int
    """Number of settings."""
    luck: float
    """By how much the best one would exceed their mean if all were equally good; see `statistics.luck`."""
    seeds: int
    """Number of seeds of the best setting, each with all of its folds."""


def certainty(ranking: Ranking) -> Certainty | None:
    """That of *ranking*; None if no run has finished, or none has validation.

    Settings that are ranked behind because of failed seeds are not compared.
    """
    compared = _compared(ranking.groups)
    if 0 not in compared:
        return None
    positions, everyone = list(compared), list(compared.values())
    rivals = sorted(positions[i] for i in statistics.contenders(everyone))
    interval, luck = statistics.interval(everyone[0]), statistics.luck(everyone)
    return Certainty(interval, [i for i in rivals if i], len(everyone), luck, len(everyone[0].accuracies))


def contenders(settings: Sequence[Replicates], look: int) -> list[int]:
    """Positions of those of *settings* that may be the best, by *look* of `statistics.contenders`; none: none may."""
    compared = _compared(settings)
    positions = list(compared)
    return sorted(positions[i] for i in statistics.contenders(list(compared.values()), look)) if compared else []


def _compared(settings: Sequence[Replicates]) -> dict[int, Scores]:
    """What those of *settings* got right that are compared with the best, by their positions."""
    best = min(settings, key=lambda setting: setting.order)
    return {i: known for i, each in enumerate(settings) if (known := scores(each, best))}


def scores(setting: Replicates, best: Replicates) -> Scores | None:
    """What *setting* got right of the validation images; None if it is not compared with the *best*."""
    if setting.split != "val" or (setting.failed > 0) != (best.failed > 0):
        return None
    seeds = _measured(setting, "val")
    folds = {tuple(sorted(parts, key=str)) for parts in seeds.values()}
    right = {seed: _together(parts) for seed, parts in seeds.items()}
    whole = {seed: images for seed, images in right.items() if images is not None}
    alike = len(folds) == len({len(images) for images in whole.values()}) == 1
    kept = whole if len(whole) == len(seeds) and alike else None
    images = len(next(iter(kept.values()))) if kept else min(map(_images, seeds.values()), default=0)
    return Scores(_accuracies(seeds, "val"), images, kept, next(iter(folds))) if images else None


def interval_of_test(setting: Replicates) -> tuple[float, float] | None:
    """The 95 % confidence interval of its test accuracy, by the rule of validation; see `statistics.interval`.

    Every seed and fold answers the same test images. None if nothing was tested, or one seed on images of which it is
    not known how many there are.
    """
    seeds = _measured(setting, "test")
    right = [_hits(run, "test") for parts in seeds.values() for run in parts.values()]
    images = min((len(each) for each in right if each is not None), default=0)
    return statistics.interval(Scores(_accuracies(seeds, "test"), images)) if images or len(seeds) > 1 else None


def _measured(setting: Replicates, split: str) -> dict[Any, dict[Any, Run]]:
    """For each seed of *setting*, and each of its folds, the first run that was measured on *split*."""
    seeds: dict[Any, dict[Any, Run]] = {}
    for i, same in enumerate(setting.seeds):
        if run := next((each for each in same if f"final/{split}_accuracy" in each.metrics), None):
            seeds.setdefault(run.settings.get("seed", i), {})[run.settings.get("data.fold")] = run
    return seeds


def _accuracies(seeds: Mapping[Any, Mapping[Any, Run]], split: str) -> dict[Any, float]:
    """The mean accuracy on *split* of the runs of each seed."""
    metric = f"final/{split}_accuracy"
    return {seed: fmean(run.metrics[metric] for run in parts.values()) for seed, parts in seeds.items()}


def _together(folds: Mapping[Any, Run]) -> np.ndarray | None:
    """Which validation images the runs of one seed got right, fold after fold; None if that of one was not kept.

    Each image validates in one fold, so all of them together are the answers to the training images.
    """
    right = [_hits(folds[fold], "val") for fold in sorted(folds, key=str)]
    kept = [images for images in right if images is not None]
    return np.concatenate(kept) if len(kept) == len(right) else None


def _hits(run: Run, split: str) -> np.ndarray | None:
    """Which images of *split* the *run* got right; None if that was not kept, or is not that of its accuracy."""
    right = hits.read(run.folder, split) if run.folder else None
    same = right is not None and abs(right.mean() - run.metrics[f"final/{split}_accuracy"]) < 1e-6
    return right if same else None


def _images(folds: Mapping[Any, Run]) -> int:
    """How many validation images the runs of one seed have, by their settings; 0 if that is unknown."""
    sizes = [run.settings.get("val_size") for run in folds.values()]
    return sum(size for size in sizes if isinstance(size, int) and size > 0)
