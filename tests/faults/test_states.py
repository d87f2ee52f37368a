"""Checkpoints, ledgers and plans that are damaged, hostile or of another config."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import trainings
from kit import OFF, SMALL, command, same_weights, whole

from mnist_exp.config import Config
from mnist_exp.disk import checkpoint, ledger
from mnist_exp.disk.files import sha256
from mnist_exp.errors import CheckpointError, ExperimentError

Tiny = Callable[..., Config]
Injected = Callable[..., None]


def halfway(config: Config, folder: Path) -> None:
    """Makes a run as killed before it wrote its weights, with two checkpoints."""
    trainings.run(config, folder, extras=False)
    (folder / "weights.safetensors").unlink()
    entry = ledger.read(folder)
    entry.state = "running"
    entry.write(folder)


def states(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("last-*"), reverse=True)


def damage(path: Path, how: int) -> None:
    """Truncates *path* at *how* percent, or flips a bit at that position if *how* is negative."""
    data = bytearray(path.read_bytes())
    path.unlink()  # `best` is a link to the same bytes
    at = len(data) * abs(how) // 100
    if how < 0:
        data[at] ^= 4
    path.write_bytes(bytes(data if how < 0 else data[:at]))


DAMAGE = [0, 1, 10, 50, 90, 99, -1, -10, -50, -90, -99]


@pytest.mark.faults(11)
def test_the_checkpoint_before_is_used(tiny: Tiny, injected: Injected) -> None:
    config = tiny(epochs=4)
    trainings.run(config, Path("calm"), extras=False)
    halfway(config, Path("half"))
    for how in DAMAGE:
        shutil.copytree("half", "run")
        damage(states(Path("run"))[0], how)
        trainings.run(config, Path("run"), extras=False)
        whole_but_damaged(Path("run"))
        same_weights(Path("run"), Path("calm"))
        shutil.rmtree("run")
        injected()


def whole_but_damaged(folder: Path) -> None:
    for path in states(folder):
        checkpoint.load(path)
    assert ledger.read(folder).state == "finished"


@pytest.mark.faults(11)
def test_if_none_is_left_nothing_is_started(tiny: Tiny, injected: Injected) -> None:
    config = tiny(epochs=4)
    halfway(config, Path("run"))
    for path in states(Path("run")):
        damage(path, 50)
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* can be used: .* is damaged"):
        trainings.run(config, Path("run"), extras=False)
    injected(2)


@pytest.mark.faults(11)
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"format": 1, "state": ', '{"format": "x"}', "\x00\xff"])
@pytest.mark.parametrize("name", ["ledger.json", "sweep.json"])
def test_a_damaged_record_is_named(name: str, text: str, tiny: Tiny, injected: Injected) -> None:
    if name == "ledger.json":
        halfway(tiny(), Path("run"))
        Path("run/ledger.json").write_text(text, encoding="latin-1")
        with pytest.raises(ExperimentError, match=r"ledger\.json (is damaged|has format)"):
            trainings.run(tiny(), Path("run"), extras=False)
        ledger.reap(Path("run"))  # other processes do this; it does not raise
    else:
        from mnist_exp.disk import plan

        Path("sweep.json").write_text(text, encoding="latin-1")
        with pytest.raises(ExperimentError, match=r"sweep\.json (is damaged|has format)"):
            plan.read(Path())
    injected()


@pytest.mark.faults(11)
@pytest.mark.parametrize(
    "bad", [b'{"epoch": 2, "st', b"\xff\xfe\n", b"7\n", b'{"epoch": 9, "step": 1}\n', b'{"epoch": 2}\n', b"\x00" * 64]
)
def test_a_damaged_journal_is_mended_from_the_checkpoint(bad: bytes, tiny: Tiny, injected: Injected) -> None:
    config = tiny(epochs=4)
    halfway(config, Path("run"))
    rows = Path("run/metrics.jsonl").read_bytes().splitlines(keepends=True)
    Path("run/metrics.jsonl").write_bytes(rows[0] + bad)
    trainings.run(config, Path("run"), extras=False)
    whole(Path("run"))
    assert Path("run/metrics.jsonl").read_bytes() == b"".join(rows)
    injected()


class Hostile:
    """Creates a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (os.mkdir, ("canary",))


@pytest.mark.faults(12)
def test_a_hostile_checkpoint_is_refused_unopened(tiny: Tiny, injected: Injected) -> None:
    code, _, err = command(*SMALL, OFF, "hydra.run.dir=run")
    assert code == 0, err
    entry = ledger.read(Path("run"))
    entry.state = "running"
    entry.write(Path("run"))
    shutil.rmtree("run/checkpoints")
    Path("run/checkpoints").mkdir()
    buffer = io.BytesIO()
    torch.save({"format": 1, "epoch": Hostile()}, buffer)
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    Path("canary").rmdir()  # it works when it is unpickled
    Path(f"run/checkpoints/last-0002-{sha256(buffer.getvalue())[:12]}.pt").write_bytes(buffer.getvalue())
    code, _, err = command("resume=run")
    assert code == 2
    assert "is not a checkpoint of this program" in err
    assert not Path("canary").exists()
    injected()


@pytest.mark.faults(13)
def test_a_checkpoint_of_another_config_is_refused_with_the_difference(injected: Injected) -> None:
    assert command(*SMALL, OFF, "hydra.run.dir=run")[0] == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file() and path.suffix != ".log"}
    code, _, err = command("resume=run", "hidden=32", "lr=0.1")
    assert code == 2
    assert "run was made with something else: hidden was 16, now 32; lr was 0.001, now 0.1" in err
    assert {path: path.read_bytes() for path in before} == before
    injected()
