"""Training from Python leaves what the command leaves."""

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
import torch
from samples import TINY, once

import mnist_exp
from mnist_exp import results
from mnist_exp.disk import journal, ledger
from mnist_exp.errors import ConfigError
from mnist_exp.notebook import undisturbed
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


def test_it_leaves_the_process_as_it_was() -> None:
    Path("conf").mkdir()
    Path("conf/own.yaml").write_text("answer: 42\n")
    torch.set_num_threads(2)
    torch.manual_seed(7)
    numbers, variables, folder = torch.get_rng_state(), dict(os.environ), Path.cwd()
    handlers, signals = list(logging.getLogger("mnist_exp").handlers), signal.getsignal(signal.SIGINT)
    with hydra.initialize_config_dir(str(Path("conf").resolve()), version_base="1.2"):
        mnist_exp.train_from(once(*TINY, "threads=1"))
        assert hydra.compose("own").answer == 42
        assert hydra.version.getbase() == hydra.version.Version("1.2")
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), numbers)
    assert (torch.tensor([1e-39]) * 1).count_nonzero()  # denormal numbers are numbers again
    assert (dict(os.environ), Path.cwd()) == (variables, folder)
    assert list(logging.getLogger("mnist_exp").handlers) == handlers
    assert signal.getsignal(signal.SIGINT) is signals


def test_what_a_user_has_set_is_kept() -> None:
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("medium")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
    with undisturbed():
        torch.set_flush_denormal(False)
        torch.set_float32_matmul_precision("highest")
        torch.use_deterministic_algorithms(True)
        del os.environ["CUBLAS_WORKSPACE_CONFIG"]
        os.environ["NEW"] = "1"
    assert not (torch.tensor([1e-39]) * 1).count_nonzero()
    assert torch.get_float32_matmul_precision() == "medium"
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG") == ":16:8"
    assert "NEW" not in os.environ


def test_the_package_offers_nothing_else() -> None:
    assert mnist_exp.__all__ == ["load_model", "results", "sweep", "train_from"]
    assert mnist_exp.results.load is results.load
    with pytest.raises(AttributeError, match="no attribute 'train_form'"):
        mnist_exp.train_form  # noqa: B018  # reading it is the test
