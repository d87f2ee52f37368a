"""A repeated run gives the same bits, and where it does not, that is said and counted."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trainings
from samples import TINY

from mnist_exp import rerun, system
from mnist_exp.config import Config
from mnist_exp.disk import journal, ledger
from mnist_exp.disk.files import atomic_write, read_json
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ConfigError, DivergedError, ExperimentError
from mnist_exp.run import one, session
from mnist_exp.run.session import Task
from mnist_exp.tracking.runs import publish
from mnist_exp.tracking.store import Store

FOLDER = Path("outputs/runs/2026-01-31/10-00-00-abcdef")


@pytest.fixture
def trained(tiny: Callable[..., Config]) -> Path:
    trainings.run(tiny(), FOLDER, ["hidden=16"])
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
        trainings.run(composed(*TINY, "hidden=null", *model), FOLDER)
    assert len(journal.read(FOLDER)) == 1
    rerun.main([f"run={FOLDER}"])
    out = capsys.readouterr().out
    assert "It failed: The loss is not finite" in out
    assert "Bit-equal: the losses and accuracies of 1 epoch are" in out


@pytest.mark.integration
def test_a_run_of_a_pack_comes_out_again_alone(tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]) -> None:
    folders = [Path(f"outputs/sweeps/2026-01-31/10-00-00-abcdef/{i}") for i in range(3)]
    configs = [tiny(hidden=hidden, lr=lr) for hidden, lr in ((16, 1e-3), (16, 3e-3), (24, 1e-3))]
    session.run_many([Task(*both) for both in zip(configs, folders, strict=True)])
    for folder in folders:
        rerun.main([f"run={folder}"])
        assert f"Bit-equal: the losses and accuracies of 2 epochs are those of {folder}" in capsys.readouterr().out


@pytest.mark.integration
def test_a_run_that_was_trained_elsewhere_comes_out_again(
    tiny: Callable[..., Config], mlflow_store: Callable[[str], Store], capfd: pytest.CaptureFixture[str]
) -> None:
    elsewhere = [Path(f"elsewhere/{i}") for i in range(2)]
    session.run_many(
        [Task(tiny(tracking={"enabled": True}, lr=lr), f) for lr, f in zip((1e-3, 3e-3), elsewhere, strict=True)]
    )
    publish(elsewhere[1], mlflow_store("mnist_exp"))
    run_id = read_json(elsewhere[1] / "mlflow.json")["run_id"]
    shutil.rmtree("elsewhere")
    rerun.main([f"run={run_id}"])
    out, err = capfd.readouterr()
    assert "Bit-equal: the losses and accuracies of 2 epochs are" in out
    assert "Downloading" not in err


def test_a_repeated_run_is_registered_nowhere(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    trainings.run(tiny(tracking={"register": "mnist"}), FOLDER)
    seen: list[Config] = []
    train = one.train
    monkeypatch.setattr(one, "train", lambda config, *rest, **more: (seen.append(config), train(config, *rest, **more)))
    rerun.main([])
    assert seen[0].tracking.register is None


def test_it_is_repeated_with_as_many_threads(tiny: Callable[..., Config]) -> None:
    trainings.run(tiny(threads=2), FOLDER)
    torch.set_num_threads(1)
    rerun.main([])
    (again,) = [folder for folder in Path("outputs/runs").glob("*/*") if folder != FOLDER]
    assert ledger.read(again).threads == 2


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
    before, after = Ledger(host="a", tags={"git.commit": "1" * 40}), Ledger(host="b", tags={"git.commit": "2" * 40})
    before.fingerprint, after.fingerprint = {"code": "x"}, {"code": "y"}
    assert rerun.differences(before, after) == [
        "code: fingerprint x, now y (commits 1111111111 and 2222222222)",
        "machine: a, now b",
    ]
    assert rerun.differences(before, before) == []
    assert rerun.differences(Ledger(threads=2), Ledger(threads=1)) == ["threads: 2, now 1"]
    assert rerun.differences(Ledger(), Ledger(threads=1)) == ["threads: not recorded, now 1"]
    shared = Ledger(threads=2, threads_after={"3": 1})
    assert rerun.differences(shared, Ledger(threads=2)) == ["threads: 2, 1 after epoch 3, now 2"]


def test_changes_of_threads_are_repeated(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    free = iter([2.0, 2.0, 1.0, 1.0])  # after two epochs another program wants a core
    monkeypatch.setattr(system, "cores", lambda: 2)
    monkeypatch.setattr(system.FreeCores, "look", lambda self: next(free))
    FOLDER.mkdir(parents=True)
    one.train(tiny(threads=None, epochs=3), FOLDER, [])
    rerun.main([])
    (again,) = [folder for folder in Path("outputs/runs").glob("*/*") if folder != FOLDER]
    after = ledger.read(again)
    assert (after.threads, after.threads_after) == (2, {"2": 1})
