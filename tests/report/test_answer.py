"""The first sentence of a report, and the command that it ends with."""

import re
from pathlib import Path

import numpy as np
import pytest
from report_fixtures import make_run, make_sweep, printed, write_report

from mnist_exp.disk import hits, plan
from mnist_exp.report import answer, board
from mnist_exp.results import names


def test_what_may_be_as_good_as_the_best_is_named_with_the_command_that_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    points = [[f"hidden={width}", f"lr={rate}"] for width in (32, 64, 128) for rate in (0.1, 0.2)]
    folder = make_sweep(tmp_path / "outputs", points)
    for number, (point, accuracy) in enumerate(zip(points, (0.9, 0.9, 0.970, 0.9792, 0.980, 0.90), strict=True)):
        make_run(folder / str(number), [*point, "val_size=5000"], accuracy)
    text = printed(monkeypatch, str(folder))
    good = "validation accuracy 98.00 % (95 % interval 97.57 % to 98.35 %), test accuracy 98.00 %"
    again = "python -m mnist_exp.train -m resume=10-00-00-abcdef hidden=128,64 seed=1,2"
    assert text.splitlines()[:5] == [
        "hidden × lr",
        f"hidden=128 lr=0.1 did best: {good}; hidden=64 lr=0.2 may be as good.",
        "To tell them apart:",
        f"  {again}",
        "Sweep 10-00-00-abcdef: 6 runs (6 finished). Intervals are for other images; another seed may change more."
        " The best of 6 equal settings would look 0.42 points better than they are.",
    ]


def test_the_answer_breaks_between_words_in_a_terminal_and_its_command_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is broken cannot be copied; in a pipe, each is one line."""
    monkeypatch.chdir(tmp_path)
    points = [[f"hidden={width}"] for width in (32, 64, 96, 128, 160, 192)]
    folder = make_sweep(tmp_path / "outputs", points)
    for number, point in enumerate(points):
        make_run(folder / str(number), [*point, "val_size=5000"], 0.98)
    piped, shown = (printed(monkeypatch, str(folder), terminal_width=width).splitlines() for width in (0, 40))
    assert min(len(piped[1]), len(piped[4])) > 80  # the sentence, and the background
    told = shown[1 : shown.index(piped[2])]
    assert max(len(line) for line in told) <= 40
    assert " ".join(line.strip() for line in told) == piped[1]
    assert piped[3] in shown


def test_the_answer_names_no_setting_that_the_network_does_not_have(tmp_path: Path) -> None:
    """As `hidden` of a CNN; if nothing else is left to tell it by, it is said."""
    setting = {"hidden": None, "model": "smallcnn", "data.limit": None}
    assert board.label(setting, ["hidden", "model"]) == "model=smallcnn"
    assert board.label(setting, ["data.limit"]) == "data.limit=–"
    assert board.label(setting, []) == "all runs"


def test_the_test_accuracy_has_its_interval_too(tmp_path: Path) -> None:
    """9,800 of 10,000 test images, which are twice as many as validate."""
    folder = make_sweep(tmp_path, [["hidden=32"]])
    run = make_run(folder / "0", ["hidden=32", "val_size=5000"], 0.98)
    hits.write(run, {"test": np.arange(10_000) < 9_800})
    (comparison,) = board.compare(names.resolve(folder))
    said = "(95 % interval 97.57 % to 98.35 %), test accuracy 98.00 % (95 % interval 97.71 % to 98.26 %)."
    assert answer.sentence(comparison).endswith(said)


def test_the_best_of_a_search_race_with_other_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no combinations; with seeds that none of its runs had, luck of the search does not count again."""
    monkeypatch.chdir(tmp_path)
    points = [[f"hidden={width}", f"lr={rate}"] for width, rate in ((32, 0.1), (64, 0.2), (65, 0.3))]
    folder = make_sweep(tmp_path / "outputs", points)
    (folder / "study.json").write_text("{}")
    for number, (point, accuracy) in enumerate(zip(points, (0.9, 0.9792, 0.980), strict=True)):
        make_run(folder / str(number), [*point, "seed=0", "val_size=5000", "+tags.why=x"], accuracy)
    what, command = answer.next_step(*board.compare(names.resolve(folder)))
    assert what == "To tell them apart"
    race = "search=race points=10-00-00-abcdef 'seed=range(1,21)'"
    assert command == f"python -m mnist_exp.train -m {race}"


