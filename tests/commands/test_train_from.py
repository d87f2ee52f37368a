"""Training from Python leaves what the command leaves."""

from collections.abc import Callable
from pathlib import Path

import pytest
from samples import TINY, once

import mnist_exp
from mnist_exp.disk import journal, ledger
from mnist_exp.errors import ConfigError
from mnist_exp.results import names as naming


def test_a_run_from_python_is_a_run_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    result = mnist_exp.train_from(once(*TINY, "hidden=8"))
    assert result.state == "finished"
    assert result.folder.resolve() == naming.one("last").resolve()
    assert result.folder.parts[:2] == ("outputs", "runs")
    entry = ledger.read(result.folder)
    assert entry.overrides == once(*TINY, "hidden=8")
    assert entry.summary == result.summary
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("Epoch 2/2, Train Loss: ") for line in lines)
    assert not any("\r" in line or "\x1b" in line for line in lines)
    assert "Epoch 2/2" in (result.folder / "train.log").read_text()


def test_it_computes_what_the_command_computes(command: Callable[..., tuple[int, str, str]]) -> None:
    result = mnist_exp.train_from(TINY)
    code, _, err = command(*TINY)
    assert code == 0, err
    (other,) = [f for f in Path("outputs/runs").glob("*/*") if f.resolve() != result.folder.resolve()]
    assert [row["metrics"]["test/loss"] for row in journal.read(other)] == [
        row["metrics"]["test/loss"] for row in journal.read(result.folder)
    ]


def test_resuming_goes_on_in_the_same_folder() -> None:
    first = mnist_exp.train_from(once(*TINY, "epochs=1"))
    again = mnist_exp.train_from([f"resume={first.folder}", "epochs=3", "force=true"])
    assert again.folder == first.folder
    assert len(journal.read(first.folder)) == 3


def test_a_mistake_is_a_sentence_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="no setting 'hiden'") as caught:
        mnist_exp.train_from(["hiden=256"])
    assert "Did you mean 'hidden'?" in caught.value.__notes__[0]
    assert not Path("outputs").exists()


def test_the_package_offers_nothing_else() -> None:
    assert mnist_exp.__all__ == ["train_from"]
    with pytest.raises(AttributeError, match="no attribute 'train_form'"):
        mnist_exp.train_form  # noqa: B018  # reading it is the test
