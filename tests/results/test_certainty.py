"""Which settings may be the best: with kept answers, without them, and beside settings that failed."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest

from mnist_exp.disk import hits
from mnist_exp.results import ranking
from mnist_exp.results.certainty import Certainty, certainty, interval_of_test
from mnist_exp.results.ranking import Run
from mnist_exp.results.statistics import wilson

IMAGES = 1000


def run_of(folder: Path, key: str, seed: int, wrong: slice, kept: bool = True, state: str = "finished") -> Run:
    """A run of the setting *key* that is right on all validation images but those of *wrong*."""
    right = np.ones(IMAGES, bool)
    right[wrong] = False
    path = folder / f"{key}-{seed}"
    path.mkdir()
    if kept:
        hits.write(path, {"val": right})
    metrics = {"final/val_accuracy": float(right.mean())} if state == "finished" else {}
    return Run(path, state, {"key": key, "seed": seed, "val_size": IMAGES}, metrics, folder=path)


def of(*runs: Run) -> Certainty | None:
    (ranked,) = ranking.rank(runs)
    return certainty(ranked)


@pytest.mark.parametrize("kept", [True, False])
def test_two_networks_that_err_on_the_same_images_can_be_told_apart_by_those_where_they_do_not(
    kept: bool, tmp_path: Path
) -> None:
    """20 and 30 of 1,000 are wrong: by themselves that could be chance, but all of the 20 are among the 30."""
    runs = [run_of(tmp_path, "b", 0, slice(30), kept), run_of(tmp_path, "a", 0, slice(20), kept)]
    sure = of(*runs)
    assert sure is not None
    assert sure.rivals == ([] if kept else [1])
    assert sure.interval[0] < 0.980 < sure.interval[1]


def test_answers_that_are_not_those_of_the_accuracy_do_not_count(tmp_path: Path) -> None:
    """As after a file was copied from elsewhere."""
    runs = [run_of(tmp_path, "b", 0, slice(30)), run_of(tmp_path, "a", 0, slice(20))]
    hits.write(tmp_path / "b-0", {"val": np.ones(IMAGES, bool)})
    sure = of(*runs)
    assert sure is not None
    assert sure.rivals == [1]


@pytest.mark.parametrize("size", ["x", -5, 1e308, None])
def test_a_number_of_images_that_is_none_is_unknown(size: object, tmp_path: Path) -> None:
    """As a record from elsewhere may have it."""
    runs = [run_of(tmp_path, key, 0, slice(30), kept=False) for key in "ab"]
    for run in runs:
        run.settings["val_size"] = size
    assert of(*runs) is None


def test_a_setting_that_is_ranked_behind_for_its_failed_seed_is_no_rival(tmp_path: Path) -> None:
    lone = [run_of(tmp_path, "lone", 0, slice(1)), run_of(tmp_path, "lone", 1, slice(1), state="failed")]
    solid = [run_of(tmp_path, "solid", seed, slice(20 + seed)) for seed in (0, 1)]
    sure = of(*lone, *solid)
    assert sure is not None
    assert sure.rivals == []


def test_nothing_is_said_without_a_finished_run_or_validation(tmp_path: Path) -> None:
    assert of(run_of(tmp_path, "a", 0, slice(1), state="failed")) is None
    assert of(Run("x", "finished", {"key": 1}, {"final/train_accuracy": 0.9})) is None
    assert of(Run("x", "finished", {"key": 1}, {"final/val_accuracy": 0.9})) is None  # of how many images?


@pytest.mark.parametrize(
    ("accuracies", "kept", "between"),
    [
        ([0.98], True, wilson(0.98, IMAGES)),
        ([0.98], False, None),  # of how many images?
        ([0.97, 0.98, 0.99], False, (0.98 - 0.02484, 1.0)),  # Student's: 4.3027 sd / √3
        ([], False, None),
    ],
    ids=["one seed", "unknown images", "several seeds", "nothing tested"],
)
def test_the_interval_of_the_test_accuracy_follows_the_rule_of_validation(
    accuracies: list[float], kept: bool, between: tuple[float, float] | None, tmp_path: Path
) -> None:
    runs = [run_of(tmp_path, "a", seed, slice(5), kept=False) for seed in range(len(accuracies) or 1)]
    for run, accuracy in zip(runs, accuracies, strict=False):
        run.metrics["final/test_accuracy"] = accuracy  # type: ignore[index]  # a dict
        if kept and run.folder:
            hits.write(run.folder, {"test": np.arange(IMAGES) < round(accuracy * IMAGES)})
    (ranked,) = ranking.rank(runs)
    assert interval_of_test(ranked.groups[0]) == (between and pytest.approx(between, abs=1e-5))


def of_folds(folder: Path, key: str, wrong: dict[int, slice], seeds: tuple[int, ...] = (0,)) -> list[Run]:
    """Runs of *key*, one for each fold, which is wrong on these of its images; each seed has other ones wrong."""
    runs = []
    for seed in seeds:
        for fold, images in wrong.items():
            run = run_of(folder, f"{key}{fold}", seed, slice(images.start + seed, images.stop + seed))
            settings = {**run.settings, "key": key, "data.folds": 2, "data.fold": fold}
            runs.append(dataclasses.replace(run, settings=settings))
    return runs


def test_folds_are_compared_image_by_image_within_each() -> None:
    """30 of 2,000 against 20: all of the 20 are among the 30, if each fold is beside itself."""
    with tempfile.TemporaryDirectory() as scratch:
        a = of_folds(Path(scratch), "a", {0: slice(0, 5), 1: slice(100, 115)})
        b = of_folds(Path(scratch), "b", {1: slice(100, 120), 0: slice(0, 10)})
        sure = of(*b, *a)
        assert sure is not None
        assert (sure.rivals, sure.seeds) == ([], 1)
        assert sure.interval == wilson(1 - 20 / 2000, 2000)


def test_other_folds_are_other_images(tmp_path: Path) -> None:
    """The same answers, as if of another fold: nothing is paired, and 30 against 20 may be chance."""
    a = of_folds(tmp_path, "a", {0: slice(0, 20)})
    b = of_folds(tmp_path, "b", {1: slice(0, 30)})
    sure = of(*b, *a)
    assert sure is not None
    assert sure.rivals == [1]
    same = of_folds(tmp_path, "c", {0: slice(0, 30)})
    sure = of(*same, *a)
    assert sure is not None
    assert sure.rivals == []


def test_seeds_with_all_of_their_folds_are_compared_as_seeds(tmp_path: Path) -> None:
    runs = of_folds(tmp_path, "a", {0: slice(0, 20), 1: slice(0, 30)}, seeds=(0, 1, 2))
    sure = of(*runs)
    assert sure is not None
    assert sure.seeds == 3
    assert sure.interval == pytest.approx((0.975, 0.975))  # all seeds are equally good
    partial = of(*runs[:-1])  # one fold of the last seed is missing: that one counts by what it has
    assert partial is not None
    assert partial.interval[0] < partial.interval[1]
