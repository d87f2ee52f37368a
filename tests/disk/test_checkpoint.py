"""A run that is stopped goes on as if it had not been; a damaged state is never trusted."""

import dataclasses
import io
import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import trainings
from samples import TINY
from trainings import StopAfter, interrupted, outcome

from mnist_exp.config import Config
from mnist_exp.disk import checkpoint, files, journal, ledger
from mnist_exp.disk.checkpoint import Checkpoint
from mnist_exp.disk.files import sha256
from mnist_exp.errors import CheckpointError
from mnist_exp.run import session

Tiny = Callable[..., Config]


SETTINGS: dict[str, dict[str, Any]] = {
    "adam": {},
    "adamw, dropout, cosine": {
        "optimizer": {"_target_": "torch.optim.AdamW", "weight_decay": 0.1},
        "model": {"dropout": 0.2, "input_dropout": 0.1},
        "schedule": {"_target_": "mnist_exp.engine.schedules.Cosine", "warmup": 0.3},
    },
    "autograd": {"model": {"activation": "gelu", "dropout": 0.2, "norm": "batch"}},
    "torch's own optimiser": {"optimizer": {"fused": False}},
    "two layers": {"hidden": [16, 8]},
}


@pytest.mark.integration
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_two_epochs_and_two_are_four(settings: dict[str, Any], tiny: Tiny) -> None:
    config = tiny(epochs=4, **settings)
    trainings.run(config, Path("whole"))
    interrupted(config, Path("parts"), after=2)
    assert ledger.read(Path("parts")).state == "killed"
    result = trainings.run(config, Path("parts"))
    assert result.state == "finished"
    assert outcome(Path("parts")) == outcome(Path("whole"))
    assert [row["epoch"] for row in journal.read(Path("parts"))] == [1, 2, 3, 4]


@pytest.mark.integration
@pytest.mark.parametrize(("nesterov", "momentum"), [(False, 0.0), (False, 0.9), (True, 0.9)])
def test_two_epochs_and_two_are_four_with_sgd(nesterov: bool, momentum: float, composed: Callable[..., Config]) -> None:
    typed = [*TINY, "optimizer=sgd", f"optimizer.nesterov={nesterov}", f"optimizer.momentum={momentum}", "epochs=4"]
    config = composed(*typed)
    trainings.run(config, Path("whole"))
    interrupted(config, Path("parts"), after=2)
    trainings.run(config, Path("parts"))
    assert outcome(Path("parts")) == outcome(Path("whole"))


@pytest.mark.integration
@pytest.mark.parametrize("pack", [1, 2], ids=["alone", "in a pack"])
def test_a_run_goes_on_with_as_many_threads_as_it_began_with(pack: int, tiny: Tiny) -> None:
    """Whatever is asked for, and whatever the process had: the last bits depend on it."""
    configs = [tiny(threads=None, epochs=4, lr=lr, hidden=128, batch_size=64) for lr in (1e-3, 3e-3)[:pack]]
    torch.set_num_threads(2)
    session.run_many([session.Task(config, Path(f"whole/{i}")) for i, config in enumerate(configs)])
    parts = [session.Task(config, Path(f"parts/{i}")) for i, config in enumerate(configs)]
    session.run_many(parts, watch=lambda about, control: [StopAfter(2, control)])
    torch.set_num_threads(1)
    session.run_many([dataclasses.replace(part, config=dataclasses.replace(part.config, threads=1)) for part in parts])
    assert torch.get_num_threads() == 2
    for part in parts:
        assert ledger.read(part.folder).threads == 2
        assert "threads: 2" in (part.folder / "config.yaml").read_text()
        assert outcome(part.folder) == outcome(Path("whole") / part.folder.name)


def test_it_goes_on_with_as_many_as_other_programs_had_left_it(tiny: Tiny) -> None:
    config = tiny(epochs=4, threads=1)
    interrupted(config, Path("run"), after=2)
    entry = ledger.read(Path("run"))
    entry.threads_after = {"1": 3, "2": 2, "3": 1}  # the third epoch was not saved
    entry.write(Path("run"))
    trainings.run(config, Path("run"))
    assert torch.get_num_threads() == 2
    assert ledger.read(Path("run")).threads_after == {"1": 3, "2": 2}


@pytest.mark.integration
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_best_so_far_is_remembered(ema: float, tiny: Tiny) -> None:
    """Its weights are exported, though it came before the stop."""
    config = tiny(epochs=50, lr=0.3, training={"patience": 3, "ema": ema})
    whole = trainings.run(config, Path("whole"))
    best = int(whole.summary["best/epoch"])
    interrupted(config, Path("parts"), after=best + 1)
    assert trainings.run(config, Path("parts")).reason == whole.reason
    assert outcome(Path("parts")) == outcome(Path("whole"))
    last = checkpoint.load_last(Path("parts/checkpoints"))
    assert last is not None
    assert (last.best_epoch, last.epoch) == (best, best + 3)
    exported = safetensors.torch.load_file("parts/weights.safetensors")
    assert all(exported[name].equal(tensor) for name, tensor in last.chosen.items())
    assert not exported["layers.0.weight"].equal((last.averaged or last.weights)["layers.0.weight"])


