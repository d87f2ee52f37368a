"""Two runs beside each other: what differs in their making, and what only one of them gets right."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trainings

from mnist_exp import diff
from mnist_exp.config import Config
from mnist_exp.disk import hits, journal
from mnist_exp.disk.layout import RunFolder
from mnist_exp.errors import ConfigError

Tiny = Callable[..., Config]
A, B = Path("outputs/runs/2026-01-31/10-00-00-aaaaaa"), Path("outputs/runs/2026-01-31/10-00-01-bbbbbb")


@pytest.fixture
def pair(tiny: Tiny) -> None:
    trainings.run(tiny(epochs=2), A, ["hidden=16"])
    trainings.run(tiny(epochs=3, lr=0.03), B, ["hidden=16", "lr=0.03"])


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    diff.main([str(A), str(B), *arguments])
    return capsys.readouterr().out


@pytest.mark.integration
@pytest.mark.usefixtures("pair")
def test_settings_results_and_curves(capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(compared(capsys, "--json"))
    assert facts["settings"]["lr"] == [0.001, 0.03]
    assert facts["settings"]["epochs"] == [2, 3]
    assert "hidden" not in facts["settings"]
    assert facts["made_with"] == []
    rows = [journal.read(folder) for folder in (A, B)]
    assert facts["curves"]["val/loss"] == [[row["metrics"]["val/loss"] for row in each] for each in rows]
    assert facts["results"]["final/test_accuracy"] == [each[-1]["metrics"]["test/accuracy"] for each in rows]


@pytest.mark.integration
@pytest.mark.usefixtures("pair")
def test_images_that_only_one_gets_right(capsys: pytest.CaptureFixture[str]) -> None:
    about = json.loads(compared(capsys, "--json"))["images"]["test"]
    ours, theirs = hits.read(A, "test"), hits.read(B, "test")
    assert ours is not None
    assert theirs is not None
    assert about["only_first"] == [i for i in range(len(ours)) if ours[i] and not theirs[i]]
    assert about["only_second"] == [i for i in range(len(ours)) if theirs[i] and not ours[i]]
    assert about["neither"] == sum(not a and not b for a, b in zip(ours, theirs, strict=True))
    assert about["difference"] == pytest.approx((len(about["only_second"]) - len(about["only_first"])) / len(ours))
    assert about["interval"][0] < about["difference"] < about["interval"][1]
    text = compared(capsys)
    assert f"B alone {len(about['only_second'])}, neither {about['neither']}: B minus A is " in text
    assert "Code, data, versions and machine are the same." in text
    assert "epoch 3" in text


@pytest.mark.usefixtures("pair")
def test_a_long_curve_has_ten_rows_at_most_with_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    sides = diff.side(str(A)), diff.side(str(B))
    facts = diff.compare(*sides) | {"curves": {"val/accuracy": [[0.5] * 19, [0.6] * 18]}}
    diff._show(*sides, facts)
    listed = re.findall(r"^ *epoch (\d+)", capsys.readouterr().out, re.MULTILINE)
    assert listed == ["1", "3", "5", "7", "9", "11", "13", "15", "17", "19"]


@pytest.mark.integration
@pytest.mark.usefixtures("pair")
def test_validation_images_that_were_others_are_not_compared(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path("outputs/runs/2026-01-31/10-00-02-cccccc")
    trainings.run(tiny(epochs=2, data={"split_seed": 1}), other)
    diff.main([str(A), str(other), "--json"])
    assert list(json.loads(capsys.readouterr().out)["images"]) == ["test"]


@pytest.mark.integration
@pytest.mark.usefixtures("pair")
def test_a_run_that_kept_no_answers_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder(A).hits.unlink()
    text = compared(capsys)
    assert "Image by image they cannot be compared. At least one of them did not keep" in text
    assert "lr" in text


@pytest.mark.usefixtures("pair")
def test_answers_to_another_number_of_images_are_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """Their digest may say that the images are the same, if it comes from elsewhere."""
    hits.write(A, {"test": np.ones(3, bool)})
    assert "At least one of them did not keep" in compared(capsys)


def test_two_runs_have_to_be_named() -> None:
    with pytest.raises(ConfigError, match="Which two runs"):
        diff.main(["last"])
