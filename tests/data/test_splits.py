"""Validation is cut from training, order is a function of the seed, and the test set chooses nothing."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trainings
from beartype import beartype
from data_fixtures import described, write_dataset
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, Int, jaxtyped
from torch import Tensor

from mnist_exp import data
from mnist_exp.config import Config, Data
from mnist_exp.data import Order, Split, Splits, fetch, idx, mix, sources, splits
from mnist_exp.errors import ConfigError, DataError
from mnist_exp.models import Classifier
from mnist_exp.run import session

CPU = torch.device("cpu")


def split_of(count: int) -> Split:
    return Split(torch.zeros(count, 784, dtype=torch.uint8), torch.zeros(count).long(), torch.arange(count), 1.0, 0.0)


def cut(whole: Split, size: int, seed: int, **more: Any) -> tuple[Split, Split]:
    """*whole* as training and validation images."""
    data = Data("x", train_images=len(whole), val_size=size, split_seed=seed, **more)
    return splits.divide(whole, data)


@given(st.integers(1, 300), st.data(), st.integers(0, 5))
def test_every_image_trains_or_validates_and_none_does_both(count: int, draw: st.DataObject, seed: int) -> None:
    size = draw.draw(st.integers(0, count - 1))
    train, val = cut(split_of(count), size, seed)
    assert len(val) == size
    assert sorted([*train.rows.tolist(), *val.rows.tolist()]) == list(range(count))


def test_the_split_is_a_function_of_its_seed() -> None:
    _, first = cut(split_of(100), 10, seed=0)
    _, again = cut(split_of(100), 10, seed=0)
    _, other = cut(split_of(100), 10, seed=1)
    assert first.rows.equal(again.rows)
    assert not first.rows.equal(other.rows)


def test_the_runs_seed_leaves_the_split_alone(tiny: Callable[..., Config]) -> None:
    """Runs of several seeds are compared on the same validation images."""
    one, two = (data.load(tiny(seed=seed).data, CPU) for seed in (0, 1))
    assert one.val.rows.equal(two.val.rows)
    assert one.digest == two.digest


def test_the_documented_split_does_not_drift() -> None:
    """Another split would make results incomparable with those of earlier versions."""
    _, val = cut(split_of(20), 5, seed=0)
    assert val.rows.tolist() == [0, 1, 8, 12, 15]


def test_without_validation_all_images_train(tiny: Callable[..., Config]) -> None:
    loaded = data.load(tiny(data={"val_size": 0}).data, CPU)
    assert len(loaded.train) == 120
    assert len(loaded.val) == 0


def test_the_splits_share_their_pixels(tiny: Callable[..., Config]) -> None:
    loaded = data.load(tiny().data, CPU)
    assert loaded.train.images.data_ptr() == loaded.val.images.data_ptr()
    assert loaded.train.images.dtype == torch.uint8


@pytest.mark.parametrize("batch_size", [1, 7, 8, 9, 20, 1000])
@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_sees_each_image_once(batch_size: int, epoch: int) -> None:
    rows = torch.arange(100, 140, 2)  # 20 rows
    order = Order(rows, batch_size, seed=3)
    batches = order.batches(epoch)
    assert len(batches) == order.steps
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert torch.cat(batches).sort().values.equal(rows)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    rows = torch.arange(50)
    first = torch.cat(Order(rows, 8, seed=0).batches(2))
    assert first.equal(torch.cat(Order(rows, 16, seed=0).batches(2)))
    assert not first.equal(torch.cat(Order(rows, 8, seed=1).batches(2)))
    assert not first.equal(torch.cat(Order(rows, 8, seed=0).batches(3)))
    assert not first.equal(rows)


@pytest.mark.integration
@given(st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_mixed_seeds_fit_torch_and_differ(seed: int, epoch: int) -> None:
    assert 0 <= mix(seed, epoch) < 2**60
    assert len({mix(seed, epoch), mix(seed, epoch, 1), mix(seed + 1, epoch), mix(seed, epoch + 1)}) == 4


@jaxtyped(typechecker=beartype)
def batch_of(split: Split, rows: Int[Tensor, " batch"]) -> tuple[Float[Tensor, "batch 784"], Int[Tensor, " batch"]]:
    return split.take(rows)


def test_a_batch_is_standardised_and_keeps_its_labels(tiny: Callable[..., Config]) -> None:
    config = tiny()
    split = data.load(config.data, CPU).train
    rows = split.rows[:32]
    images, labels = batch_of(split, rows)
    expected = (split.images[rows].double() / 255 - config.data.mean) / config.data.std
    torch.testing.assert_close(images.double(), expected, atol=1e-6, rtol=1e-6)
    assert labels.equal(split.labels[rows])


def test_chunks_are_the_whole_split_in_order(tiny: Callable[..., Config]) -> None:
    split = data.load(tiny().data, CPU).test
    images, labels = zip(*split.chunks(7), strict=True)
    assert torch.cat(images).equal(split.take(split.rows)[0])
    assert torch.cat(labels).equal(split.labels)


def test_synthetic_images_are_the_same_each_time(tiny: Callable[..., Config]) -> None:
    one, two = (data.load(tiny().data, CPU) for _ in range(2))
    assert one.digest == two.digest
    assert one.train.images.equal(two.train.images)
    assert set(one.train.labels.tolist()) == set(range(10))


def test_the_digest_follows_the_images(tiny: Callable[..., Config]) -> None:
    one, more = (data.load(tiny(data={"test_images": n}).data, CPU) for n in (40, 41))
    assert one.digest != more.digest


def test_the_objective_is_never_a_test_metric(tiny: Callable[..., Config]) -> None:
    """Other test images: the same weights, the same best epoch, the same objective."""

    def trained(name: str, flip: bool) -> tuple[session.Result, bytes]:
        whole = data.load

        def load(about: object, device: torch.device) -> Splits:
            splits = whole(about, device)  # type: ignore[arg-type]
            if flip:
                splits.test.labels.copy_((splits.test.labels + 1) % 10)
            return splits

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(data, "load", load)
            result = trainings.run(tiny(), Path(name))
        return result, (result.folder / "weights.safetensors").read_bytes()

    (honest, weights), (flipped, same) = trained("honest", False), trained("flipped", True)
    assert weights == same
    assert honest.objective == flipped.objective == honest.summary["final/val_accuracy"]
    assert honest.summary["best/epoch"] == flipped.summary["best/epoch"]
    assert honest.summary["final/test_accuracy"] != flipped.summary["final/test_accuracy"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"height": 14}, "small has images of 28x28, but the config says 14x28 (training set)."),
        ({"channels": 3}, "small has images of 28x28, but the config says 3x28x28 (training set)."),
        (
            {"num_classes": 5},
            "small has the label 9 (of image 10), but data.num_classes=5 has labels 0 to 4 (training set).",
        ),
        ({"test_images": 6}, "small has 5 test images and 5 labels, but the config says 6."),
    ],
)
def test_what_the_files_hold_is_compared_with_the_config(changes: dict[str, int], said: str, tmp_path: Path) -> None:
    described_so = dataclasses.replace(described(write_dataset(tmp_path)), **changes)
    for step in (data.check, lambda each: data.load(each, CPU)):
        with pytest.raises(DataError, match=re.escape(said)):
            step(described_so)


@pytest.mark.parametrize(("images", "way"), [(10, "data.limit=10 in place of data.train_images"), (100, "")])
def test_who_wants_fewer_images_is_told_the_setting_for_it(images: int, way: str, tmp_path: Path) -> None:
    said = dataclasses.replace(described(write_dataset(tmp_path)), train_images=images, val_size=2)
    with pytest.raises(DataError, match=f"but the config says {images}") as caught:
        data.check(said)
    assert way in caught.value.help
    assert bool(caught.value.help) == bool(way)


def test_colour_images_come_as_channels_rows_and_columns(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path)
    images = torch.randint(0, 256, (12, 3, 5, 4), dtype=torch.uint8)
    for name, count in zip(fetch.FILES[::2], (12, 5), strict=True):
        (folder / name).write_bytes(idx.encode(images[:count]))
    chosen = Data(name="small", root=str(folder), train_images=12, test_images=5, val_size=2)
    chosen = dataclasses.replace(chosen, channels=3, height=5, width=4, std=1.0)
    loaded = data.load(chosen, CPU)
    assert loaded.train.shape == (3, 5, 4)
    batch, _ = loaded.test.take(torch.tensor([4]))
    torch.testing.assert_close(batch.view(3, 5, 4), images[4] / 255)


def test_synthetic_images_have_any_shape_and_number_of_classes() -> None:
    made = Data(train_images=300, test_images=40, num_classes=26, channels=3, height=8, width=12)
    images, labels, *_ = sources.synthetic(made)
    assert images.shape == (300, 3, 8, 12)
    assert labels.unique().tolist() == list(range(26))
    assert data.digest(dataclasses.replace(made, name="synthetic")) != data.digest(Data("synthetic", train_images=300))


@pytest.mark.parametrize("size", [0, 7, 30, 89])
def test_a_stratified_split_has_the_same_share_of_each_class(size: int) -> None:
    labels = torch.tensor([0] * 60 + [1] * 25 + [3] * 5)
    whole = dataclasses.replace(split_of(90), labels=labels)
    train, val = cut(whole, size, seed=0, stratify=True)
    assert len(val) == size
    assert sorted([*train.rows.tolist(), *val.rows.tolist()]) == list(range(90))
    for label in (0, 1, 3):
        expected = size * (labels == label).sum() / 90
        assert abs((labels[val.rows] == label).sum() - expected) <= 1
    again, other = (cut(whole, size, seed, stratify=True)[1] for seed in (0, 1))
    assert again.rows.equal(val.rows)
    assert size in (0, 89) or not other.rows.equal(val.rows)


LABELS = torch.tensor([0] * 60 + [1] * 25 + [3] * 5)


def uneven() -> Split:
    """Ninety images of uneven classes, mixed."""
    mixed = LABELS[torch.randperm(90, generator=torch.Generator().manual_seed(7))]
    return dataclasses.replace(split_of(90), labels=mixed)


def test_limits_have_each_class_by_its_share_and_those_of_a_lower_one() -> None:
    whole, before = uneven(), set[int]()
    _, val = cut(whole, 30, seed=1)
    for limit in (4, 10, 30, 59, 60):
        train, same = cut(whole, 30, seed=1, limit=limit)
        assert same.rows.equal(val.rows)
        rows = set(train.rows.tolist())
        assert len(rows) == limit
        assert before <= rows
        assert not rows & set(val.rows.tolist())
        rest = torch.tensor([row for row in range(90) if row not in set(val.rows.tolist())])
        for label in (0, 1, 3):
            share = limit * float((whole.labels[rest] == label).sum()) / 60
            assert max(1, share - 1) <= float((whole.labels[train.rows] == label).sum()) <= share + 1.5
        before = rows
    assert not cut(whole, 30, seed=2, limit=10)[0].rows.equal(cut(whole, 30, seed=1, limit=10)[0].rows)


@given(st.integers(2, 300), st.data(), st.integers(0, 5), st.booleans())
def test_folds_partition_the_images_and_none_both_trains_and_validates(
    count: int, draw: st.DataObject, seed: int, stratify: bool
) -> None:
    folds = draw.draw(st.integers(2, min(count, 12)))
    labels = torch.tensor(draw.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    whole, seen = dataclasses.replace(split_of(count), labels=labels), list[int]()
    for fold in range(folds):
        train, val = cut(whole, 0, seed, folds=folds, fold=fold, stratify=stratify)
        assert sorted([*train.rows.tolist(), *val.rows.tolist()]) == list(range(count))
        assert len(val) == Data("x", train_images=count, folds=folds, fold=fold).validating
        assert len(train) == Data("x", train_images=count, folds=folds, fold=fold).training
        for label in labels.unique() if stratify else ():
            assert abs(float((labels[val.rows] == label).sum()) - float((labels == label).sum()) / folds) < 1
        seen += val.rows.tolist()
    assert sorted(seen) == list(range(count))


def test_folds_differ_by_their_seed() -> None:
    one, other = (cut(split_of(60), 0, seed, folds=3, fold=0)[1] for seed in (0, 1))
    assert not one.rows.equal(other.rows)


def test_each_channel_has_its_own_mean_and_std(tiny: Callable[..., Config]) -> None:
    sides: dict[str, Any] = {"channels": 3, "height": 4, "width": 5}
    config = tiny(data={**sides, "mean": [0.1, 0.2, 0.3], "std": [0.5, 1, 2]})
    one = data.load(config.data, CPU).train
    pixels = one.images[one.rows].view(-1, 3, 4, 5).float()
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in ([0.1, 0.2, 0.3], [0.5, 1.0, 2.0]))
    images = torch.cat([batch for batch, _ in one.chunks(7)]).view(-1, 3, 4, 5)
    assert images.allclose((pixels / 255 - mean) / std, atol=1e-5)
    varied = Order(one.rows, 8, 0, augment=lambda given, rng: given)
    for batch, rows in zip(varied.feed(one, 0), varied.batches(0), strict=True):
        assert batch[0].allclose(one.take(rows)[0], atol=1e-5)
    whole = Classifier(torch.nn.Identity(), [0.1, 0.2, 0.3], [0.5, 1.0, 2.0], (3, 4, 5))
    assert whole(pixels).allclose(torch.softmax(images, -1), atol=1e-5)
    alike = data.load(tiny(data={**sides, "mean": [0.1] * 3, "std": 0.5}).data, CPU).train
    plain = data.load(tiny(data={**sides, "mean": 0.1, "std": 0.5}).data, CPU).train
    assert alike.take(alike.rows)[0].allclose(plain.take(plain.rows)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"limit": 9}, "data.limit must be between 10 (one image of each class) and 100 (the training images"),
        ({"limit": 101}, "but got 101."),
        ({"limit": 81, "folds": 3, "fold": 0}, "and 80 (the"),
        ({"fold": 0}, "data.fold=0 needs data.folds"),
        ({"folds": 3}, "data.fold has no value: it says which of data.folds=3 validates"),
        ({"folds": 3, "fold": 3}, "data.fold must be at most 2, but got 3"),
        ({"folds": 121, "fold": 0}, "data.folds=121 are more than the 120 training images"),
        ({"folds": 1, "fold": 0}, "data.folds must be at least 2"),
        ({"mean": [0.5, 0.5]}, "data.mean has 2 numbers, but data.channels is 1"),
        ({"std": [0.0]}, "data.std must be between 0.001 and 1000, or a list of such"),
        ({"mean": []}, "data.mean must be between 0 and 1, or a list of such, but got []"),
    ],
)
def test_a_subset_or_fold_that_cannot_be_is_refused(
    typed: dict[str, Any], said: str, tiny: Callable[..., Config]
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        tiny(data=typed)


def test_limits_and_folds_are_what_a_run_trains_on(tiny: Callable[..., Config]) -> None:
    config = tiny(data={"limit": 30, "folds": 4, "fold": 3, "val_size": 500})
    loaded = data.load(config.data, CPU)
    assert (len(loaded.train), len(loaded.val)) == (config.data.training, config.data.validating) == (30, 30)
