"""Images of one's own: pictures by class, .npz and IDX files, their checks, and what `check` says of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from data_fixtures import write_dataset
from PIL import Image

from mnist_exp.config import Config, Data
from mnist_exp.data import __main__ as cli
from mnist_exp.data import own, splits
from mnist_exp.errors import ConfigError, DataError

CPU = torch.device("cpu")


def draw(root: Path, train: dict[str, int], test: dict[str, int], size: tuple[int, int] = (6, 4)) -> Path:
    """Pictures of *size*, width and height; those of one class have one colour, and each its own first pixel."""
    for part, counts in (("train", train), ("test", test)):
        for label, (name, count) in enumerate(counts.items()):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture = Image.new("RGB", size, (40 * label, 100, 250))
                picture.putpixel((0, 0), (i, len(part), 0))
                picture.save(folder / f"{i}.png")
    return root


def test_pictures_by_class_train(scratch: Path, composed: Callable[..., Config]) -> None:
    draw(scratch / "scans", {"cat": 12, "dog": 10}, {"cat": 2, "dog": 3})
    size = ("data.channels=3", "data.height=4", "data.width=6")
    data = composed("data=folder", "data.root=scans", *size).data
    assert (data.classes, data.num_classes, data.train_images, data.test_images) == (["cat", "dog"], 2, 22, 5)
    loaded = splits.load(data, CPU)
    assert loaded.test.labels.tolist() == [0, 0, 1, 1, 1]
    assert loaded.test.images.view(-1, 3, 4, 6)[4, :, 3, 5].tolist() == [40, 100, 250]
    (scratch / "scans" / "test" / "dog" / "0.png").unlink()
    with pytest.raises(DataError, match="folder has 4 test images and 4 labels, but the config says 5"):
        splits.check(data)


def test_pictures_of_another_size_are_refused_or_scaled(scratch: Path, composed: Callable[..., Config]) -> None:
    draw(scratch / "scans", {"a": 11, "b": 1}, {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"0\.png has 4x6 pixels, but the config says 28x28\.") as caught:
        splits.check(composed("data=folder", "data.root=scans").data)
    assert "data.resize=true" in caught.value.help
    loaded = splits.load(composed("data=folder", "data.root=scans", "data.resize=true").data, CPU)
    assert loaded.train.shape == (1, 28, 28)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda root: draw(root, {"a": 12, "c": 2}, {"a": 1, "b": 1}), "has the class 'b', which data.classes lacks"),
        (lambda root: draw(root, {"a": 12, "b": 0}, {"a": 1}), "train/b has no pictures"),
        (lambda root: root.mkdir(), "There is no folder scans/train"),
        (lambda root: draw(root, {"a": 9, "b": 9}, {"a": 1})
         and (root / "train" / "a" / "3.png").write_text("no"), "train/a/3.png cannot be read as a picture"),
    ],
    ids=["stranger", "empty", "nothing", "damaged"],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said(
    prepare: Callable[[Path], object], said: str, scratch: Path, composed: Callable[..., Config]
) -> None:
    prepare(scratch / "scans")
    with pytest.raises((DataError, ConfigError), match=said):
        splits.check(composed("data=folder", "data.root=scans", "data.height=4", "data.width=6").data)


def test_without_a_folder_the_way_out_is_data_root(composed: Callable[..., Config]) -> None:
    with pytest.raises(DataError, match="data=folder needs images of your own") as caught:
        splits.check(composed("data=folder").data)
    assert "data.root=" in caught.value.help


def checked(source: str, scratch: Path, composed: Callable[..., Config]) -> Data:
    """What `check` writes of *source*, as a run would have it."""
    (scratch / "own" / "data").mkdir(parents=True)
    cli.main(["check", source, "write=own/data/mine.yaml"])
    written = yaml.safe_load(Path("own/data/mine.yaml").read_text())
    data = Data(**written)
    splits.check(data)
    return data


def test_check_says_what_pictures_are(
    scratch: Path, composed: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    root = draw(scratch / "scans", {"cat": 12, "dog": 10}, {"cat": 2, "dog": 3})
    Image.new("RGB", (9, 9)).save(root / "train" / "dog" / "large.png")
    (root / "test" / "dog" / "0.png").write_bytes((root / "train" / "dog" / "0.png").read_bytes())
    data = checked("scans", scratch, composed)
    out = capsys.readouterr().out
    assert "23 training and 5 test images of 3x4x6, 2 classes; mean [0." in out
    assert "1 of them have another size and are scaled (data.resize=true)." in out
    assert "training images of a class: 11 (dog) to 12 (cat)." in out
    assert "duplicates: 1 test images are training images, too" in out
    assert (data.shape, data.classes, data.resize) == ((3, 4, 6), ["cat", "dog"], True)
    with pytest.raises(ConfigError, match="is there already"):
        cli.main(["check", "scans", "write=own/data/mine.yaml"])


@pytest.mark.parametrize("alone", [True, False])
def test_an_npz_has_images_and_labels(alone: bool, scratch: Path, composed: Callable[..., Config]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 5, 4, 3), np.uint8)
    arrays = {"images": images, "labels": np.arange(30) % 3}
    if not alone:
        arrays |= {"test_images": images[:4], "test_labels": np.arange(4) % 3}
    np.savez(scratch / "mine.npz", **arrays)
    data = checked("mine.npz", scratch, composed)
    assert (data.shape, data.num_classes) == ((3, 5, 4), 3)
    assert (data.train_images, data.test_images) == ((25, 5) if alone else (30, 4))
    loaded = splits.load(data, CPU)
    pixels = np.moveaxis(loaded.train.images.view(-1, 3, 5, 4).numpy(), 1, -1)
    rows = [int(np.flatnonzero((images == each).all((1, 2, 3)))[0]) for each in pixels]
    assert loaded.train.labels.tolist() == [row % 3 for row in rows]


def test_an_npz_with_pickles_or_without_labels_is_refused(scratch: Path) -> None:
    np.savez(scratch / "objects.npz", images=np.array([{}]), labels=np.zeros(1))
    np.savez(scratch / "alone.npz", images=np.zeros((3, 4, 4), np.uint8))
    for name in ("objects", "alone"):
        data = Data(name="x", root=f"{name}.npz", reader="npz")
        with pytest.raises(DataError, match=f"{name}.npz cannot be read as images"):
            splits.check(data)


IMAGES, LABELS = np.zeros((12, 4, 4), np.uint8), np.arange(12) % 2


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ((IMAGES, LABELS[:10]), r"images of shape \(12, 4, 4\) and labels of shape \(10,\)"),
        ((IMAGES, np.tile(LABELS, 2)), r"labels of shape \(24,\)"),  # those of other images, perhaps
        ((IMAGES.reshape(12, 16), LABELS), r"images of shape \(12, 16\)"),
        ((np.uint8(3), LABELS), r"images of shape \(\)"),
        ((IMAGES[:5], LABELS[:5]), "5 images to train on and 0 to test on: too few"),
        ((IMAGES, LABELS, IMAGES), "cannot be read as images: .*test_labels"),
        ((IMAGES, LABELS + np.nan), "has labels of type float64 from nan to nan, not bytes"),
    ],
)
def test_an_npz_whose_arrays_do_not_go_together_is_refused(
    arrays: tuple[np.ndarray, ...], said: str, scratch: Path
) -> None:
    np.savez(scratch / "mine.npz", **dict(zip(own.ARRAYS, arrays, strict=False)))
    with pytest.raises(DataError, match=said):
        cli.main(["check", "mine.npz"])


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut off"])
def test_another_file_than_an_npz_is_refused(content: bytes, scratch: Path) -> None:
    (scratch / "mine.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.npz cannot be read as images"):
        cli.main(["check", "mine.npz"])


def test_idx_files_are_checked_too(scratch: Path, composed: Callable[..., Config]) -> None:
    write_dataset(scratch / "files")
    data = checked("files", scratch, composed)
    assert (data.shape, data.num_classes, data.train_images) == ((1, 28, 28), 10, 12)


@pytest.mark.integration
def test_the_command_trains_on_a_folder_and_refuses_a_mean_of_another_number_of_channels(
    scratch: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    draw(scratch / "scans", {"cat": 20, "dog": 16}, {"cat": 2, "dog": 3})
    size = ("data=folder", "data.root=scans", "data.channels=3", "data.height=4", "data.width=6", "data.std=0.3")
    quick = ("batch_size=8", "epochs=1", "threads=1", "tracking=off", "checkpoint.model=false")
    code, out, err = command(*size, *quick, "data.mean=[0.1,0.4,0.9]")
    assert code == 0, err
    assert "folder: 33 training, 3 validation, 5 test images" in out
    code, _, err = command(*size, *quick, "data.mean=[0.1,0.4]")
    assert code == 2
    assert "data.mean has 2 numbers, but data.channels is 3." in err


def test_check_has_mean_and_std_of_each_channel(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(scratch / "scans", {"a": 11, "b": 12}, {"a": 1, "b": 1})
    cli.main(["check", "scans", "write=scans.yaml"])
    written = yaml.safe_load(Path("scans.yaml").read_text())
    pixels = splits.load(Data(**written), CPU).train.images.view(-1, 3, 24).float() / 255
    assert written["mean"] != [written["mean"][0]] * 3
    assert pixels.mean((0, 2)).tolist() == pytest.approx(written["mean"], abs=0.02)  # two images validate
    assert len(written["std"]) == 3


def test_check_turns_pictures_as_their_cameras_say(scratch: Path, composed: Callable[..., Config]) -> None:
    draw(scratch / "scans", {"a": 12, "b": 12}, {"a": 1, "b": 1})
    orientation = Image.Exif()
    orientation[0x0112] = 6  # turned by a quarter
    for path in (scratch / "scans").rglob("*.png"):
        Image.open(path).save(path, exif=orientation)
    data = checked("scans", scratch, composed)
    assert (data.width, data.height, data.resize) == (4, 6, False)


def test_pictures_of_sixteen_bits_are_as_those_of_eight(scratch: Path, composed: Callable[..., Config]) -> None:
    data = composed("data=synthetic").data
    eight = np.arange(28 * 28).reshape(28, 28) % 256
    Image.fromarray(eight.astype(np.uint8)).save("eight.png")
    Image.fromarray((eight * 257).astype(np.uint16)).save("sixteen.png")
    assert (own.pixels(Path("sixteen.png"), data) == own.pixels(Path("eight.png"), data)).all()
    Image.fromarray(eight.astype(np.float32)).save("floats.tiff")
    with pytest.raises(DataError, match="has 32 bits for each pixel"):
        own.pixels(Path("floats.tiff"), data)
