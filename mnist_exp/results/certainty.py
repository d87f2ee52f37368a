"""How sure it is which setting of a ranking is the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

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
    return Certainty(interval, [i for i in rivals if i], len(everyone), luck)


def contenders(settings: Sequence[Replicates], look: int) -> list[int]:
    """Positions of those of *settings* that may be the best, by *look* of `statistics.contenders`; none: none may."""
    compared = _compared(settings)
    positions = list(compared)
    return sorted(positions[i] for i in statistics.contenders(list(compared.values()), look)) if compared else []


def _compared(settings: Sequence[Replicates]) -> dict[int, Scores]:
    """What those of *settings* got right that are compared with the best, by their positions."""
    best = min(settings, key=lambda setting: setting.order)
    return {i: scores for i, each in enumerate(settings) if (scores := _scores(each, best))}


def _scores(setting: Replicates, best: Replicates) -> Scores | None:
    """What *setting* got right of the validation images; None if it is not compared with the *best*."""
    if setting.split != "val" or (setting.failed > 0) != (best.failed > 0):
        return None
    validated = [next((r for r in runs if "final/val_accuracy" in r.metrics), None) for runs in setting.seeds]
    runs = {run.settings.get("seed", i): run for i, run in enumerate(validated) if run}
    right = {seed: _hits(run) for seed, run in runs.items()}
    whole = {seed: images for seed, images in right.items() if images is not None}
    kept = whole if len(whole) == len(runs) and len({len(images) for images in whole.values()}) == 1 else None
    images = len(next(iter(kept.values()))) if kept else _images(list(runs.values()))
    accuracies = {seed: run.metrics["final/val_accuracy"] for seed, run in runs.items()}
    return Scores(accuracies, images, kept) if images else None


def _hits(run: Run) -> np.ndarray | None:
    """Which validation images *run* got right; None if that was not kept, or is not that of its accuracy."""
    right = hits.read(run.folder, "val") if run.folder else None
    same = right is not None and abs(right.mean() - run.metrics["final/val_accuracy"]) < 1e-6
    return right if same else None


def _images(runs: Sequence[Run]) -> int:
    """How many validation images *runs* have, by their settings; 0 if that is unknown."""
    return min((int(run.settings.get("val_size", 0)) for run in runs), default=0)
