"""`python -m mnist_exp.data fetch|verify`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from data_fixtures import contents, write_dataset

from mnist_exp.config import Config
from mnist_exp.data import __main__ as command
from mnist_exp.data import fetch
from mnist_exp.errors import ConfigError, DataError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, composed: Callable[..., Config]) -> None:
    """Datasets whose digests nobody knows, so that small files will do."""

    def compose(overrides: list[str]) -> Config:
        config = composed(*overrides)
        config.data.sha256, config.data.debian = {}, ""
        return config

    monkeypatch.setattr(command, "compose", compose)


@pytest.mark.integration
@pytest.mark.usefixtures("small")
def test_fetching_gets_each_named_dataset_once(
    mirror: list[str], scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main(["fetch", "mnist", "fashion_mnist", "synthetic"])
    assert mirror == ["MNIST", "FashionMNIST"]
    out = capsys.readouterr().out
    assert "mnist: complete in .cache/mnist_exp/mnist" in out
    assert "synthetic: made in memory" in out
    command.main(["fetch"])
    assert mirror == ["MNIST", "FashionMNIST"]


@pytest.mark.usefixtures("small")
def test_a_root_is_where_they_go(mirror: list[str], scratch: Path) -> None:
    command.main(["fetch", "root=shared"])
    assert {path.name for path in (scratch / "shared").iterdir() if path.name[0] != "."} > set(fetch.FILES)
    with pytest.raises(ConfigError, match="2 are named"):
        command.main(["fetch", "mnist", "fashion_mnist", "root=shared"])


@pytest.mark.integration
@pytest.mark.usefixtures("small")
def test_verifying_reads_and_fetches_nothing(
    mirror: list[str], scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(scratch / "files")
    command.main(["verify", "root=files"])
    assert capsys.readouterr().out.count("right") == 4
    (scratch / "files" / fetch.FILES[2]).unlink()
    with pytest.raises(DataError, match=f"files/{fetch.FILES[2]}: missing") as caught:
        command.main(["verify", "root=files"])
    assert caught.value.exit_code == 2
    assert mirror == []


def test_verifying_knows_the_digests_of_mnist(scratch: Path) -> None:
    write_dataset(scratch / "files")
    with pytest.raises(DataError, match="sha256 is "):
        command.main(["verify", "mnist", "root=files"])
    assert set(contents()) == {path.name for path in (scratch / "files").iterdir()}


def test_wrong_use_is_a_sentence() -> None:
    for typed, said in (([], "Nothing was asked for"), (["get"], "no 'get'"), (["fetch", "mnits"], "called 'mnits'")):
        with pytest.raises(ConfigError, match=said):
            command.main(typed)