@pytest.mark.parametrize("typed", ["search=zip", "points=runs.csv", "n_trials=3"])
def test_what_is_no_grid_races(typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values with further seeds would be pairs of other lengths, another draw, or set twice."""
    monkeypatch.chdir(tmp_path)
    points = [[f"hidden={width}", f"lr={rate}"] for width, rate in ((32, 0.1), (64, 0.2), (65, 0.3))]
    folder = make_sweep(tmp_path / "outputs", points)
    changed = plan.read(folder)
    changed.typed = [typed]
    changed.write(folder)
    for number, (point, accuracy) in enumerate(zip(points, (0.9, 0.9792, 0.980), strict=True)):
        make_run(folder / str(number), [*point, "seed=0", "val_size=5000"], accuracy)
    _, command = answer.next_step(*board.compare(names.resolve(folder)))
    assert command == "python -m mnist_exp.train -m search=race points=10-00-00-abcdef 'seed=range(1,21)'"


def test_another_seed_gets_all_folds_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep adds them where none is typed; previously the next seeds got that of the median run only."""
    monkeypatch.chdir(tmp_path)
    points = [["hidden=32", "data.folds=3", f"data.fold={fold}"] for fold in range(3)]
    folder = make_sweep(tmp_path / "outputs", points)
    for fold, point in enumerate(points):
        make_run(folder / str(fold), [*point, "val_size=5000", "seed=0"], 0.97 + 0.001 * fold)
    _, command = answer.next_step(*board.compare(names.resolve(folder)))
    assert command == "python -m mnist_exp.train -m hidden=32 data.folds=3 val_size=5000 seed=1,2"


@pytest.mark.integration
def test_nothing_that_a_sweep_from_elsewhere_records_becomes_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who copies it would type the code and addresses in it, as the user's own."""
    points = [[f"hidden={width}", "model._target_=evil.call"] for width in (32, 64)]
    folder = make_sweep(Path("elsewhere"), points)
    for number, (point, accuracy) in enumerate(zip(points, (0.9, 0.99), strict=True)):
        make_run(
            folder / str(number), [*point, "val_size=5000"], accuracy, state="failed" if number == 0 else "finished"
        )
    (comparison,) = board.compare(names.resolve(folder))
    assert answer.next_step(comparison) == ("", "")
    again = "python -m mnist_exp.rerun run=elsewhere/sweeps/2026-01-31/10-00-00-abcdef"
    assert [failure["rerun"] for failure in board.failures(comparison.table)] == [f"{again}/0"]
    page = write_report(folder).read_text()
    assert f"{again}/1" in page
    assert not re.search("mnist_exp.train[^<]*evil", page)
    mine = folder.rename("mine")
    assert "python -m mnist_exp" not in printed(monkeypatch, str(mine)).replace("mnist_exp.rerun", "")


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ((0.90, 0.99), "hidden=64 is best: {}; it is better than the others at 95 % confidence."),
        ((0.98, 0.98, 0.98, 0.98, 0.981), "; hidden=32, hidden=33 and 2 more may be as good."),
        ((0.98,), "Validation accuracy 98.00 % (95 % interval 97.57 % to 98.35 %), test accuracy 98.00 %."),
        ((None, None), "No run has finished: 2 failed."),
    ],
    ids=["clear", "many", "one", "failed"],
)
def test_the_first_sentence(accuracies: tuple[float | None, ...], said: str, tmp_path: Path) -> None:
    points = [[f"hidden={width}"] for width in (32, 64 if len(accuracies) == 2 else 33, 34, 35, 36)[: len(accuracies)]]
    folder = make_sweep(tmp_path / "outputs", points)
    for number, (point, accuracy) in enumerate(zip(points, accuracies, strict=True)):
        state = "finished" if accuracy else "failed"
        make_run(folder / str(number), [*point, "val_size=5000", "data=mnist"], accuracy, state=state)
    (comparison,) = board.compare(names.resolve(folder))
    good = "validation accuracy 99.00 % (95 % interval 98.68 % to 99.24 %), test accuracy 99.00 %"
    assert answer.sentence(comparison).endswith(said.format(good))
    what, command = answer.next_step(comparison)
    if len(accuracies) == 1 or accuracies[0] == 0.90:
        assert what == "To see what another seed changes"
        assert command.endswith(f"{points[-1][0]} val_size=5000 data=mnist seed=1,2")
    title = "hidden=32 val_size=5000 on mnist" if len(accuracies) == 1 else "hidden on mnist"
    assert comparison.title == title
