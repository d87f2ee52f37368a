"""`sweep.json`: what is wrong with it is said as it is."""

from pathlib import Path

import pytest

from mnist_exp.disk import plan
from mnist_exp.disk.files import read_json, write_json
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import ConfigError


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    written = Plan(id="x", typed=["lr=1,2"], keys=["lr"], points=[["lr=1"], ["lr=2"]], configs=["a", "b"])
    written.write(tmp_path)
    assert plan.read(tmp_path) == written


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "is not a sweep: it has no sweep.json"),
        ("{", "is damaged"),
        ('{"format": 99}', "has format 99; this version knows up to 1"),
    ],
)
def test_a_plan_that_cannot_be_read_says_why(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        plan.read(tmp_path)


def test_a_plan_has_a_config_for_each_point(tmp_path: Path) -> None:
    """Of older ones it is not known; one that has more than there are points is of nobody's making."""
    write_json(tmp_path / "sweep.json", {"format": 1, "id": "a", "typed": [], "keys": [], "points": [["lr=1"]]})
    assert plan.read(tmp_path).configs == [""]
    write_json(tmp_path / "sweep.json", {**read_json(tmp_path / "sweep.json"), "configs": ["a", "b"]})
    with pytest.raises(ConfigError, match="damaged: it has more configs than points"):
        plan.read(tmp_path)
