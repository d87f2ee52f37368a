"""Intervals and comparisons against scipy's and McNemar's, and their rates of error by simulation."""

import math

import numpy as np
import pytest
from scipy import special, stats

from mnist_exp.results.statistics import Scores, contenders, difference, explained, highest, interval, luck, wilson


def scores(table: np.ndarray, first_seed: int = 0) -> Scores:
    """Those of *table*, (seeds, images) booleans."""
    hits = dict(enumerate(table, start=first_seed))
    return Scores({seed: float(right.mean()) for seed, right in hits.items()}, table.shape[1], hits)


@pytest.mark.parametrize(("right", "images"), [(4908, 5000), (0, 20), (20, 20), (1, 3)])
def test_one_seed_has_the_interval_of_wilson(right: int, images: int) -> None:
    expected = stats.binomtest(right, images).proportion_ci(method="wilson")
    assert interval(Scores({7: right / images}, images)) == pytest.approx((expected.low, expected.high))
    assert wilson(right / images, images) == pytest.approx((expected.low, expected.high))


def test_several_seeds_have_the_interval_of_student() -> None:
    values = [0.981, 0.983, 0.979, 0.982]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert interval(Scores(dict(enumerate(values)), 5000)) == pytest.approx(expected)
    assert interval(Scores({0: 1.0, 1: 0.9}, 10))[1] == 1.0


def test_two_trainings_on_the_same_images_are_compared_as_mcnemar_does() -> None:
    one, other = np.ones((1, 1000), bool), np.ones((1, 1000), bool)
    one[0, :10], other[0, 5:35] = False, False  # 25 only the first, 5 only the second
    estimate = difference(scores(one), scores(other))
    assert estimate.mean == pytest.approx(0.020)
    assert estimate.error == pytest.approx(math.sqrt((30 - 20**2 / 1000) / 999 / 1000))
    assert estimate.error < difference(Scores({0: 0.99}, 1000), Scores({0: 0.97}, 1000)).error


def test_shared_seeds_are_compared_in_pairs() -> None:
    """A seed that is bad for both costs nothing; without pairs it would hide the difference."""
    rng = np.random.default_rng(0)
    bad = rng.random((4, 2000)) < np.array([[0.02], [0.10], [0.04], [0.30]])
    better, worse = ~bad, ~(bad | (rng.random((4, 2000)) < 0.01))
    paired, apart = difference(scores(better), scores(worse)), difference(scores(better), scores(worse, first_seed=9))
    assert paired.mean == pytest.approx(apart.mean)
    assert paired.excludes_zero()
    assert not apart.excludes_zero()


def test_seeds_alone_are_compared_as_welch_does_where_images_decide_nothing() -> None:
    a, b = [0.98, 0.99, 0.97], [0.95, 0.96, 0.955, 0.94]
    welch = stats.ttest_ind(a, b, equal_var=False)
    estimate = difference(Scores(dict(enumerate(a)), 10**9), Scores(dict(enumerate(b)), 10**9))
    assert estimate.mean / estimate.error == pytest.approx(welch.statistic, rel=1e-4)
    assert estimate.freedom == pytest.approx(welch.df, rel=1e-4)


def test_what_groups_explain_is_omega_squared_with_the_p_value_of_f() -> None:
    groups = [np.array([1.0, 2, 3]), np.array([2.0, 3, 4]), np.array([5.0, 6, 7])]
    share, p = explained(groups)
    assert share == pytest.approx((26 - 2 * 1) / (32 + 1))  # sums of squares: 26 between, 6 within, of 6 freedoms
    assert p == pytest.approx(stats.f_oneway(*groups).pvalue)
    assert explained([np.array([1.0, 1.0]), np.array([2.0])]) == (1.0, 0.0)
    assert explained([np.array([1.0, 2.0])]) == (0.0, 1.0)


