"""docs/results.md, the headers of the experiments and docs/results.csv agree."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import papers

ROWS = pd.DataFrame(
    [("small_cnn", seed, error, 215_194, 3, 0.5, "abcdef0", "12345678") for seed, error in enumerate((0.6, 0.7, 0.8))],
    columns=papers.COLUMNS,
)


def test_the_page_is_the_one_that_its_rows_make() -> None:
    text = papers.PAGE.read_text(encoding="utf-8")
    assert text == papers.render(text, pd.read_csv(papers.ROWS))


def test_the_heads_are_those_that_the_rows_make() -> None:
    for name, runs in pd.read_csv(papers.ROWS).groupby("experiment"):
        text = (papers.EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8")
        assert text == papers.with_head(text, runs)


def test_meta_a_changed_runis_another_page() -> None:
    before = papers.render(f"a {papers.BEGIN} old {papers.END} b", ROWS)
    assert "| 0.96 | 0.70 ± 0.10 | 0.45 to 0.95 | 3 | 215,194 | 3 | 0.5 | abcdef0 |" in before
    assert "-m experiment=small_cnn seed=0,1,2`" in before
    assert "| 4.70 | not run here |" in before
    assert before.startswith("a ")
    assert before.endswith(" b")
    assert before != papers.render(before, ROWS.assign(error=1.0))
    assert papers.render(before, ROWS) == before


def test_the_interval_is_students() -> None:
    values = pd.Series([98.3, 98.4, 98.5])
    assert papers.summary(values) == "98.40 ± 0.10 % (n=3), 95 % interval of the mean 98.15 to 98.65"  # ± 4.303 sd / √3
    assert papers.summary(values[:1]) == "98.30 % (n=1)"


def test_a_head_gets_what_was_measured() -> None:
    text = (
        "# @package _global_\n# Expect:  nothing\n#          yet\n# Cost:    ?\n# Source:  a\n#          b\ndefaults:\n"
    )
    assert papers.with_head(text, ROWS).splitlines() == [
        "# @package _global_",
        "# Expect:  test accuracy 99.30 ± 0.10 % (n=3, seeds 0 to 2)",
        "# Cost:    0.5 minutes of one core, 3 epochs",
        *("# Source:  a", "#          b", "defaults:"),
    ]


@pytest.mark.integration
def test_only_finished_runs_with_the_files_settings_count(capsys: pytest.CaptureFixture[str]) -> None:
    config = papers.chosen("small_cnn")
    same = papers.settings(config)
    run = {"name": "n", "state": "finished", "overrides": ["experiment=small_cnn"], "seed": 1, "parameters": 5}
    run |= {"epoch": 3, "cpu_seconds": 30.0, "commit": "abcdef0123", "final/test_accuracy": 0.99}
    table = pd.DataFrame([{**run, **same}, {**run, **same, "state": "failed"}, {**run, **same, "lr": 0.5}])
    (row,) = papers.measured(table).itertuples(index=False)
    assert tuple(row) == ("small_cnn", 1, 1.0, 5, 3, 0.5, "abcdef0", papers.digest(config))
    assert capsys.readouterr().err == "n: left out, lr not as in small_cnn.yaml\n"


def test_of_the_same_seed_the_last_runstays() -> None:
    both = papers.merged(ROWS, ROWS.iloc[1:2].assign(error=0.9))
    assert list(both["error"]) == [0.6, 0.9, 0.8]


def test_the_picture_has_a_point_for_each_experiment(tmp_path: Path) -> None:
    papers.drawing.png(papers.picture(ROWS), tmp_path)
    assert (tmp_path / "results.png").stat().st_size > 10_000
