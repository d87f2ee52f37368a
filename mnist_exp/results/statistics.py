"""How sure an accuracy is, and which settings may be the best. Accuracies lie between 0 and 1.

Two things are random: which images validate, and the seed of a training. Settings of a sweep share their images, so
a difference between two of them is far surer than either accuracy: what both get right says nothing.

Sources: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927, for one training.
McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 1947, for two
trainings on the same images, which `difference` is with one seed each. With several seeds it is the two-way layout of
random images and random seeds: Cornfield and Tukey, "Average values of mean squares in factorials", Ann. Math. Stat.
1956, with the degrees of freedom of Satterthwaite, Biometrics Bulletin 1946, and Welch, Biometrika 1947. Which
settings may be the best: Gupta, "On some multiple decision (selection and ranking) rules", Technometrics 1965.
What a key explains of the variance of many runs: ω² of Hays, "Statistics for Psychologists", 1963, and the F test of
Fisher, "Statistical Methods for Research Workers", 1925.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy import special

CONFIDENCE = 0.95


@final
@dataclass(frozen=True)
class Scores:
    """What the replicates of one setting got right."""

    accuracies: dict[int, float]
    """Of each seed."""
    images: int
    """Number of the images on which they were measured."""
    hits: dict[int, np.ndarray] | None = None
    """For each seed, which images (images,) it got right, as booleans; None: that was not kept."""
    part: tuple[object, ...] = ()
    """Which folds these images are; those of other folds are other images."""

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds."""
        return sum(self.accuracies.values()) / len(self.accuracies)


@final
@dataclass(frozen=True)
class Difference:
    """An estimated difference between the accuracies of two settings."""

    mean: float
    error: float
    """Its standard error."""
    freedom: float
    """Degrees of freedom of that."""

    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the difference."""
        margin = float(special.stdtrit(self.freedom, (1 + CONFIDENCE) / 2)) * self.error
        return self.mean - margin, self.mean + margin

    def excludes_zero(self, tests: int = 1) -> bool:
        """Whether the first setting is better, one-sided, when this is one of *tests* (Bonferroni)."""
        return self.mean > float(special.stdtrit(self.freedom, 1 - (1 - CONFIDENCE) / tests)) * self.error


def interval(scores: Scores) -> tuple[float, float]:
    """The 95 % confidence interval of an accuracy: Wilson's for one seed, Student's between several.

    The first is about this one network on other images; the second about other seeds on these images.
    """
    if len(scores.accuracies) == 1:
        return wilson(scores.mean, scores.images)
    n = len(scores.accuracies)
    margin = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * _sd(list(scores.accuracies.values())) / math.sqrt(n)
    return max(0.0, scores.mean - margin), min(1.0, scores.mean + margin)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a probability of which *share* was seen in *count* independent trials."""
    z2 = float(special.ndtri((1 + CONFIDENCE) / 2)) ** 2 / count
    middle, half = share + z2 / 2, math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


def difference(a: Scores, b: Scores) -> Difference:
    """How much more *a* gets right than *b*: on these and other images, with these and other seeds.

    With one seed, what another seed would change is unknown and left out. Where it is not known which images were
    right, the two count as measured on different images, which makes the difference less sure than it is.
    """
    mean = a.mean - b.mean
    if a.hits is None or b.hits is None or (a.images, a.part) != (b.images, b.part):
        parts = [_of_seeds(list(s.accuracies.values())) for s in (a, b)]
        parts += [(s.mean * (1 - s.mean) / s.images, math.inf) for s in (a, b)]
        return _sum(mean, parts)
    if a.hits.keys() == b.hits.keys() and len(a.hits) > 1:
        paired = [a.hits[seed].astype(float) - b.hits[seed] for seed in a.hits]
        return _sum(mean, _two_way(np.stack(paired)))
    one, other = (np.stack(list(s.hits.values())).astype(float) for s in (a, b) if s.hits)
    images = one.mean(0) - other.mean(0)
    parts = [(float(images.var(ddof=1)) / len(images), len(images) - 1.0)]
    for table in (one, other):  # seeds that are not the same ones add up
        parts += _two_way(table)[1:]
    return _sum(mean, parts)