def test_groups_that_do_not_differ_explain_nothing_on_average_and_are_named_in_5_of_100_sweeps() -> None:
    """η² would be 5 / 11 on average."""
    found = [explained(list(row)) for row in np.random.default_rng(4).normal(0.98, 0.001, (2000, 6, 2))]
    assert np.mean([share for share, _ in found]) == pytest.approx(0, abs=0.02)
    assert np.mean([p < 0.05 for _, p in found]) == pytest.approx(0.05, abs=0.015)


def test_identical_settings_cannot_be_told_apart() -> None:
    same = scores(np.ones((2, 50), bool))
    assert contenders([same, same, same]) == [0, 1, 2]
    assert difference(same, same).error == 0


def test_more_comparisons_need_more_evidence() -> None:
    rng = np.random.default_rng(0)
    best, second = scores(rng.random((1, 5000)) < 0.985), scores(rng.random((1, 5000)) < 0.9792)
    others = [scores(rng.random((1, 5000)) < 0.5) for _ in range(100)]
    assert contenders([second, best]) == [1]
    assert contenders([second, best, *others]) == [1, 0]


@pytest.mark.integration
def test_the_best_of_many_equal_settings_promises_too_much() -> None:
    assert highest(1) == pytest.approx(0, abs=1e-6)
    assert highest(2) == pytest.approx(1 / math.sqrt(math.pi), rel=1e-3)
    assert 0.10 * highest(12) == pytest.approx(0.163, abs=1e-3)
    assert 0.10 * highest(60) == pytest.approx(0.232, abs=1e-3)
    rng = np.random.default_rng(0)
    sweeps = [[scores(rng.random((1, 1000)) < 0.98) for _ in range(12)] for _ in range(200)]
    excess = [max(each.mean for each in sweep) - 0.98 for sweep in sweeps]
    assert np.mean([luck(sweep) for sweep in sweeps]) == pytest.approx(np.mean(excess), rel=0.15)
    assert luck(sweeps[0][:1]) == 0


def trained(rng: np.random.Generator, difficulty: np.ndarray, seeds: int, better: float = 0.0) -> Scores:
    """A setting whose networks differ by seed, on images of such *difficulty* (logits)."""
    seed = rng.normal(0, 0.15, (seeds, 1))
    own = rng.normal(0, 0.7, (seeds, len(difficulty)))
    return scores(rng.random((seeds, len(difficulty))) < special.expit(difficulty + seed + own + better))


DRAWS = 10_000


def allowed(rate: float) -> float:
    """What a true *rate* may show in `DRAWS` draws: four standard errors more."""
    return rate + 4 * math.sqrt(rate * (1 - rate) / DRAWS)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("settings", [2, 6])
def test_the_best_setting_is_among_the_contenders_in_95_of_100_sweeps(seeds: int, settings: int) -> None:
    """Even where all are equally good, which is the hardest case."""
    rng, missed = np.random.default_rng(1), 0
    for _ in range(DRAWS):
        difficulty = rng.normal(3.9, 2.0, 300)
        missed += 0 not in contenders([trained(rng, difficulty, seeds) for _ in range(settings)])
    assert missed / DRAWS <= allowed(0.05)


@pytest.mark.slow
def test_intervals_hold_the_truth_in_95_of_100_runs() -> None:
    rng = np.random.default_rng(2)
    right = rng.binomial(5000, 0.982, DRAWS)
    one = [low <= 0.982 <= high for low, high in (wilson(n / 5000, 5000) for n in right)]
    assert 0.94 <= np.mean(one) <= 0.96
    values = rng.normal(0.982, 0.001, (DRAWS, 3))
    several = [interval(Scores(dict(enumerate(row)), 5000)) for row in values]
    assert np.mean([low <= 0.982 <= high for low, high in several]) == pytest.approx(0.95, abs=0.01)


def test_a_clear_winner_stands_alone() -> None:
    rng = np.random.default_rng(3)
    difficulty = rng.normal(3.9, 2.0, 5000)
    settings = [trained(rng, difficulty, 3, better) for better in (0.0, 0.9, 0.0)]
    assert contenders(settings) == [1]
