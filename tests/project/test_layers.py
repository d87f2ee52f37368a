"""Imports only go down, and what starts first imports nothing heavy."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from samples import REPO

import hydra_plugins.mnist_exp
import mnist_exp

PACKAGE = Path(mnist_exp.__file__).parent
HEAVY = ("torch", "mlflow", "matplotlib", "optuna", "pandas", "submitit", "ray")


def layers(page: str) -> list[list[str]]:
    """The names on each line of the tree in docs/design.md, from top to bottom."""
    lines = page.split("```")[1].splitlines()[2:]
    return [[name.rstrip("/") for name in re.split(r" {2,}", line.strip())[0].split()] for line in lines]


LAYERS = layers((REPO / "docs" / "design.md").read_text())
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}


def part_of(module: str) -> str:
    """`engine` for `mnist_exp.engine.loop`."""
    return module.split(".")[1]


def imported(source: str, modules: Iterable[str]) -> set[str]:
    """Those of *modules* that the text *source* imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inside.intersection(modules) or {node.module}
    return names.intersection(modules)


def upward(module: str, source: str) -> set[str]:
    """The modules of higher layers that *source*, the text of *module*, imports."""
    return {other for other in imported(source, MODULES) if RANK[part_of(other)] < RANK[part_of(module)]}


def circles(imports: Mapping[str, set[str]]) -> list[set[str]]:
    """The modules that import each other in a circle, given what each imports."""

    def reached(start: str) -> set[str]:
        modules: set[str] = set()
        waiting = [start]
        while waiting:
            new = imports[waiting.pop()] - modules
            modules |= new
            waiting += new
        return modules

    ways = {module: reached(module) for module in imports}
    groups = [
        {other for other in ways[module] if module in ways[other]} for module in imports if module in ways[module]
    ]
    return [circle for i, circle in enumerate(groups) if circle not in groups[:i]]


def name_of(path: Path) -> str:
    """`mnist_exp.engine.loop` for its file."""
    return ".".join(("mnist_exp", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {name: path for path in sorted(PACKAGE.rglob("*.py")) if (name := name_of(path)) != "mnist_exp"}


def test_the_tree_names_every_folder_and_module() -> None:
    assert {part_of(module) for module in MODULES} == RANK.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module: str) -> None:
    assert upward(module, MODULES[module].read_text()) == set()


@pytest.mark.integration
def test_no_modules_import_each_other() -> None:
    assert circles({name: imported(path.read_text(), MODULES) - {name} for name, path in MODULES.items()}) == []


def test_meta_an_upward_import_is_seen() -> None:
    assert upward("mnist_exp.data.idx", "from mnist_exp import config") == set()
    assert upward("mnist_exp.data", "from mnist_exp.data import idx") == set()
    assert upward("mnist_exp.data", "from mnist_exp.engine.loop import fit") == {"mnist_exp.engine.loop"}
    assert upward("mnist_exp.disk.files", "def f():\n    from mnist_exp import train, errors") == {"mnist_exp.train"}
    assert upward("mnist_exp.config", "import mnist_exp.run.session") == {"mnist_exp.run.session"}


def test_meta_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [{"b", "c"}]


def test_meta_the_order_is_read_from_the_tree() -> None:
    assert layers("```\nmnist_exp/\n  train sync   commands\n  sweep/  many\n```") == [["train", "sync"], ["sweep"]]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("library", "parts"),
    [
        # Below `config.parse` there is no DictConfig.
        ("omegaconf", {"train", "sweep", "run", "search", "console", "disk", "config"}),
        ("hydra", {"train", "sweep", "run", "search", "console", "disk", "config"}),
        ("optuna", {"search"}),
        ("mlflow", {"tracking", "results"}),
        ("matplotlib", {"charts"}),
    ],
)
def test_a_library_appears_in_few_named_places(library: str, parts: set[str]) -> None:
    users = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == library for name in names):
                users.add(part_of(module))
    assert users == parts


def pulled_in(statement: str) -> set[str]:
    """Which of `HEAVY` a fresh interpreter has loaded after *statement*."""
    code = f"import sys; {statement}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.integration
def test_the_entry_point_is_light() -> None:
    """`--help`, tab completion and every message about a typo come before torch."""
    assert pulled_in("import mnist_exp.train") == set()


@pytest.mark.integration
@pytest.mark.parametrize(
    "name", ["evaluate.__main__", "predict", "rerun", "doctor", "notebook", "report.__main__", "data.__main__"]
)
def test_commands_load_what_is_heavy_only_when_they_work(name: str) -> None:
    assert pulled_in(f"import mnist_exp.{name}") == set()


@pytest.mark.integration
def test_the_plugins_are_light() -> None:
    """Hydra imports them at every start, of whatever application."""
    plugins = sorted(path.stem for path in Path(hydra_plugins.mnist_exp.__file__).parent.glob("[!_]*.py"))
    assert "launchers" in plugins
    assert pulled_in("; ".join(f"import hydra_plugins.mnist_exp.{name}" for name in plugins)) == set()


def test_the_package_itself_loads_nothing() -> None:
    assert pulled_in("import mnist_exp; assert 'hydra' not in sys.modules") == set()


@pytest.mark.integration
def test_the_run_knows_no_tracker() -> None:
    """The publisher reports to MLflow; training imports neither MLflow nor matplotlib."""
    assert pulled_in("import mnist_exp.run.session") == {"torch"}


@pytest.mark.integration
def test_meta_the_check_sees_what_is_loaded() -> None:
    assert pulled_in("import mnist_exp.charts.run") == {"matplotlib"}
