"""What all commands have: a place on the list, and our version."""

import importlib
import tomllib
from importlib import metadata

import pytest
from samples import REPO

from mnist_exp import __main__ as listing
from mnist_exp.console.arguments import Parser, version
from mnist_exp.errors import ConfigError

SCRIPTS = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["scripts"]


def test_each_console_script_is_on_the_list_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    modules = {
        target.partition(":")[0].removeprefix("mnist_exp.").removesuffix(".__main__") for target in SCRIPTS.values()
    }
    assert set(listing.COMMANDS) == modules
    listing.main([])
    lines = capsys.readouterr().out.splitlines()
    for command in listing.COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"  python -m mnist_exp.{command} ")]
        assert len(line.split(maxsplit=3)[3]) > 10
    assert max(len(line) for line in lines) <= 80


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    listing.main(["--version"])
    assert capsys.readouterr().out == f"{version()}\n"


@pytest.mark.parametrize(
    ("typed", "way_out"),
    [
        ("train hidden=64", "python -m mnist_exp.train hidden=64"),
        ("reprot", "python -m mnist_exp.report"),
        ("hidden=64", "python -m mnist_exp.train hidden=64"),
        ("hidden=[64,32] -m", "python -m mnist_exp.train 'hidden=[64,32]' -m"),
        ("-m hidden=16,32", "python -m mnist_exp.train -m hidden=16,32"),
    ],
)
def test_a_command_is_a_module_of_its_own(typed: str, way_out: str) -> None:
    with pytest.raises(ConfigError) as caught:
        listing.main(typed.split())
    assert caught.value.help == f"Each command is a module: {way_out}"


@pytest.mark.parametrize("command", sorted(set(listing.COMMANDS) - {"train"}))
def test_each_says_our_version(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"mnist_exp.{command}")
    main = module.main if hasattr(module, "main") else importlib.import_module(f"mnist_exp.{command}.__main__").main
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"mnist_exp {metadata.version('mnist_exp')}\n"


def test_train_says_ours_and_not_hydras(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from mnist_exp import train

    monkeypatch.setattr("sys.argv", ["train", "--version"])
    train.cli()
    assert capsys.readouterr().out == f"mnist_exp {metadata.version('mnist_exp')}\n"


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert "keys, with their defaults" not in Parser("diff", "About.", "").format_help()
    with pytest.raises(SystemExit):
        Parser("diff", "About.", "").parse_args(["--version"])
