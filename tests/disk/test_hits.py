"""Which images a network gets right is kept, for the weights that are exported, whatever happened on the way."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from trainings import interrupted, tasks

from mnist_exp.config import Config
from mnist_exp.disk import hits, journal
from mnist_exp.disk.layout import RunFolder
from mnist_exp.run import session
from mnist_exp.run.session import Task

Tiny = Callable[..., Config]


def trained(config: Config, folder: str) -> Path:
    session.run_many([Task(config, Path(folder))])
    return Path(folder)


def agree(folder: Path, epoch: int) -> None:
    """The accuracies of that *epoch* are those of the hits."""
    metrics = journal.read(folder)[epoch - 1]["metrics"]
    for split in ("val", "test"):
        right = hits.read(folder, split)
        assert right is not None
        assert right.mean() == pytest.approx(metrics[f"{split}/accuracy"], abs=1e-12)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    right = np.random.default_rng(0).random(13) < 0.5
    hits.write(tmp_path, {"val": right})
    assert (hits.read(tmp_path, "val") == right).all()
    assert hits.read(tmp_path, "test") is None
    RunFolder(tmp_path).hits.write_bytes(b"{")
    assert hits.read(tmp_path, "val") is None
    assert hits.read(tmp_path / "nowhere", "val") is None


@pytest.mark.parametrize("images", ["1e12", "1000000000000", "-13", "0", "5", '"x"', "[" * 100_000 + "]" * 100_000])
def test_a_number_of_images_that_the_bits_do_not_have_is_damage(images: str, tmp_path: Path) -> None:
    """One from elsewhere would fill the memory."""
    packed = {"val": np.packbits(np.ones(13, bool))}
    file = safetensors.numpy.save(packed, metadata={"images": f'{{"val": {images}}}'})
    RunFolder(tmp_path).hits.write_bytes(file)
    assert hits.read(tmp_path, "val") is None


def test_bits_are_a_row_of_bytes(tmp_path: Path) -> None:
    for wrong in (np.ones((2, 1), np.uint8), np.ones(2, np.float32)):
        file = safetensors.numpy.save({"val": wrong}, metadata={"images": '{"val": 13}'})
        RunFolder(tmp_path).hits.write_bytes(file)
        assert hits.read(tmp_path, "val") is None


def test_they_are_those_of_the_last_epoch(tiny: Tiny) -> None:
    agree(trained(tiny(epochs=3), "run"), epoch=3)


def test_each_run_of_a_pack_has_its_own(tiny: Tiny) -> None:
    configs = [tiny(epochs=2, lr=lr, seed=seed, data={"order_seed": 0}) for seed, lr in enumerate((1e-3, 3e-2))]
    session.run_many(tasks(configs, "pack"))
    for i in range(2):
        agree(Path(f"pack/{i}"), epoch=2)


def test_with_patience_they_are_those_of_the_best_epoch_also_after_a_stop(tiny: Tiny) -> None:
    config = tiny(epochs=9, lr=0.03, training={"patience": 2})
    whole = trained(config, "whole")
    rows = [row["metrics"]["val/accuracy"] for row in journal.read(whole)]
    best = rows.index(max(rows)) + 1
    assert best < len(rows)
    agree(whole, best)
    interrupted(config, Path("parts"), after=best + 1)  # the best epoch is that of the first part
    assert trained(config, "parts")
    assert RunFolder(Path("parts")).hits.read_bytes() == RunFolder(whole).hits.read_bytes()


def test_without_validation_there_are_those_of_the_test_set(tiny: Tiny) -> None:
    folder = trained(tiny(data={"val_size": 0}), "run")
    assert hits.read(folder, "val") is None
    assert hits.read(folder, "test") is not None
