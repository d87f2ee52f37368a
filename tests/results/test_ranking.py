"""The one rule for what is best: which setting comes first, which run stands for it, and that all agree on it."""

import dataclasses
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_fixtures import make_run, make_sweep

from mnist_exp.console.terminal import shown
from mnist_exp.disk.layout import State
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ConfigError
from mnist_exp.report import board as leaderboard
from mnist_exp.results import names as naming
from mnist_exp.results import ranking
from mnist_exp.results.names import Selection
from mnist_exp.results.ranking import Replicates, Run


def run_of(key: str, seed: int | None, accuracy: float | None = None, state: str = "finished", **more: Any) -> Run:
    """A run of the setting *key*; *more*: `loss`, `split`, `data`, `digest`."""
    settings = (
        {"key": key} | ({} if seed is None else {"seed": seed}) | ({"data": more["data"]} if "data" in more else {})
    )
    split = more.get("split", "val")
    metrics = {} if accuracy is None else {f"final/{split}_accuracy": accuracy}
    metrics |= {f"final/{split}_loss": more["loss"]} if "loss" in more else {}
    return Run((key, seed, accuracy), state, settings, metrics, more.get("digest", ""))


def ordered(*runs: Run) -> list[Replicates]:
    (ranked,) = ranking.rank(runs)
    return ranked.groups


def names(*runs: Run) -> list[str]:
    return [setting.runs[0].settings["key"] for setting in ordered(*runs)]


def test_the_mean_over_seeds_decides_and_not_the_luckiest_run() -> None:
    assert names(run_of("lucky", 0, 0.99), run_of("lucky", 1, 0.90), run_of("b", 0, 0.96), run_of("b", 1, 0.95)) == [
        "b",
        "lucky",
    ]


@pytest.mark.parametrize("state", ["failed", "killed", "damaged"])
def test_a_lone_survivor_comes_behind_a_setting_whose_seeds_all_finished(state: str) -> None:
    lone = [run_of("lone", 0, 0.99), *(run_of("lone", seed, state=state) for seed in range(1, 5))]
    assert names(*lone, *(run_of("solid", seed, 0.9) for seed in range(5))) == ["solid", "lone"]


@pytest.mark.parametrize("state", ["planned", "running", "pruned"])
def test_a_seed_that_did_not_fail_costs_nothing(state: str) -> None:
    assert names(run_of("b", 0, 0.9), run_of("a", 0, 0.99), run_of("a", 1, state=state)) == ["a", "b"]


def test_a_seed_that_finished_at_the_second_attempt_did_not_fail() -> None:
    again = [run_of("a", 0, 0.99), run_of("a", 1, state="failed"), run_of("a", 1, 0.98)]
    assert names(run_of("b", 0, 0.9), *again) == ["a", "b"]


def test_of_equal_means_the_lower_loss_comes_first() -> None:
    """Also where rounding makes equal means differ in their last bits."""
    high, low = (0.75, 0.82), (0.76, 0.81)
    assert statistics.fmean(high) != statistics.fmean(low)
    runs = [
        run_of(key, seed, a, loss=loss)
        for key, accuracies, loss in (("a", high, 0.5), ("b", low, 0.4))
        for seed, a in enumerate(accuracies)
    ]
    assert names(*runs) == names(*reversed(runs)) == ["b", "a"]


def test_training_accuracy_is_no_match_for_validation_accuracy() -> None:
    assert names(run_of("a", 0, 0.99, split="train"), run_of("b", 0, 0.5), run_of("c", 0, state="planned")) == [
        "b",
        "a",
        "c",
    ]


def test_the_test_set_chooses_nothing() -> None:
    runs = [run_of("a", 0, 0.9), run_of("b", 0, 0.8)]
    flipped = [Run(r.at, r.state, r.settings, {**r.metrics, "final/test_accuracy": i}) for i, r in enumerate(runs)]
    assert names(*flipped) == names(*runs) == ["a", "b"]


