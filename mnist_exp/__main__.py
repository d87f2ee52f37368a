"""`python -m mnist_exp`: lists the commands."""

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from mnist_exp.config.guesses import closest
from mnist_exp.console import exits
from mnist_exp.console.arguments import version
from mnist_exp.console.terminal import console
from mnist_exp.errors import ConfigError

COMMANDS = ("train", "ui", "report", "evaluate", "predict", "diff", "rerun", "sync", "remove", "data", "doctor")


def main(arguments: Sequence[str]) -> None:
    """Prints the version, and what each command does.

    Raises:
        ConfigError: *arguments* are those of one of them.
    """
    if arguments and arguments[0] not in ("-h", "--help", "--version"):
        rest = arguments[1:] if re.fullmatch(r"\w+", arguments[0]) else arguments
        near = closest(arguments[0], COMMANDS) if rest is not arguments else ""
        command = shlex.join(["python", "-m", f"mnist_exp.{near or 'train'}", *rest])
        way_out = f"Each command is a module: {command}"
        raise ConfigError(f"python -m mnist_exp takes no {arguments[0]!r}.", way_out)
    if arguments == ["--version"]:
        console.out(version(), highlight=False)
        return
    console.out(f"{version()}: sweeps of small image classifiers\n", highlight=False)
    for command, about in abouts():
        console.out(f"  python -m mnist_exp.{command:<10} {about}", highlight=False)
    console.out("\n--help after any of them shows its options and examples.", highlight=False)


def abouts() -> Iterator[tuple[str, str]]:
    """Each command, and what its module's first line says it does; nothing is imported."""
    for command in COMMANDS:
        spec = find_spec(f"mnist_exp.{command}")
        assert spec
        assert spec.origin
        path = Path(spec.origin)
        source = path.with_name("__main__.py") if path.name == "__init__.py" else path
        first, *_ = (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").splitlines()
        yield command, first.partition(": ")[2]


cli = exits.command(main)

if __name__ == "__main__":
    cli()
