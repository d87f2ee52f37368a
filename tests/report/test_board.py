"""The leaderboard from fixed rows: what is aggregated, what decides the order, what is printed."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from report_fixtures import make_run, make_sweep, printed

from mnist_exp.report import board as boards
from mnist_exp.report import page as html
from mnist_exp.results import names, ranking

GOLDEN = """\
hidden   lr     val %         test %        n  not finished  time   parameters
[64,32]  0.001  96.00 ± 2.83  96.00 ± 2.83  2                6.0 s  50,890
64       0.001  95.00         95.00         1  1 failed      6.0 s  50,890
64       0.1    –             –             0  1 planned     –      –
"""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three settings: two seeds, one seed of which one failed, and one that was never started."""
    monkeypatch.chdir(tmp_path)
    points = [
        ["hidden=64", "lr=1e-3", "seed=0"],
        ["hidden=64", "lr=1e-3", "seed=1"],
        ["hidden=[64,32]", "lr=1e-3", "seed=0"],
        ["hidden=[64,32]", "lr=1e-3", "seed=1"],
        ["hidden=64", "lr=0.1", "seed=0"],
    ]
    folder = make_sweep(tmp_path / "outputs", points)
    make_run(folder / "0", points[0], 0.95)
    make_run(folder / "1", points[1], None, state="failed", reason="DivergedError: The loss is not finite.")
    make_run(folder / "2", points[2], 0.94)
    make_run(folder / "3", points[3], 0.98)
    return folder


def board(table: pd.DataFrame) -> pd.DataFrame:
    (ranked,) = ranking.rank(boards.runs(table))
    return boards.leaderboard(table, ranked)


def test_golden(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, str(sweep))
    assert GOLDEN in text
    head, sentence, runs = text.splitlines()[:3]
    assert head == "hidden × lr"
    good = "validation accuracy 96.00 ± 2.83 % (n=2), test accuracy 96.00 % (95 % interval 70.59 % to 100.00 %)"
    assert sentence == f"hidden=[64,32] lr=0.001 did best: {good}; how sure that is cannot be told."
    assert runs == "Sweep 10-00-00-abcdef: 5 runs (3 finished, 1 failed, 1 planned)."
    assert "again: python -m mnist_exp.train hidden=64 lr=1e-3 seed=1" in text
    assert "DivergedError: The loss is not finite." in text
    assert "1/train.log" in text


def test_a_terminal_gets_a_table(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, str(sweep), terminal_width=80)
    assert "…" not in text
    heads = [re.sub(r"\x1b\[\d*m", "", line).split() for line in text.splitlines()]
    assert ["hidden", "lr", "val", "%", "test", "%", "n", "not", "finished", "time", "parameters"] in heads
    assert "50,890" in text
    assert "96.00 ± 2.83" in text
    assert "━" in text or "─" in text