@pytest.mark.integration
def test_a_damaged_newest_state_costs_one_epoch(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny(epochs=4)
    trainings.run(config, Path("whole"))
    interrupted(config, Path("parts"), after=3)
    newest = max(Path("parts/checkpoints").glob("last-*"))
    newest.write_bytes(newest.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        trainings.run(config, Path("parts"))
    assert f"{newest} is damaged: its bytes do not match the digest in its name." in caplog.text
    assert "An earlier checkpoint is tried." in caplog.text
    assert outcome(Path("parts")) == outcome(Path("whole"))


def test_states_that_are_all_damaged_are_explained(tiny: Tiny) -> None:
    interrupted(tiny(epochs=4), Path("run"), after=2)
    for path in Path("run/checkpoints").glob("last-*"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"No checkpoint in run/checkpoints can be used"):
        trainings.run(tiny(epochs=4), Path("run"))


def test_without_checkpoints_a_stopped_run_begins_again(tiny: Tiny) -> None:
    config = tiny(epochs=4, checkpoint={"enabled": False})
    trainings.run(config, Path("whole"))
    interrupted(config, Path("parts"), after=2)
    assert not Path("parts/checkpoints").exists()
    trainings.run(config, Path("parts"))
    assert outcome(Path("parts")) == outcome(Path("whole"))


def state(epoch: int = 1, **changes: Any) -> Checkpoint:
    rows = [
        {"epoch": n + 1, "step": n, "time_ms": 5, "metrics": {"train/loss": 0.1, "time/epoch": 1.0}}
        for n in range(epoch)
    ]
    weights = {"layer.weight": torch.full((2, 3), float(epoch))}
    known: dict[str, Any] = {"best": 0.5, "weights": weights, "moments": {}, "history": rows, "config": "abc"}
    return Checkpoint(epoch=epoch, **{**known, **changes})


def test_a_state_survives_the_round_trip() -> None:
    moments = {"layer.weight": {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 3)}}
    saved = state(moments=moments)
    loaded = checkpoint.load(checkpoint.save(Path("states"), saved))
    assert loaded.weights["layer.weight"].equal(saved.weights["layer.weight"])
    assert loaded.moments["layer.weight"]["exp_avg"].equal(moments["layer.weight"]["exp_avg"])
    assert (loaded.epoch, loaded.best, loaded.history, loaded.config) == (1, 0.5, saved.history, "abc")


def test_the_last_two_are_kept() -> None:
    for epoch in range(1, 6):
        checkpoint.save(Path("states"), state(epoch))
    assert sorted(path.name[:9] for path in Path("states").iterdir()) == ["last-0004", "last-0005"]


def test_no_state_is_none() -> None:
    assert checkpoint.load_last(Path("nowhere")) is None


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_earlier_state(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(Path("states"), state(1))
    before = sorted(Path("states").iterdir())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((files.os, "fsync") if failing == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(Path("states"), state(2))
    assert sorted(Path("states").iterdir()) == before
    last = checkpoint.load_last(Path("states"))
    assert last is not None
    assert last.epoch == 1


class Hostile:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (os.mkdir, ("canary",))


def named_by_digest(data: bytes, epoch: int = 1) -> Path:
    """*data* as a checkpoint whose name vouches for its bytes."""
    folder = Path("states")
    folder.mkdir(exist_ok=True)
    path = folder / f"last-{epoch:04d}-{sha256(data)[:12]}.pt"
    path.write_bytes(data)
    return path


def saved_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_a_hostile_pickle_is_refused_unopened() -> None:
    data = saved_bytes({"format": 1, "epoch": Hostile()})
    torch.load(io.BytesIO(data), weights_only=False)
    assert Path("canary").exists()  # it does bite
    Path("canary").rmdir()
    with pytest.raises(CheckpointError, match="is not a checkpoint of this program"):
        checkpoint.load(named_by_digest(data))
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (saved_bytes({"format": 2}), "has another format than 1"),
        (saved_bytes({"format": 1, "epoch": 1}), "is not a checkpoint of this program"),
        (saved_bytes([1, 2]), "is not a checkpoint of this program"),
        (b"", "is not a checkpoint of this program"),
    ],
    ids=["format", "fields", "list", "empty"],
)
def test_other_files_are_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        checkpoint.load(named_by_digest(data))


def test_a_state_that_unpacks_to_more_than_it_is_fills_no_memory() -> None:
    """torch writes its records as they are, but reads compressed ones, too."""
    plain, packed = saved_bytes({"format": 1, "weights": torch.zeros(10**6)}), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(plain)) as records, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as smaller:
        for name in records.namelist():
            smaller.writestr(name, records.read(name))
    assert len(packed.getvalue()) < len(plain) / 100
    assert torch.load(io.BytesIO(packed.getvalue()), weights_only=True)["weights"].numel() == 10**6  # it does unpack
    with pytest.raises(CheckpointError, match="it unpacks to more than it is"):
        checkpoint.load(named_by_digest(packed.getvalue()))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pt cannot be read: No such file or directory"):
        checkpoint.load(Path("gone.pt"))


