"""`mlflow.json`: what is written is read, and whatever is not a record counts as none."""

from pathlib import Path

import pytest

from mnist_exp.disk import tracked
from mnist_exp.disk.files import read_json, write_json
from mnist_exp.disk.layout import State
from mnist_exp.disk.tracked import Tracked, TrackedRun


def test_what_is_written_is_read_and_what_has_no_value_is_left_out(tmp_path: Path) -> None:
    run = TrackedRun(id="a", store="s", experiment_id="1", run_id="b", page="#", rows=3, state=State.PRUNED)
    tracked.write(tmp_path, run)
    assert tracked.read(tmp_path) == run
    always = {"id", "store", "experiment_id", "run_id", "page", "introduced", "rows", "state", "figures"}
    assert read_json(tmp_path / "mlflow.json").keys() == always
    tracked.write(tmp_path, Tracked(experiment_id="1", page="#"))
    assert tracked.read(tmp_path) == TrackedRun(experiment_id="1", page="#")
    assert read_json(tmp_path / "mlflow.json") == {"experiment_id": "1", "page": "#"}


def test_unknown_keys_are_ignored(tmp_path: Path) -> None:
    write_json(tmp_path / "mlflow.json", {"run_id": "b", "colour": "red"})
    assert tracked.read(tmp_path) == TrackedRun(run_id="b")


@pytest.mark.parametrize(
    "text",
    [None, "", '{"id": ', "[]", "null", '"text"', '{"page": 1, "rows": "3"}', '{"page": [], "pictures": []}', "\x00"],
)
def test_a_damaged_record_is_none(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "mlflow.json").write_text(text)
    assert tracked.read(tmp_path) is None


def test_an_unknown_state_is_damage(tmp_path: Path) -> None:
    write_json(tmp_path / "mlflow.json", {"state": "lost"})
    assert tracked.read(tmp_path) is None
