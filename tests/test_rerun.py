"""A repeated run gives the same bits, and where it does not, that is said and counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from mnist_exp import journal, ledger, rerun, run
from mnist_exp.config import Config
from mnist_exp.errors import ConfigError, DivergedError, ExperimentError
from mnist_exp.files import atomic_write
from mnist_exp.ledger import Ledger

FOLDER = Path("outputs/runs/2026-01-31/10-00-00-abcdef")


@pytest.fixture
def trained(tiny: Callable[..., Config]) -> Path:
    run.run(tiny(), FOLDER, ["hidden=16"])
    return FOLDER


def row(epoch: int, **metrics: float) -> dict[str, Any]:
    return {"epoch": epoch, "step": 0, "time_ms": 0, "metrics": {k.replace("_", "/"): v for k, v in metrics.items()}}


def test_the_same_code_and_config_give_the_same_bits(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rerun.main([])
    out = capsys.readouterr().out
    assert "Code, config, data, versions and machine are the same." in out
    assert "Bit-equal: the losses and accuracies of 2 epochs are" in out
    (again,) = [folder for folder in Path("outputs/runs").glob("*/*") if folder != trained]
    entry = ledger.read(again)
    assert (entry.state, entry.overrides) == ("finished", ["hidden=16"])
    assert entry.tags["rerun.of"] == str(trained)
    assert "Epoch 2/2" in (again / "train.log").read_text()
    assert ledger.read(trained).tags.keys() == entry.tags.keys() - {"rerun.of"}


def test_other_metrics_and_what_may_explain_them_are_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = ledger.read(trained)
    entry.tags["version.torch"] = "2.0.0"
    entry.fingerprint["code"] = "0" * 16
    entry.write(trained)
    text = (trained / "metrics.jsonl").read_text()
    loss = journal.read(trained)[1]["metrics"]["test/loss"]
    atomic_write(trained / "metrics.jsonl", text.replace(repr(loss), repr(loss + 0.25)).encode())
    with pytest.raises(
        ExperimentError, match=r"test/loss of epoch 2 was .*; the largest difference is 0\.25"
    ) as caught:
        rerun.main([f"run={trained}"])
    assert caught.value.exit_code == 1
    assert caught.value.help == "What differs may explain it."
    out = capsys.readouterr().out
    assert "Differs: code: fingerprint 0000000000000000, now " in out
    assert "Differs: torch: 2.0.0, now " in out


def test_a_run_that_diverged_diverges_again(
    composed: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    """What it measured before is compared."""
    model = ["model=custom", "model._target_=faulty.Faulty", "+model.mode=diverge", "+model.after=10"]
    with pytest.raises(DivergedError):
        run.run(composed(*TINY, *model), FOLDER)
    assert len(journal.read(FOLDER)) == 1
    rerun.main([f"run={FOLDER}"])
    out = capsys.readouterr().out
    assert "It failed: The loss is not finite" in out
    assert "Bit-equal: the losses and accuracies of 1 epoch are" in out


def test_where_no_epoch_was_finished_there_is_nothing_to_compare(trained: Path) -> None:
    (trained / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError, match="finished no epoch"):
        rerun.main([])


def test_comparing() -> None:
    before = [row(1, test_loss=0.5, time_epoch=1.0), row(2, test_loss=0.25, time_epoch=1.0)]
    assert rerun.compare(before, [row(1, test_loss=0.5), row(2, test_loss=0.25, time_epoch=9.0)], whole=True) == ""
    off = [row(1, test_loss=0.5), row(2, test_loss=0.25000000000000006)]
    assert rerun.compare(before, off, whole=True).startswith("test/loss of epoch 2 was 0.25, now 0.25000000000000006")
    assert rerun.compare(before, before[:1], whole=True) == "2 epochs, now 1."
    assert rerun.compare(before[:1], before, whole=True) == "1 epoch, now 2."
    assert rerun.compare(before[:1], before, whole=False) == ""  # it was stopped after the first
    assert "test/accuracy" in rerun.compare(before[:1], [row(1, test_loss=0.5, test_accuracy=1.0)], whole=True)


def test_another_machine_is_a_difference() -> None:
    one, other = Ledger(host="a", tags={"git.commit": "1" * 40}), Ledger(host="b", tags={"git.commit": "2" * 40})
    one.fingerprint, other.fingerprint = {"code": "x"}, {"code": "y"}
    assert rerun.differences(one, other) == [
        "code: fingerprint x, now y (commits 1111111111 and 2222222222)",
        "machine: a, now b",
    ]
    assert rerun.differences(one, one) == []
