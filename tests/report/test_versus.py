"""`report A B`: what differs between two sweeps, and which is better."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from report_fixtures import make_run, make_sweep

from mnist_exp.disk import hits
from mnist_exp.report import __main__ as report
from mnist_exp.report import versus
from mnist_exp.results import names

Command = Callable[..., tuple[int, str, str]]
IMAGES = 1000


@pytest.fixture
def command(scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`command("a", "b")`: exit code, output and error output of the report."""

    def call(*typed: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mnist-exp-report", *typed])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            report.cli()
        assert isinstance(left.value.code, int)
        return (left.value.code, *capsys.readouterr())

    return call


def sweep(name: str, right: dict[str, Sequence[np.ndarray]], *fixed: str) -> Path:
    """A sweep of these settings, each with what its seeds 0, 1, … got right of the validation images."""
    points = [[point, f"seed={seed}"] for point, seeds in right.items() for seed in range(len(seeds))]
    folder = make_sweep(Path("outputs"), points, name)
    everyone = [images for seeds in right.values() for images in seeds]
    for number, (point, images) in enumerate(zip(points, everyone, strict=True)):
        overrides = [*point, "data=mnist", f"val_size={IMAGES}", *fixed]
        make_run(folder / str(number), overrides, float(images.mean()))
        hits.write(folder / str(number), {"val": images})
    return folder


def images(wrong: int, start: int = 0) -> np.ndarray:
    """Which images are right, if so many are not."""
    right = np.ones(IMAGES, bool)
    right[start : start + wrong] = False
    return right


def two() -> None:
    """B has half of A's mistakes at its best setting, and other epochs; both have seeds 0 to 3, B one more."""
    best = [[images(most + i, i) for i in range(seeds)] for most, seeds in ((40, 4), (20, 5))]
    sweep("a", {"hidden=8": [images(60), images(62, 1)], "hidden=16": best[0]}, "lr=0.1")
    sweep("b", {"hidden=8": [images(58), images(62, 1)], "hidden=16": best[1]}, "lr=1e-05")


def test_what_differs_and_which_is_better_is_said(command: Command) -> None:
    two()
    code, out, err = command("a", "b")
    assert code == 0, err
    assert out.startswith("A: Sweep a\n  outputs/sweeps/2026-01-31/a\nB: Sweep b\n")
    lines = [line.split() for line in out.splitlines()]
    assert ["lr", "0.1", "1e-5"] in lines
    assert ["setting", "hidden=16", "hidden=16"] in lines
    assert ["seeds", "4", "5"] in lines
    assert not [line for line in lines if line[:1] in (["epochs"], ["val_size"], ["hidden"])], "they do not differ"
    assert "On validation B less A is +2.00 points (95 %: +" in out
    assert "of the same seeds 0, 1, 2, 3): B is better." in out
    assert "  hidden=8: +0.10 (95 %: -" in out


def test_it_is_the_same_the_other_way_round(command: Command) -> None:
    two()
    _, out, _ = command("b", "a", "--json")
    facts = json.loads(out)
    assert facts["difference"]["better"] == "A"
    assert facts["difference"]["mean"] == pytest.approx(-0.02)
    assert facts["difference"]["seeds"] == [0, 1, 2, 3]
    assert facts["settings"]["lr"] == [[1e-5], [0.1]]
    assert [best["setting"] for best in facts["best"]] == [{"hidden": 16}] * 2
    assert {pair["setting"]["hidden"] for pair in facts["same"]} == {8, 16}


def test_pairs_make_a_difference_surer() -> None:
    """Without what each image was, the same accuracies tell less."""
    two()
    paired = versus.compare(names.resolve("a"), names.resolve("b"))["difference"]
    for name in ("a", "b"):
        for path in Path("outputs/sweeps/2026-01-31", name).glob("*/hits.safetensors"):
            path.unlink()
    alone = versus.compare(names.resolve("a"), names.resolve("b"))["difference"]
    assert paired["mean"] == pytest.approx(alone["mean"])
    widths = [high - low for low, high in (paired["interval"], alone["interval"])]
    assert widths[0] < 0.6 * widths[1]


def test_equals_cannot_be_told_apart(command: Command) -> None:
    for name, start in (("a", 0), ("b", 3)):
        sweep(name, {"hidden=8": [images(30, start), images(30, start + 1)]})
    _, out, _ = command("a", "b")
    assert "they cannot be told apart" in out
    assert "Their settings are the same." in out


def test_other_folds_are_other_images() -> None:
    """Of the same size and right in the same places, they are no pairs; previously the two were certainly equal."""
    for fold, name in enumerate("ab"):
        sweep(name, {"hidden=8": [images(30), images(31)]}, "data.folds=2", f"data.fold={fold}")
    low, high = versus.compare(names.resolve("a"), names.resolve("b"))["difference"]["interval"]
    assert low < -0.005
    assert high > 0.005


@pytest.mark.parametrize("other", ["data=fashion", "val_size=500", "data.split_seed=1"])
def test_other_images_are_not_compared(other: str, command: Command) -> None:
    sweep("a", {"hidden=8": [images(30)]})
    sweep("b", {"hidden=8": [images(20)]}, other)
    code, out, err = command("a", "b")
    assert (code, out) == (2, "")
    assert "Sweep a (mnist" in err
    assert "were measured on other images" in err
    assert "help: Sweeps with the same data and validation split can be compared" in err


def test_a_sweep_of_several_datasets_is_not_compared(command: Command) -> None:
    folder = make_sweep(Path("outputs"), [["data=mnist"], ["data=fashion"]], "a")
    for number, data in enumerate(("mnist", "fashion")):
        make_run(folder / str(number), [f"data={data}"], 0.9)
    sweep("b", {"hidden=8": [images(20)]})
    code, _, err = command("a", "b")
    assert code == 2
    assert "Sweep a has runs that cannot be compared with each other (mnist, fashion)." in err


def test_without_a_finished_run_nothing_is_compared(command: Command) -> None:
    sweep("a", {"hidden=8": [images(30)]})
    make_sweep(Path("outputs"), [["hidden=8"]], "b")
    code, _, err = command("a", "b")
    assert code == 2
    assert "Sweep b has no finished run." in err


def test_without_validation_it_is_unknown_which_is_better(command: Command) -> None:
    for name in ("a", "b"):
        folder = make_sweep(Path("outputs"), [["hidden=8"]], name)
        make_run(folder / "0", ["hidden=8", "data=mnist", "val_size=0"], 0.9, splits=("train", "test"))
    code, out, err = command("a", "b")
    assert code == 0, err
    assert "Which is better is unknown" in out


@pytest.mark.parametrize("typed", [("a", "b", "c"), ("a", "b", "--out", "page.html")])
def test_what_a_comparison_has_not_is_refused(typed: tuple[str, ...], command: Command) -> None:
    two()
    assert command(*typed)[0] == 2