@pytest.mark.parametrize(
    ("accuracies", "median"),
    [([0.9], 0.9), ([0.9, 0.8], 0.8), ([0.9, 0.7, 0.8], 0.8), ([0.6, 0.9, 0.7, 0.8], 0.7)],
)
def test_the_median_run_stands_for_a_setting_and_of_two_the_lower_one(accuracies: list[float], median: float) -> None:
    (group,) = ordered(*(run_of("a", seed, accuracy) for seed, accuracy in enumerate(accuracies)))
    assert group.median is not None
    assert group.median.at[2] == median


def test_of_equally_accurate_runs_the_median_is_by_loss() -> None:
    (group,) = ordered(*(run_of("a", seed, 0.9, loss=loss) for seed, loss in enumerate((0.3, 0.1, 0.2))))
    assert group.median is not None
    assert group.median.at[1] == 2


def test_the_same_seed_twice_is_one_replicate() -> None:
    (group,) = ordered(run_of("a", 0, 0.90), run_of("a", 0, 0.92), run_of("a", 1, 0.95))
    assert group.over_seeds("final/val_accuracy") == [pytest.approx(0.91), 0.95]
    assert group.median is not None
    assert group.median.at == ("a", 0, 0.90)


def test_runs_without_a_known_seed_are_replicates() -> None:
    (group,) = ordered(run_of("a", None, 0.90), run_of("a", None, 0.92))
    assert len(group.seeds) == 2


def test_where_nothing_finished_there_is_no_best() -> None:
    (ranked,) = ranking.rank([run_of("a", 0, state="failed"), run_of("a", 1, 0.5, state="pruned")])
    assert ranked.best is None


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("mnist", ""), ("mnist", "")], {"mnist": [0, 1]}),
        ([("mnist", ""), ("kanji", "")], {"mnist": [0], "kanji": [1]}),
        ([("mnist", "d1"), ("mnist", "d2")], {"mnist-d1": [0], "mnist-d2": [1]}),
        ([("mnist", ""), ("mnist", "d1"), ("kanji", "d2")], {"mnist": [0, 1], "kanji": [2]}),
        ([("", ""), ("mnist", "d1")], {"mnist": [0, 1]}),  # planned, and without data=
        ([("", "")], {"": [0]}),
    ],
)
def test_datasets_are_told_apart_as_far_as_they_are_known(
    pairs: list[tuple[str, str]], expected: dict[str, list[int]]
) -> None:
    runs = [Run(i, "finished", {"data": name} if name else {}, {}, digest) for i, (name, digest) in enumerate(pairs)]
    assert {name: [run.at for run in same] for name, same in ranking.comparable(runs).items()} == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([{"val_size": 200}, {"data.val_size": 200}, {}], {"mnist": [0, 1, 2]}),
        ([{"val_size": 200}, {"val_size": 100}], {"mnist val_size=200": [0], "mnist val_size=100": [1]}),
        ([{"val_size": 0, "split_seed": 0}, {"val_size": 0, "split_seed": 1}], {"mnist": [0, 1]}),  # of no images
        (
            [{"val_size": 9}, {"val_size": 9, "data.split_seed": 1}],
            {"mnist split_seed=0": [0], "mnist split_seed=1": [1]},
        ),
        (
            [{"training.patience": None}, {"training.patience": 2}, {"training.patience": 5}, {}],
            {"mnist without patience": [0, 3], "mnist with patience": [1, 2]},
        ),
        ([{"training.patience": "None"}, {"training.patience": "null"}], {"mnist": [0, 1]}),  # in MLflow, and typed
    ],
)
def test_only_like_is_compared_with_like(settings: list[dict[str, Any]], expected: dict[str, list[int]]) -> None:
    """Other images validate otherwise, and patience keeps the best epoch, which the others would have to be as well."""
    runs = [Run(i, "finished", {"data": "mnist", **each}, {}, "d1") for i, each in enumerate(settings)]
    assert {name: [run.at for run in same] for name, same in ranking.comparable(runs).items()} == expected


