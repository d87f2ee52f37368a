"""Names on the class, paths on an instance; states that say what they mean."""

import json
from pathlib import Path

from mnist_exp.disk.layout import RunFolder, State, SweepFolder


def test_an_entry_is_a_name_on_the_class_and_a_path_on_a_folder() -> None:
    assert RunFolder.ledger == "ledger.json"
    assert RunFolder(Path("a")).ledger == Path("a/ledger.json")
    assert SweepFolder(Path("a")).run(3).weights == Path("a/3/weights.safetensors")


def test_each_file_of_a_run_has_one_writer() -> None:
    assert not set(RunFolder.written_by_trainer) & set(RunFolder.written_by_publisher)


def test_a_state_is_its_text() -> None:
    assert json.dumps([State.KILLED]) == '["killed"]'
    assert f"{State.KILLED}" == State.KILLED == "killed"
    assert {state for state in State if state.done} == {"finished", "pruned"}
    assert {state for state in State if state.lost} == {"failed", "killed", "damaged"}
