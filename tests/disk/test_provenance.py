"""What makes a result repeatable: the code's commit and difference, the versions."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist_exp.disk import provenance


@pytest.fixture
def package(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package is a folder of the test's."""
    folder = scratch / "checkout" / "package"
    folder.mkdir(parents=True)
    monkeypatch.setattr(provenance, "PACKAGE", folder)
    provenance.git.cache_clear()
    yield folder
    provenance.git.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True).stdout


def test_commit_and_difference_are_recorded_without_secrets(package: Path) -> None:
    (package / "code.py").write_text("x = 1\n")
    git(package, "init", "--quiet")
    git(package, "add", "--all")
    git(package, "commit", "--quiet", "--message", "first")
    commit = git(package, "rev-parse", "HEAD").strip()
    assert provenance.git() == {"commit": commit, "dirty": "false", "diff": ""}
    (package / "code.py").write_text("x = 2\npassword = 'hunter2'\n")
    provenance.git.cache_clear()
    state = provenance.git()
    assert (state["commit"], state["dirty"]) == (commit, "true")
    assert "\n-x = 1\n+x = 2\n" in state["diff"]
    assert "hunter2" not in state["diff"]


def test_a_new_file_makes_the_tree_differ(package: Path) -> None:
    git(package, "init", "--quiet")
    git(package, "commit", "--quiet", "--allow-empty", "--message", "first")
    (package / "code.py").write_text("x = 1\n")
    assert (provenance.git()["dirty"], provenance.git()["diff"]) == ("true", "")


def test_outside_git_and_without_git_nothing_is_recorded(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.git() == {}
    monkeypatch.setenv("PATH", str(package))
    provenance.git.cache_clear()
    assert provenance.git() == {}


@pytest.mark.integration
def test_the_code_fingerprint_covers_every_folder_of_the_package(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = scratch / "copy"
    shutil.copytree(provenance.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    code = provenance.code_fingerprint.__wrapped__  # without its cache
    before, files = code(), {path.parent: path for path in sorted(copy.rglob("*.py"))}
    assert {copy / "engine", copy / "sweep" / "local"} < files.keys()
    for path in files.values():
        text = path.read_text(encoding="utf-8")
        path.write_text(f"{text}# changed\n", encoding="utf-8")
        assert code() != before, path
        path.write_text(text, encoding="utf-8")
        assert code() == before
