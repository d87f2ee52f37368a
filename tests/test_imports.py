"""Imports only go down, and what starts first imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hydra_plugins.mnist_exp
import mnist_exp.config

PACKAGE = Path(mnist_exp.config.__file__).parent
HEAVY = ("torch", "mlflow", "matplotlib", "optuna", "pandas", "submitit", "ray")

# Highest first. A module may import from its own layer and from those below; a folder means all that is in it.
LAYERS = [
    {"train", "evaluate", "rerun", "notebook"},
    {"single", "sweep", "predict"},
    {"report", "sync", "doctor"},
    {"search"},
    {"run", "results"},
    {"guard"},
    {"resume", "naming", "build"},
    {"engine"},
    {"checkpoint", "tracking"},
    {"models", "figures"},
    {"ranking"},
    {"data", "journal", "lanes", "ledger", "plan", "pictures"},
    {"compose"},
    {"cli", "provenance", "records", "trust"},
    {"config", "events", "terminal"},
    {"errors", "files", "privacy", "words"},
    {"completion", "processor"},
]
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}


def part_of(module: str) -> str:
    """`engine` for `mnist_exp.engine.loop`."""
    return module.split(".")[1] if "." in module else ""


def imported(source: str) -> set[str]:
    """The parts of the package that *source* imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {part_of(alias.name) for alias in node.names if alias.name.startswith("mnist_exp.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "mnist_exp":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnist_exp."):
            found.add(part_of(node.module or ""))
    return found


def upward(part: str, source: str) -> set[str]:
    """What *source*, a module of *part*, imports from above."""
    return {other for other in imported(source) if RANK[other] < RANK[part]}


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.name != "__init__.py"]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_only_go_down(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert part in RANK, f"give {part} its place in LAYERS"
    assert upward(part, path.read_text()) == set()


def test_meta_an_upward_import_is_seen() -> None:
    assert upward("data", "from mnist_exp import config") == set()
    assert upward("data", "from mnist_exp.data import idx") == set()
    assert upward("data", "from mnist_exp.engine.loop import fit") == {"engine"}
    assert upward("files", "def f():\n    from mnist_exp import train, errors") == {"train"}
    assert upward("config", "import mnist_exp.run") == {"run"}


@pytest.mark.parametrize(
    ("library", "parts"),
    [
        # Below `config.parse` there is no DictConfig.
        ("omegaconf", {"config", "cli", "train", "resume", "search", "sweep", "compose", "trust", "guard"}),
        ("hydra", {"config", "cli", "train", "single", "build", "search", "sweep", "compose", "trust", "guard"}),
        ("optuna", {"search"}),
        ("mlflow", {"tracking", "report", "sweep", "sync", "doctor"}),
        ("matplotlib", {"figures", "report"}),
    ],
)
def test_a_library_appears_in_few_named_places(library: str, parts: set[str]) -> None:
    found = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == library for name in names):
                found.add(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    assert found
    assert found <= parts


def pulled_in(statement: str) -> set[str]:
    """Which of `HEAVY` a fresh interpreter has loaded after *statement*."""
    code = f"import sys; {statement}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_entry_point_is_light() -> None:
    """`--help`, tab completion and every message about a typo come before torch."""
    assert pulled_in("import mnist_exp.train") == set()


@pytest.mark.parametrize(
    "name", ["evaluate", "predict", "rerun", "doctor", "notebook", "report.__main__", "data.__main__"]
)
def test_commands_load_what_is_heavy_only_when_they_work(name: str) -> None:
    assert pulled_in(f"import mnist_exp.{name}") == set()


def test_the_plugins_are_light() -> None:
    """Hydra imports them at every start, of whatever application."""
    plugins = sorted(path.stem for path in Path(hydra_plugins.mnist_exp.__file__).parent.glob("[!_]*.py"))
    assert "local_launcher" in plugins
    assert pulled_in("; ".join(f"import hydra_plugins.mnist_exp.{name}" for name in plugins)) == set()


def test_the_package_itself_loads_nothing() -> None:
    assert pulled_in("import mnist_exp; assert 'hydra' not in sys.modules") == set()


def test_the_run_knows_no_tracker() -> None:
    """The courier tells MLflow; training never imports it, nor what draws figures."""
    assert pulled_in("import mnist_exp.run") == {"torch"}


def test_meta_the_check_sees_what_is_loaded() -> None:
    assert pulled_in("import mnist_exp.figures") == {"matplotlib"}
