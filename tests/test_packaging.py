"""What `pyproject.toml` promises is there."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from conftest import REPO

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())


def test_the_version_is_one_of_semantic_versioning() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", PROJECT["project"]["version"])


def test_a_released_version_stands_in_the_changelog() -> None:
    text = (REPO / "CHANGELOG.md").read_text()
    version = PROJECT["project"]["version"]
    assert "## Unreleased" in text or f"## {version}" in text


@pytest.mark.parametrize("name", PROJECT["project"]["scripts"])
def test_each_console_script_can_be_called(name: str) -> None:
    module, function = PROJECT["project"]["scripts"][name].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_files_that_are_packed_exist() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    for name in (*wheel["packages"], *wheel["force-include"], *PROJECT["project"]["license-files"], "README.md"):
        assert (REPO / name).exists(), name


def test_hydra_scans_our_plugins_but_nobody_elses_folder() -> None:
    """A file of ours directly in the namespace package would hide every other plugin."""
    assert not (REPO / "hydra_plugins" / "__init__.py").exists()


def test_each_exception_to_warnings_has_its_reason() -> None:
    lines = (REPO / "pyproject.toml").read_text().splitlines()
    at = [i for i, line in enumerate(lines) if line.strip().startswith(('"ignore:', "'ignore:"))]
    assert at
    for i in at:
        assert lines[i - 1].strip().startswith("#"), lines[i]


def test_no_machine_of_ours_is_named() -> None:
    """Home folders and hosts belong in nobody's package."""
    for path in [*Path(REPO / "mnist_exp").rglob("*.py"), *Path(REPO / "conf").rglob("*.yaml")]:
        assert not re.search(r"/home/|/root/|/Users/", path.read_text()), path
