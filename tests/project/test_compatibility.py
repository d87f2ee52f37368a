"""docs/compatibility.md agrees with the code, and what is deprecated goes in time."""

import pkgutil
import re
import tomllib

from packaging.requirements import Requirement
from packaging.version import Version
from samples import REPO

import mnist_exp
from mnist_exp.deprecated import DEPRECATED, SEARCHED_SEED, Deprecation

PAGE = (REPO / "docs" / "compatibility.md").read_text()
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below *heading*, without its head."""
    below = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [re.split(r" *\| *", line.strip("| ")) for line in below.splitlines() if line.startswith("|")][2:]


def due(version: str, deprecated: tuple[Deprecation, ...] = DEPRECATED) -> list[str]:
    """What should be gone in *version*."""
    return [each.what for each in deprecated if Version(version) >= Version(each.until)]


def test_nothing_is_left_that_was_to_go() -> None:
    assert due(PROJECT["version"]) == []


def test_meta_what_is_due_is_found() -> None:
    assert due(SEARCHED_SEED.until) == [SEARCHED_SEED.what]
    assert due("1.3.0", (Deprecation("a", "1.3.0", "b"), Deprecation("c", "1.10.0", "d"))) == ["a"]


def test_the_page_lists_what_is_deprecated() -> None:
    assert [[cell.replace("`", "") for cell in row] for row in rows("Deprecated")] == [
        list(each) for each in DEPRECATED
    ]


def test_the_python_api_that_is_promised_is_there() -> None:
    (promised,) = re.findall(r"## The Python API\n\n(.*?)\n\n", PAGE, re.DOTALL)
    names = re.findall(r"`(mnist_exp[\w.]+)`", promised)
    assert {f"mnist_exp.{name}" for name in mnist_exp.__all__} <= set(names)
    for name in names:
        assert pkgutil.resolve_name(name), name


def locked(text: str) -> dict[str, str]:
    """Package → version of the lines of pins in *text*."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))


def test_the_versions_that_the_page_names_are_those_that_are_tested() -> None:
    pins = locked((REPO / ".ci" / "constraints.txt").read_text())
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    wanted = {each.name: each.specifier for each in map(Requirement, [*PROJECT["dependencies"], *extras])}
    (python, *packages) = rows("Versions that are tested")
    assert {f">={version}" for version in python[1:]} == {PROJECT["requires-python"]}
    assert len(packages) > 5
    for name, lowest, newest in packages:
        bounds = [part.version for part in wanted[name] if part.operator == ">="]
        assert (name.startswith("torch") and lowest == "as locked") or Version(lowest) == Version(*bounds), name
        assert newest == pins[name], name
