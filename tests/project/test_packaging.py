"""`pyproject.toml` agrees with the project's files."""

import importlib.util
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from samples import REPO, script

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())


def test_the_version_is_one_of_semantic_versioning() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", PROJECT["project"]["version"])


def test_a_released_version_stands_in_the_changelog() -> None:
    """Below what is not released yet, with the date that people cite."""
    headings = re.findall(r"^## (.*)$", (REPO / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = yaml.safe_load((REPO / "CITATION.cff").read_text())["date-released"]
    assert headings[:2] == ["Unreleased", f"{PROJECT['project']['version']} ({released})"]


def test_what_others_cite_and_open_agrees_with_it() -> None:
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == tuple(
        PROJECT["project"][key] for key in ("version", "license")
    )
    container = json.loads((REPO / ".devcontainer" / "devcontainer.json").read_text())
    (extras,) = re.findall(r"\.\[([\w,]+)\]", container["postCreateCommand"])
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    typed = re.findall(
        r"pip install [^&]*torchvision.*|python -m mnist_exp.train hidden=256", (REPO / "README.md").read_text()
    )
    assert len(typed) == 2
    assert all(line in container["postCreateCommand"] for line in typed)
    asked = yaml.safe_load((REPO / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text())["body"]
    assert "mnist_exp.doctor" in str(asked)


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


def test_the_pythons_that_are_named_are_checked_everywhere() -> None:
    """3.11 by lint and types, all of them by the workflow, and their wheels by a script."""
    named = script("wheels", ".ci").pythons((REPO / "pyproject.toml").read_text())
    workflow = yaml.safe_load((REPO / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert workflow["newcomer"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{named[0].replace('.', '')}"
    assert f"--target={named[0]}-" in (REPO / ".pre-commit-config.yaml").read_text()


def test_the_workflow_runs_what_the_readme_says_and_what_ci_is() -> None:
    """On a change what a change must pass, each week everything."""
    workflow = yaml.safe_load((REPO / ".github" / "workflows" / "ci.yml").read_text())
    jobs = workflow["jobs"]
    typed = [step["run"] for step in jobs["newcomer"]["steps"] if "run" in step]
    assert typed
    assert set(typed) <= set((REPO / "README.md").read_text().splitlines())
    assert workflow[True].keys() >= {"push", "pull_request", "schedule"}  # YAML reads `on` as true
    assert jobs["everything"]["steps"][-1] == {"run": ".ci/run ${{ github.event_name == 'schedule' && 'all' || '' }}"}


def test_the_workflow_types_the_first_line_of_the_readme_on_other_systems() -> None:
    job = yaml.safe_load((REPO / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["elsewhere"]
    assert {name.split("-")[0] for name in job["strategy"]["matrix"]["system"]} == {"ubuntu", "macos", "windows"}
    first, sweep = (step["run"] for step in job["steps"] if "run" in step)
    assert first in (REPO / "README.md").read_text().splitlines()
    assert (REPO / sweep.split("/", 1)[1]).is_file()


def test_ci_lints_what_the_hooks_do_that_people_commit_by() -> None:
    """Each of their tools is one that the extra `dev` brings, with the same options. CI itself may be without git."""
    (repository,) = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {
        hook["entry"].replace(" --fix", "").replace("ruff format", "ruff format --check")
        for hook in repository["hooks"]
    }
    lines = (REPO / ".ci" / "run").read_text().splitlines()
    assert hooks == {
        hook for hook in hooks if any(line.removesuffix(" .").removesuffix(" conf") == hook for line in lines)
    }
    brought = {canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["optional-dependencies"]["dev"]}
    assert {"pre-commit", *(hook.split()[0] for hook in hooks)} <= brought


def test_a_package_without_a_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = script("wheels", ".ci")
    assert wheels.locked("# a==1\na==1\nantlr4-python3-runtime==4.9.3\nb==2\n") == ["a==1", "b==2"]

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        lacks = "b==2" in command and command[command.index("--python-version") + 1] == "3.14"
        said = "ERROR: No matching distribution found for b==2" if lacks else ""
        return subprocess.CompletedProcess(command, int(lacks), "", said)

    monkeypatch.setattr(wheels.subprocess, "run", pip)
    assert wheels.lacking(["a==1", "b==2"], "3.13") == []
    assert wheels.lacking(["a==1", "b==2"], "3.14") == ["b==2"]
    monkeypatch.setattr(wheels.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "no network"))
    with pytest.raises(SystemExit, match="no network"):
        wheels.lacking(["a==1"], "3.14")


def test_what_is_installed_but_not_locked_is_named() -> None:
    loose = script("locked", ".ci").loose
    constraints = "# a comment\ntorch==2.13.0\nruamel.yaml==1.2\n"
    assert (
        loose([("torch", "2.13.0+cpu"), ("ruamel_yaml", "1.2"), ("pip", "1"), ("mnist_exp", "0.1.0")], constraints)
        == []
    )
    assert loose([("torch", "2.13.1"), ("Other", "3")], constraints) == ["other==3", "torch==2.13.1"]
