"""Augmentation: what each distortion does to pixels, and that it repeats exactly."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import trainings
from samples import TINY
from torch import Tensor

from mnist_exp import data
from mnist_exp.config import Config, Data
from mnist_exp.data.augment import Augment, Warp
from mnist_exp.errors import ConfigError
from mnist_exp.results import names as naming
from mnist_exp.run import session
from mnist_exp.run.session import Task
from mnist_exp.sweep import finish

SYNTHETIC = Data(name="synthetic", train_images=150, test_images=10, val_size=10, mean=0.25, std=0.25)


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def blob(count: int) -> Tensor:
    """(count, 1, 28, 28): a smooth round spot, whose centre of mass says where it went."""
    axis = torch.arange(28.0) - 13.5
    spot = 255 * torch.exp(-(axis[:, None] ** 2 + axis**2) / 18)
    return spot.repeat(count, 1, 1, 1)


def centre(images: Tensor) -> Tensor:
    """(count, 2): centre of mass, x then y, in pixels from the middle."""
    axis, mass = torch.arange(28.0) - 13.5, images.sum((1, 2, 3))
    return torch.stack([(images.sum((1, 2)) * axis).sum(1) / mass, (images.sum((1, 3)) * axis).sum(1) / mass], 1)


def test_nothing_asked_nothing_changed() -> None:
    pixels = torch.rand(4, 1, 28, 28, generator=seeded()) * 255
    assert torch.allclose(Warp()(pixels, seeded()), pixels, atol=1e-3)


def test_shift_moves_whole_pixels_up_to_its_limit_both_ways_on_both_axes() -> None:
    moved = centre(Warp(shift=2)(blob(400), seeded()))
    assert set(moved.round().flatten().tolist()) == {-2, -1, 0, 1, 2}
    assert (moved - moved.round()).abs().max() < 0.05
    assert abs(torch.corrcoef(moved.T)[0, 1]) < 0.15  # 95th percentile of |r| for n=400 is 0.10


def test_what_comes_in_from_outside_is_background() -> None:
    white = torch.full((50, 1, 28, 28), 255.0)
    shifted = Warp(shift=5)(white, seeded())
    values = shifted.unique()
    assert torch.minimum(values, 255 - values).max() < 0.01  # black or white, nothing between
    assert (shifted[:, :, 13:15, 13:15] > 254.99).all()


def test_rotation_turns_by_up_to_its_limit_both_ways() -> None:
    bar = torch.zeros(500, 1, 28, 28)
    bar[..., 13:15, 4:24] = 255
    turned = Warp(rotation=30)(bar, seeded())[:, 0]
    axis = torch.arange(28.0) - 13.5
    mass = turned.sum((1, 2))
    xx = (turned * axis**2).sum((1, 2)) / mass
    yy = (turned * axis[:, None] ** 2).sum((1, 2)) / mass
    xy = (turned * axis * axis[:, None]).sum((1, 2)) / mass
    angle = torch.rad2deg(torch.atan2(2 * xy, xx - yy)) / 2
    assert angle.abs().max() < 31
    assert angle.min() < -25
    assert angle.max() > 25


def test_scale_changes_the_size_of_each_axis_by_its_share() -> None:
    axis = torch.arange(28.0) - 13.5
    scaled = Warp(scale=0.2)(blob(400), seeded())[:, 0]
    mass = scaled.sum((1, 2))
    wide = ((scaled * axis**2).sum((1, 2)) / mass).sqrt() / 3
    high = ((scaled * axis[:, None] ** 2).sum((1, 2)) / mass).sqrt() / 3
    for size in (wide, high):
        assert 0.78 < size.min() < 0.83
        assert 1.15 < size.max() < 1.22
    assert abs(torch.corrcoef(torch.stack([wide, high]))[0, 1]) < 0.15


def test_shear_leans_vertical_strokes_and_leaves_rows_where_they_are() -> None:
    stroke = torch.zeros(300, 1, 28, 28)
    stroke[..., 6:22, 13:15] = 255
    leant = Warp(shear=20)(stroke, seeded())
    assert torch.allclose(leant.sum((1, 3)), stroke.sum((1, 3)), rtol=1e-3, atol=0.1)
    axis = torch.arange(28.0) - 13.5
    top, bottom = ((leant[:, 0, row] * axis).sum(1) / leant[:, 0, row].sum(1) for row in (6, 21))
    lean = torch.rad2deg(torch.atan((top - bottom) / 15))
    assert 17 < lean.abs().max() < 20.5


@pytest.mark.parametrize(("alpha", "sigma"), [(34.0, 4.0), (36.0, 6.0), (8.0, 2.0)])
def test_elastic_displacement_has_simards_size_everywhere_in_the_picture(alpha: float, sigma: float) -> None:
    waves = Warp(alpha=alpha, sigma=sigma).fields[3:] * 14  # in pixels
    expected = alpha / math.sqrt(3) / (2 * sigma * math.sqrt(math.pi))  # 1.38 for alpha 34 and sigma 4
    assert waves.square().sum(0).sqrt() == pytest.approx(torch.full((784,), expected), rel=0.03)


@pytest.mark.integration
def test_elastic_field_is_smoothed_noise() -> None:
    """Against the definition: uniform noise, convolved with a Gaussian, on a field with room to spare."""
    sigma, alpha, reach = 4.0, 34.0, 16
    taps = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    size = 28 + 2 * reach
    noise = torch.rand(2000, 1, size, size, generator=seeded()) * 2 - 1
    smooth = torch.nn.functional.conv2d(noise, taps.view(1, 1, -1, 1))
    smooth = alpha * torch.nn.functional.conv2d(smooth, taps.view(1, 1, 1, -1)).flatten(1)
    waves = Warp(alpha=alpha, sigma=sigma).fields[3:] * 14
    ours = waves.T @ waves  # (784, 784): covariance of displacements at two pixels
    theirs = smooth.T @ smooth / len(smooth)
    assert (ours - theirs).abs().max() < 0.3  # of a variance of 1.91; sampling alone gave up to 0.21 in three seeds
    assert (ours - theirs).abs().mean() < 0.05


def test_same_seed_same_bytes_another_seed_others() -> None:
    pixels = blob(8)
    warp = Warp(shift=1, rotation=10, scale=0.1, shear=10, alpha=34)
    first, again, other = (warp(pixels, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])  # each image by itself


@pytest.mark.parametrize("wrong", [{"shift": 1.5}, {"shift": -1}, {"scale": 1.0}, {"sigma": 0.0}, {"alpha": math.nan}])
def test_values_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"augment.{next(iter(wrong))} must be"):
        Warp(**wrong)  # type: ignore[arg-type]


def feed(augment: Augment | None, epoch: int = 0, batch_size: int = 64) -> list[tuple[Tensor, Tensor]]:
    train = data.load(SYNTHETIC, torch.device("cpu")).train
    return list(data.Order(train.rows, batch_size, seed=3, augment=augment).feed(train, epoch))


def test_without_augmentation_batches_are_the_images_themselves() -> None:
    train = data.load(SYNTHETIC, torch.device("cpu")).train
    order = data.Order(train.rows, 64, seed=3)
    for (images, labels), rows in zip(feed(None), order.batches(0), strict=True):
        wanted = train.take(rows)
        assert torch.equal(images, wanted[0])
        assert torch.equal(labels, wanted[1])


@pytest.mark.parametrize("batch_size", [7, 64, 140, 1000])
def test_augmented_batches_have_the_order_labels_and_scale_of_plain_ones(batch_size: int) -> None:
    plain, varied = feed(None, batch_size=batch_size), feed(Warp(), batch_size=batch_size)
    for (images, labels), (wanted, wanted_labels) in zip(varied, plain, strict=True):
        assert torch.allclose(images, wanted, atol=1e-4)
        assert torch.equal(labels, wanted_labels)


def test_background_is_standardised_black() -> None:
    images = torch.cat([batch for batch, _ in feed(Warp(shift=8))])
    assert images.min() == pytest.approx(-0.25 / 0.25)


def test_epochs_differ_and_repeat() -> None:
    warp = Warp(alpha=34)
    first, again, second = feed(warp, 0), feed(warp, 0), feed(warp, 1)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], second[0][0])


@pytest.mark.integration
def test_the_best_run_of_a_sweep_shows_what_augmentation_does(composed: Callable[..., Config]) -> None:
    """As a single run does; the others have no time for pictures."""
    configs = [composed(*TINY, "augment=affine", f"lr={lr}") for lr in (1e-2, 1e-9)]
    tasks = [Task(config, Path(f"sweep/{i}")) for i, config in enumerate(configs)]
    session.run_many(tasks, extras=False)
    finish.present_best(Path("sweep"), configs.__getitem__)
    trainings.run(configs[0], Path("alone"))
    (drawn,) = Path("sweep").glob("*/figures/*")
    assert drawn.parent.parent == naming.best(naming.resolve("sweep")).at
    assert drawn.read_bytes() == Path("alone/figures/augmented.png").read_bytes()


@pytest.mark.integration
def test_of_several_datasets_the_best_run_on_each_is_presented(composed: Callable[..., Config]) -> None:
    """More images are another dataset."""
    each = [(images, lr) for images in (300, 200) for lr in (1e-9, 1e-2)]
    configs = [composed(*TINY, "augment=affine", f"lr={lr}", f"data.train_images={n}") for n, lr in each]
    for i, config in enumerate(configs):
        trainings.run(config, Path(f"sweep/{i}"), extras=False)
    finish.present_best(Path("sweep"), configs.__getitem__)
    assert {path.parent.parent.name for path in Path("sweep").glob("*/figures/*")} == {"1", "3"}


def test_in_an_oblong_picture_turns_stay_turns_and_elastic_displacements_pixels() -> None:
    stroke = torch.zeros(1, 3, 20, 40)
    stroke[..., 5:15, 19:21] = 255  # upright, ten pixels long
    warp = Warp(shape=(3, 20, 40))
    warp.rotation = math.pi / 2
    warp._affine = lambda count, rng: torch.tensor([[[0.0, -0.5, 0.0], [2.0, 0.0, 0.0]]])  # type: ignore[method-assign]
    lying = warp(stroke, seeded())
    assert (lying[0, 0] > 128).any(0).sum() == 10
    assert (lying[0, 0] > 128).any(1).sum() == 2
    assert lying[0, 0].equal(lying[0, 2])
    for axis, half in ((0, 20), (1, 10)):
        waves = Warp(alpha=34, sigma=4, shape=(1, 20, 40))
        moved = torch.randn(500, len(waves.fields) - 3, generator=seeded()) * (20 / 40 if axis == 0 else 1)
        pixels = moved @ waves.fields[3:] * half
        assert pixels.std() == pytest.approx(1.38, rel=0.05)


def test_a_mirror_turns_its_share_of_the_images() -> None:
    pixels = torch.rand(2000, 3, 6, 4, generator=seeded()) * 255
    varied = Warp(mirror=0.5, shape=(3, 6, 4))(pixels, seeded())
    turned = torch.isclose(varied, pixels.flip(-1), atol=1e-2).all((1, 2, 3))
    same = torch.isclose(varied, pixels, atol=1e-2).all((1, 2, 3))
    assert (turned ^ same).all()
    assert 900 < turned.sum() < 1100


@pytest.mark.integration
def test_a_mirror_is_for_objects(composed: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="those of mnist are others then") as caught:
        composed("augment=mirror")
    assert "data.mirrors=true" in caught.value.help
    assert composed("augment=mirror", "data=cifar10").augment["mirror"] == 0.5