def contenders(settings: Sequence[Scores], look: int = 0) -> list[int]:
    """Positions of the settings that may be the best, that of the highest mean first.

    Gupta's subset: it has the truly best one with a probability of 95 % or more, however many settings are compared.

    Args:
        look: Which look at growing results this is, from 1 on; 0: the only one. Look j may be wrong in
            5 % / (j (j + 1)) of all cases: these add up to 5 %, however many looks there are.
    """
    order = sorted(range(len(settings)), key=lambda i: -settings[i].mean)
    first, *others = order
    tests = max(1, len(others)) * max(1, look * (look + 1))
    return [first, *(i for i in others if not difference(settings[first], settings[i]).excludes_zero(tests))]


def luck(settings: Sequence[Scores]) -> float:
    """By how much the highest of as many *settings* would exceed their mean if all were equally good.

    That is the expected maximum of independent normal errors, of the size that the differences to the best one have.
    """
    first, *others = sorted(settings, key=lambda scores: -scores.mean)
    error = float(np.median([difference(first, other).error for other in others])) / math.sqrt(2) if others else 0.0
    return error * highest(len(settings))


def highest(count: int) -> float:
    """The expected maximum of *count* independent standard normal numbers."""
    middles = (np.arange(100_000) + 0.5) / 100_000
    return float(special.ndtri(middles ** (1 / count)).mean())


def explained(groups: Sequence[np.ndarray]) -> tuple[float, float]:
    """How much of the variance of runs is between *groups*, and how likely so much is where they do not differ.

    Args:
        groups: Accuracies (n,) of each group; together more than there are groups, and not all equal.

    Returns:
        ω², at most 1, below 0 where groups differ by less than chance; and the p-value of the F test. The plain share
        of the sum of squares, η², is 45 % by chance alone where six groups have two runs each.
    """
    everyone = np.concatenate(groups)
    within = float(sum(((group - group.mean()) ** 2).sum() for group in groups))
    total = float(((everyone - everyone.mean()) ** 2).sum())
    above, below = len(groups) - 1, len(everyone) - len(groups)
    if not above:
        return 0.0, 1.0
    error = within / below
    # The tail of F as a beta integral: F itself is infinite where nothing varies within a group.
    p = float(special.betainc(below / 2, above / 2, within / total))
    return (total - within - above * error) / (total + error), p


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1))


def _of_seeds(accuracies: Sequence[float]) -> tuple[float, float]:
    """Variance of their mean, and its degrees of freedom; none with one seed."""
    if len(accuracies) == 1:
        return 0.0, math.inf
    return _sd(accuracies) ** 2 / len(accuracies), len(accuracies) - 1.0


def _two_way(table: np.ndarray) -> list[tuple[float, float]]:
    """The variance of the mean of *table* (seeds, images) in parts that add up, with their degrees of freedom.

    The first is that of images, the others those of seeds and of what is left, which the first two count twice.
    """
    seeds, images = table.shape
    by_image = (float(table.mean(0).var(ddof=1)) / images, images - 1.0)
    if seeds == 1:
        return [by_image]
    by_seed = (float(table.mean(1).var(ddof=1)) / seeds, seeds - 1.0)
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    freedom = (seeds - 1.0) * (images - 1)
    return [by_image, by_seed, (-float((rest**2).sum()) / freedom / (seeds * images), freedom)]


def _sum(mean: float, parts: Sequence[tuple[float, float]]) -> Difference:
    """*mean* with the variance that *parts* add up to, and Satterthwaite's degrees of freedom."""
    largest = max(variance for variance, _ in parts)
    variance = max(sum(variance for variance, _ in parts), largest)  # what is left is only estimated, too
    spread = sum(variance**2 / freedom for variance, freedom in parts)
    return Difference(mean, math.sqrt(variance), variance**2 / spread if spread else math.inf)
