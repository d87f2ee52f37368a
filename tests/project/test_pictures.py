"""The pictures of the documents are as new as the version, or docs/README.md says that they are older."""

import json
import re
from pathlib import Path

import pytest
from packaging.version import Version
from samples import REPO, script

made = script("made")
MADE = json.loads(made.RECORD.read_text())
# What shows neither a terminal nor a page: drawn by hand, and figures of measurements.
OTHERS = {"data-flow.svg", "limits.png", "results.png", "search.png", "thousand.png"}


def older(record: dict[str, dict[str, str]], version: str) -> dict[str, str]:
    """The pictures that were made with a version before *version*, each with its day."""
    return {name: each["on"] for name, each in record.items() if Version(each["version"]) < Version(version)}


def test_each_picture_has_its_program_and_its_day() -> None:
    assert set(MADE) | OTHERS == {path.name for path in REPO.glob("docs/images/*") if path != made.RECORD}
    for name, each in MADE.items():
        assert (REPO / each["by"]).is_file(), name
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", each["on"]), name


def test_the_index_names_the_pictures_that_are_older_than_the_version() -> None:
    section = (REPO / "docs" / "README.md").read_text().partition("\n## Pictures\n")[2]
    rows = re.findall(r"^\| (\d{4}-\d\d-\d\d) \| (.*) \|$", section, re.MULTILINE)
    assert {name: day for day, names in rows for name in re.findall(r"`([^`]+)`", names)} == older(MADE, made.version())


def test_meta_a_picture_that_is_made_again_is_no_longer_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "RECORD", tmp_path / "made.json")
    was = {"by": "docs/captures.py", "on": "2026-11-25", "version": "0.1.0"}
    made.RECORD.write_text(json.dumps({"a.svg": was, "b.svg": was}))
    made.note(Path("a.svg"), "captures.py")
    now = json.loads(made.RECORD.read_text())
    assert older(now, made.version()) == {"b.svg": "2026-11-25"}
    assert now["a.svg"]["version"] == made.version()
