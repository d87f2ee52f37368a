"""`pyproject.toml` agrees with the project's files."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from samples import REPO, script

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
    """An `__init__.py` in the namespace package would hide all other plugins."""
    assert not (REPO / "hydra_plugins" / "__init__.py").exists()


def test_each_exception_to_warnings_has_its_reason() -> None:
    lines = (REPO / "pyproject.toml").read_text().splitlines()
    at = [i for i, line in enumerate(lines) if line.strip().startswith(('"ignore:', "'ignore:"))]
    assert at
    for i in at:
        assert lines[i - 1].strip().startswith("#"), lines[i]


def test_no_machine_of_ours_is_named() -> None:
    """No path of a home folder is in the package."""
    for path in [*Path(REPO / "mnist_exp").rglob("*.py"), *Path(REPO / "conf").rglob("*.yaml")]:
        assert not re.search(r"/home/|/root/|/Users/", path.read_text()), path


def test_what_the_extras_name_is_locked() -> None:
    """Also those that are not installed here."""
    locked = (REPO / ".ci" / "constraints.txt").read_text()
    for line in (line for lines in PROJECT["project"]["optional-dependencies"].values() for line in lines):
        name = canonicalize_name(Requirement(line).name)
        assert name == "mnist-exp" or re.search(rf"(?im)^{re.sub('-', '[-_.]', name)}==", locked), line


def test_ci_tests_the_lowest_versions_that_are_declared() -> None:
    """Without torch: other versions than the locked one require gigabytes of CUDA."""
    lines = (REPO / ".ci" / "lowest.txt").read_text().splitlines()
    tested = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines if "==" in line}
    project = PROJECT["project"]
    for line in [
        *project["dependencies"],
        *(x for e in ("test", "cmaes") for x in project["optional-dependencies"][e]),
    ]:
        wanted = Requirement(line)
        bounds = [Version(part.version) for part in wanted.specifier if part.operator == ">="]
        if bounds and not wanted.name.startswith("torch"):
            assert [Version(tested[canonicalize_name(wanted.name)])] == bounds, line


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([{"name": "a", "skip_reason": "not found"}], 0, "not reachable"),
        ([{"name": "a", "version": "1", "vulns": []}], 0, "1 of 1 packages audited"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}], 1, "a 1: CVE-1"),
    ],
)
def test_the_audit_fails_only_for_a_known_vulnerability(
    packages: list[dict[str, object]], code: int, said: str
) -> None:
    verdict = script("audit", ".ci").verdict(json.dumps({"dependencies": packages}))
    assert verdict[0] == code
    assert said in verdict[1]
    assert script("audit", ".ci").verdict("")[0] == 0


def test_what_is_installed_but_not_locked_is_named() -> None:
    loose = script("locked", ".ci").loose
    constraints = "# a comment\ntorch==2.13.0\nruamel.yaml==1.2\n"
    assert (
        loose([("torch", "2.13.0+cpu"), ("ruamel_yaml", "1.2"), ("pip", "1"), ("mnist_exp", "0.1.0")], constraints)
        == []
    )
    assert loose([("torch", "2.13.1"), ("Other", "3")], constraints) == ["other==3", "torch==2.13.1"]