@pytest.mark.parametrize("activation", ["relu", "gelu"], ids=["closed form", "autograd"])
def test_a_state_of_another_network_names_the_leaf(activation: str, tiny: Tiny) -> None:
    config = tiny(epochs=4, model={"activation": activation})
    interrupted(config, Path("run"), after=2)
    last = checkpoint.load_last(Path("run/checkpoints"))
    assert last is not None
    last.weights["layers.0.weight"] = torch.zeros(9, 784)
    checkpoint.save(Path("run/checkpoints"), last)
    with pytest.raises(
        CheckpointError, match=r"layers\.0\.weight was saved with shape \(9, 784\), but this model has \(16, 784\)"
    ):
        trainings.run(config, Path("run"))


CRAFTED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "epoch": lambda state: state | {"epoch": 2**70},
    "best": lambda state: state | {"best": "x"},
    "weights": lambda state: state | {"weights": [1, 2]},
    "hits": lambda state: state | {"hits": {"val": torch.zeros(20)}},
    "moments": lambda state: state | {"moments": {"layers.0.weight": 1}},
    "steps": lambda state: state | {"moments": {"layers.0.weight": {"step": torch.tensor(-1.0)}}},
    "history": lambda state: state | {"epoch": 99},
    "history ": lambda state: state | {"history": [row | {"metrics": {"x": [1]}} for row in state["history"]]},
    "tensors": lambda state: state | {"hits": {"val": torch.zeros(1, dtype=torch.bool).expand(10**12)}},
    "tensors ": lambda state: state | {"weights": {k: v.to_sparse() for k, v in state["weights"].items()}},
    "tensors  ": lambda state: state | {"averaged": {k: v.to("meta") for k, v in state["weights"].items()}},
    "tensors   ": lambda state: state | {"chosen": {k: v.to(torch.complex64) for k, v in state["weights"].items()}},
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("what", CRAFTED)
def test_a_state_that_no_run_has_saved_is_refused(what: str, tiny: Tiny) -> None:
    """Whoever makes one gives it the right digest; it fills no memory and trains nothing."""
    interrupted(tiny(epochs=4), Path("run"), after=1)
    (path,) = Path("run/checkpoints").glob("last-*")
    crafted(path, CRAFTED[what])
    says = {"history": "not have the results of each", "tensors": "not have all numbers of its tensors"}
    says |= {"hits": "no lists of right and wrong", "steps": "optimizer's steps is below 0"}
    with pytest.raises(CheckpointError, match=says.get(what.strip(), f"such a value as its {what}")):
        trainings.run(tiny(epochs=4), Path("run"))


MOMENTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "shape": lambda kept: torch.zeros(7),
    "axes": lambda kept: torch.zeros(() if kept.ndim else 3),
    "type": lambda kept: kept.to(torch.int64),
}
OPTIMIZERS = {
    "ours": (),
    "torch's": ("optimizer.fused=false",),
    "torch's, by autograd": ("optimizer.fused=false", "model.norm=batch"),
    "by its target": ("+optimizer.amsgrad=true",),
    "muon": ("optimizer=muon",),
}


@pytest.mark.parametrize("wrong", [*MOMENTS, "missing"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_moments_that_the_optimiser_does_not_keep_are_refused(
    optimizer: str, wrong: str, composed: Callable[..., Config]
) -> None:
    """Whichever optimiser, not by an error of torch in the midst of training."""
    config = composed(*TINY, *OPTIMIZERS[optimizer])
    interrupted(config, Path("run"), after=1)
    (path,) = Path("run/checkpoints").glob("last-*")

    def change(state: dict[str, Any]) -> dict[str, Any]:
        for moments in state["moments"].values():
            kept = moments.pop("exp_avg", None)
            if kept is not None and wrong in MOMENTS:
                moments["exp_avg"] = MOMENTS[wrong](kept)
        return state

    crafted(path, change)
    with pytest.raises(CheckpointError, match=r"exp_avg of layers\.\d\.\w+"):
        trainings.run(config, Path("run"))


@pytest.mark.parametrize("part", ["averaged", "chosen"])
def test_other_weights_of_another_network_name_the_leaf(part: str, tiny: Tiny) -> None:
    """They would be exported at the end."""
    interrupted(tiny(epochs=4), Path("run"), after=1)
    (path,) = Path("run/checkpoints").glob("last-*")
    crafted(path, lambda state: state | {part: {"layers.0.weight": torch.zeros(9, 784)}})
    with pytest.raises(CheckpointError, match="The saved state lacks layers"):
        trainings.run(tiny(epochs=4), Path("run"))


def crafted(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Replaces the checkpoint in *path* by a changed one, with its digest in its name."""
    buffer = io.BytesIO()
    torch.save(change(torch.load(path, weights_only=True)), buffer)
    path.unlink()
    data = buffer.getvalue()
    path.with_name(f"last-0001-{sha256(data)[:12]}.pt").write_bytes(data)