STATES = ("finished", "finished", "finished", "failed", "killed", "pruned", "damaged", "planned")
RUNS = st.lists(
    st.fixed_dictionaries(
        {
            "state": st.sampled_from(STATES),
            "hidden": st.sampled_from(["8", "[8,4]", "16"]),
            "lr": st.sampled_from(["1", "1.0", "1e-3", None]),
            "optimizer.nesterov": st.sampled_from([True, False]),
            "training.patience": st.sampled_from([None, 3, ...]),
            "seed": st.integers(0, 2),
            "data": st.sampled_from(["mnist", "mnist", "mnist", "kanji"]),
            "validated": st.sampled_from([True, True, True, False]),
            "accuracy": st.sampled_from([0.5, 0.7, 0.7, 0.9]),
            "loss": st.sampled_from([0.1, 0.2]),
        }
    ),
    min_size=1,
    max_size=8,
)


def made(folder: Path, run: dict[str, Any]) -> list[str]:
    """Leaves in *folder* what such a *run* leaves; returns its point of a sweep."""
    point = [f"{key}={run[key]}" for key in ("hidden", "lr", "seed") if run[key] is not None]
    if run["state"] == "planned":
        return point
    folder.mkdir(parents=True)
    if run["state"] == "damaged":
        (folder / "ledger.json").write_text("{")
        return point
    split = "val" if run["validated"] else "train"
    known = ("hidden", "optimizer.nesterov", "training.patience", "seed", "data")
    Ledger(
        state=run["state"],
        params={key: run[key] for key in known if run[key] is not ...} | {"lr": 0.1},
        dataset={"name": run["data"], "digest": f"digest of {run['data']}"} if run["state"] != "failed" else {},
        summary={f"final/{split}_accuracy": run["accuracy"], f"final/{split}_loss": run["loss"]},
        overrides=point,
        ended_ms=1,
    ).write(folder)
    return point


@pytest.mark.integration
@given(RUNS, st.booleans())
def test_names_and_leaderboards_rank_alike(runs: list[dict[str, Any]], in_a_sweep: bool) -> None:
    """One reads ledgers, the other a table in which numbers may have become others of the same value."""
    with tempfile.TemporaryDirectory() as scratch:
        points = [made(Path(scratch) / "made" / str(i), run) for i, run in enumerate(runs)]
        if in_a_sweep:
            home = make_sweep(Path(scratch), points)
            shutil.copytree(Path(scratch) / "made", home, dirs_exist_ok=True) if (
                Path(scratch) / "made"
            ).exists() else None
            selection = naming.resolve(home)
        else:
            home = Path(scratch) / "made"
            selection = Selection("Runs", home, [home / str(i) for i in range(len(runs))])
        by_name, by_table = naming.rankings(selection), leaderboard.compare(selection)
        assert [each.data for each in by_name] == [each.ranked.data for each in by_table]
        for named, drawn in zip(by_name, by_table, strict=True):
            assert named.by == drawn.by
            assert [[int(run.at.name) for run in setting.runs] for setting in named.groups] == [
                [run.at for run in setting.runs] for setting in drawn.ranked.groups
            ]
            best = drawn.board.loc[0, "best"]
            assert (int(named.best.at.name) if named.best else -1) == best
            assert list(drawn.board["n"]) == [len(setting.seeds) for setting in named.groups]


def two_datasets(root: Path) -> Path:
    """A sweep over `data`, of which both have finished runs."""
    points = [[f"data={data}", f"hidden={h}"] for data in ("mnist", "kanji") for h in (8, 16)]
    sweep = make_sweep(root, points)
    for i, point in enumerate(points):
        make_run(sweep / str(i), point, 0.9 + 0.01 * i)
    return sweep


def test_no_run_is_the_best_on_two_datasets(tmp_path: Path) -> None:
    sweep = two_datasets(tmp_path)
    with pytest.raises(ConfigError) as caught:
        naming.one(sweep)
    assert "has runs that cannot be compared (mnist, kanji), and none is the best of all." in caught.value.message
    for folder, data in ((sweep / "1", "mnist"), (sweep / "3", "kanji")):
        assert f"{shown(folder)} (the best on {data})" in caught.value.help