def test_json_has_the_same(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = json.loads(printed(monkeypatch, str(sweep), "--json"))
    assert facts["sweep"] == "10-00-00-abcdef"
    assert [row["hidden"] for row in facts["leaderboard"]] == ["[64,32]", 64, 64]
    assert facts["leaderboard"][0]["val_mean"] == pytest.approx(0.96)
    assert facts["leaderboard"][1]["val_sd"] is None  # one seed has no spread
    assert facts["leaderboard"][2]["val_mean"] is None
    assert facts["summary"]["states"] == {"finished": 3, "failed": 1, "planned": 1}
    assert facts["summary"]["best"] == pytest.approx(0.96)  # the best setting's mean, and not the luckiest run's 0.98
    assert facts["summary"]["median"] == 0.95
    assert len(facts["failures"]) == 1
    assert facts["answer"].startswith("hidden=[64,32] lr=0.001 did best: validation accuracy 96.00 ± 2.83 % (n=2)")
    assert facts["next"] is None


@pytest.mark.integration
def test_json_terminal_and_page_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    points = [["hidden=32"], ["hidden=64"]]
    folder = make_sweep(tmp_path / "outputs", points)
    for number, (point, accuracy) in enumerate(zip(points, (0.98, 0.981), strict=True)):
        make_run(folder / str(number), [*point, "val_size=5000"], accuracy)
    facts = json.loads(printed(monkeypatch, str(folder), "--json"))
    said = printed(monkeypatch, str(folder))
    shown = html.write(boards.compare(names.resolve(folder))).read_text()
    assert facts["answer"].endswith("; hidden=32 may be as good.")
    assert facts["next"]["why"] == "To tell them apart"
    for text in (facts["answer"], *facts["next"].values()):
        assert text in said
        assert text in shown


def test_points_that_were_added_later_are_settings_of_their_own(tmp_path: Path) -> None:
    points = [["hidden=8"], ["hidden=16"], ["hidden=8", "optimizer=sgd"], ["hidden=16", "optimizer=sgd"]]
    folder = make_sweep(tmp_path, points)  # whose keys are those of the first point
    for number, point in enumerate(points):
        make_run(folder / str(number), [*point, f"lr={0.1 if len(point) > 1 else 0.001}"], 0.5 + 0.1 * number)
    (comparison,) = boards.compare(names.resolve(folder))
    assert comparison.by == ["hidden", "optimizer"]  # and not lr, which follows from the optimiser
    assert list(comparison.board["n"]) == [1, 1, 1, 1]


def test_runs_that_went_on_with_other_settings_are_not_averaged_with_their_like(tmp_path: Path) -> None:
    points = [["hidden=8", "seed=0"], ["hidden=8", "seed=1"], ["hidden=16", "seed=0"]]
    folder = make_sweep(tmp_path, points)
    for number, lr in enumerate((0.001, 0.1)):
        make_run(folder / str(number), [*points[number], f"lr={lr}"], 0.9)
    (comparison,) = boards.compare(names.resolve(folder))
    assert comparison.by == ["hidden", "lr"]


def test_validation_orders_and_test_does_not() -> None:
    table = rows([("a", 0.9, 0.99), ("b", 0.95, 0.5)])
    assert list(board(table)["key"]) == ["b", "a"]


def test_equal_accuracy_is_ordered_by_loss() -> None:
    table = rows([("a", 0.9, 0.9), ("b", 0.9, 0.9)])
    table["final/val_loss"] = [0.3, 0.2]
    assert list(board(table)["key"]) == ["b", "a"]


def test_settings_of_which_nothing_finished_come_last() -> None:
    table = rows([("a", 0.9, 0.9), ("b", 0.9, 0.9), (None, 0.8, 0.9), ("a", 0.7, 0.9)])
    table["state"], table["epoch"] = ["failed", "pruned", "finished", "finished"], [0, 3, 9, 9]
    table["seed"] = [0, 0, 0, 0]
    leaderboard = board(table)
    assert list(leaderboard["key"].fillna("none")) == ["none", "a", "b"]
    assert list(leaderboard["n"]) == [1, 1, 0]
    assert list(leaderboard["not_finished"]) == ["", "1 failed", "1 pruned after epoch 3"]
    assert list(leaderboard["best"]) == [2, 3, -1]


def test_without_validation_training_orders() -> None:
    table = rows([("a", float("nan"), 0.99), ("b", float("nan"), 0.5)])
    table["final/train_accuracy"] = [0.6, 0.7]
    assert boards.deciding_split(table) == "train"
    leaderboard = board(table)
    assert list(leaderboard["key"]) == ["b", "a"]
    assert "val_mean" not in leaderboard


def test_the_median_run_stands_for_a_setting(sweep: Path) -> None:
    """Of two seeds the lower one; previously the luckiest run of all."""
    (comparison,) = boards.compare(names.resolve(sweep))
    assert comparison.by == ["hidden", "lr"]
    assert [comparison.table.loc[index, "seed"] if index >= 0 else None for index in comparison.board["best"]] == [
        0,
        0,
        None,
    ]
    assert names.best(names.resolve(sweep)).at == comparison.table.loc[comparison.board.loc[0, "best"], "folder"]


@pytest.mark.parametrize("name", ["best", "run=best", "run=best:10-00-00"])
def test_a_run_is_named_as_in_other_commands(sweep: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert printed(monkeypatch, name).startswith(
        "hidden=[64,32] lr=1e-3 seed=0\nValidation accuracy 94.00 %, test accuracy 94.00 %.\n"
        f"Best run of Sweep {sweep.name} (seed 0): 1 run (1 finished).\n"
    )


def test_one_run_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "r", ["lr=0.1"], 0.9)
    assert "90.00" in printed(monkeypatch, str(tmp_path / "r"))


@pytest.mark.integration
def test_a_damaged_run_is_a_row_and_the_others_are_compared(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sweep / "3" / "ledger.json").write_text("{")
    text = printed(monkeypatch, str(sweep))
    assert "5 runs (2 finished, 1 failed, 1 damaged, 1 planned)" in text
    assert f"damaged: hidden=[64,32] lr=1e-3 seed=1: {sweep / '3' / 'ledger.json'} is damaged: " in text
    page = html.write(boards.compare(names.resolve(sweep))).read_text()
    assert "1 damaged" in page


def test_all_failed_still_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(2):
        make_run(tmp_path / str(i), [f"lr={i}"], None, state="failed", reason="no")
    text = printed(monkeypatch, str(tmp_path))
    assert "2 runs (2 failed)." in text
    assert text.count("again:") == 2


def two_datasets(root: Path) -> Path:
    """A sweep over `data` and seeds; the same accuracies on both, a tenth lower on the second."""
    points = [[f"data={data}", f"seed={seed}"] for data in ("mnist", "kanji") for seed in range(2)]
    folder = make_sweep(root, points)
    for i, point in enumerate(points):
        dataset = {"name": point[0][5:], "digest": f"d{i // 2}"}
        make_run(folder / str(i), point, 0.9 + 0.02 * (i % 2) - 0.1 * (i // 2), dataset=dataset)
    return folder


def test_each_dataset_has_its_own_leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, str(two_datasets(tmp_path)))
    for data, mean, between in (("mnist", "91.00", "78.29 % to 100.00"), ("kanji", "81.00", "68.29 % to 93.71")):
        good = f"Validation accuracy {mean} ± 1.41 % (n=2), test accuracy {mean} % (95 % interval {between} %)."
        assert f"2 runs on {data}\n{good}\n" in text
    assert "n  time   parameters\n91.00 ± 1.41" in text


def test_json_lists_the_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = json.loads(printed(monkeypatch, str(two_datasets(tmp_path)), "--json"))
    assert (facts["format"], facts["title"], facts["sweep"]) == (1, "Sweep 10-00-00-abcdef", "10-00-00-abcdef")
    assert [each["data"] for each in facts["datasets"]] == ["mnist", "kanji"]
    assert [each["leaderboard"][0]["val_mean"] for each in facts["datasets"]] == [
        pytest.approx(0.91),
        pytest.approx(0.81),
    ]
    assert [each["summary"]["runs"] for each in facts["datasets"]] == [2, 2]


def test_the_same_seed_twice_is_one_replicate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was typed twice says nothing about chance; previously n was 2, and the spread ± 0.00."""
    for i in range(2):
        make_run(tmp_path / str(i), ["lr=0.1", "seed=0"], 0.9)
    text = printed(monkeypatch, str(tmp_path))
    assert "\nValidation accuracy 90.00 %, test accuracy 90.00 %.\n" in text
    assert "±" not in text


def rows(results: list[tuple[str, float, float]]) -> pd.DataFrame:
    """Finished runs: key, validation accuracy, test accuracy."""
    return pd.DataFrame(
        [
            {
                "key": key,
                "state": "finished",
                "epoch": 1,
                "seconds": 1.0,
                "parameters": 10,
                "dataset": "",
                "folder": None,
            }
            | {f"final/{split}_loss": 0.1 for split in boards.SPLITS}
            | {"final/val_accuracy": val, "final/test_accuracy": test, "final/train_accuracy": 0.5}
            for key, val, test in results
        ]
    )


def test_no_cell_of_a_table_is_a_formula(tmp_path: Path) -> None:
    """Whatever a run from elsewhere is called; negative numbers stay numbers."""
    texts = ["=1+1", "+cmd|' /C calc'!A0", "-1+1", "@SUM(A1)", "\t=1", "-1e-3", "plain", None]
    table = pd.DataFrame({"=name": texts, "lr": [-0.5] * len(texts), "started": pd.Timestamp("2026-01-31", tz="UTC")})
    boards.write_csv(table, tmp_path / "runs.csv")
    written = pd.read_csv(tmp_path / "runs.csv", dtype=str)
    assert list(written) == ["'=name", "lr", "started"]
    assert list(written["'=name"].fillna("")) == [*(f"'{text}" for text in texts[:5]), "-1e-3", "plain", ""]
    assert set(written["lr"]) == {"-0.5"}
    assert set(written["started"]) == {"2026-01-31 00:00:00+00:00"}