def test_where_a_run_is_known_by_its_seed_it_is_said(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, [["lr=1", f"seed={seed}"] for seed in range(3)])
    for seed, accuracy in enumerate((0.8, 0.9, 0.85)):
        make_run(sweep / str(seed), ["lr=1", f"seed={seed}"], accuracy)
    assert naming.resolve(f"best:{sweep}").title == f"Best run of Sweep {sweep.name} (seed 2)"


def test_settings_that_vary(tmp_path: Path) -> None:
    make_run(tmp_path / "0", ["lr=0.1", "seed=0"], 0.5)
    make_run(tmp_path / "1", ["lr=0.1", "seed=1"], 0.6)
    make_run(tmp_path / "2", ["lr=0.2", "seed=1"], 0.6)
    runs = [ranking.read(tmp_path / str(i)) for i in range(3)]
    assert ranking.keys(runs[:2]) == []  # seeds of one setting
    assert ranking.keys(runs) == ["lr"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("64", 64),
        ("true", True),
        ("False", False),
        ("nan", "nan"),
        ("[64, 32]", "[64,32]"),
        ("'64'", "64"),
        ("adam", "adam"),
        ([64, 32], "[64,32]"),
        (0.5, 0.5),
        ("", ""),
    ],
)
def test_typed(text: object, value: object) -> None:
    assert (type(ranking.typed(text)), ranking.typed(text)) == (type(value), value)


def test_one_failed_seed_puts_a_setting_behind_those_without() -> None:
    def of(lr: float, seed: int, state: str, accuracy: float) -> ranking.Run:
        metrics = {"final/val_accuracy": accuracy, "final/val_loss": 1 - accuracy}
        return ranking.Run(Path(f"{lr}-{seed}"), State(state), {"lr": lr, "seed": seed}, metrics, "")

    runs = [of(0.1, 0, "finished", 0.99), of(0.1, 1, "failed", 0.1), of(0.2, 0, "finished", 0.9)]
    (ranked,) = ranking.rank(runs)
    assert [setting.failed for setting in ranked.groups] == [0, 1]
    assert ranked.best is runs[2]


def test_folds_are_replicates_as_seeds_are_and_have_a_leaderboard_of_their_own() -> None:
    of_folds = (("a", 0, 0, 0.9), ("a", 0, 1, 0.7), ("a", 1, 0, 0.9), ("b", 0, 0, 0.85), ("b", 0, 1, 0.8))
    folds = []
    for key, seed, fold, accuracy in of_folds:
        settings = {"key": key, "seed": seed, "data.folds": 2, "data.fold": fold, "val_size": 51 - fold}
        folds.append(Run((key, seed, fold), "finished", settings, {"final/val_accuracy": accuracy}))
    (ranked,) = ranking.rank(folds)
    assert ranked.by == ["key"]
    assert [(group.runs[0].settings["key"], len(group.seeds)) for group in ranked.groups] == [("a", 3), ("b", 2)]
    assert ranked.groups[0].over_seeds("final/val_accuracy") == [0.9, 0.7, 0.9]
    plain = Run("c", "finished", {"key": "c", "seed": 0, "val_size": 50}, {"final/val_accuracy": 0.99})
    assert [each.data for each in ranking.rank([*folds, plain])] == ["folds=2", "val_size=50"]
    stratified = dataclasses.replace(plain, settings={**plain.settings, "data.stratify": True})
    assert [each.data for each in ranking.rank([plain, stratified])] == ["stratify=false", "stratify=true"]


def test_a_run_on_some_of_the_images_is_no_replicate_of_one_on_all() -> None:
    """`data.limit` is a param only where it is set."""
    shared = {"seed": 0, "epochs": 2, "val_size": 50}
    all_of_them = Run("all", "finished", shared, {"final/val_accuracy": 0.9})
    some = Run("some", "finished", {**shared, "data.limit": 100}, {"final/val_accuracy": 0.8})
    planned = Run("planned", "planned", {"seed": 1}, {})
    (ranked,) = ranking.rank([some, all_of_them, planned])
    assert ranked.by == ["data.limit"]
    assert [group.runs[0].at for group in ranked.groups][:2] == ["all", "some"]
    (swept,) = ranking.rank([some, all_of_them], swept=["epochs"])
    assert swept.by == ["epochs", "data.limit"]
