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
from mnist_exp.data import fetch, idx, own, splits
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
        (lambda root: draw(root, {"a": 12}, {"a": 1}), "scans/train has only the class 'a'"),
        (lambda root: draw(root, {"a": 12, "b": 3}, {}) and (root / "test").mkdir(), "test has no folders of classes"),
        (lambda root: draw(root, {"a": 12, "b": 3, "b/c": 2}, {"a": 1}), "b/c/0.png is not directly in the folder"),
        (lambda root: draw(root, {"a": 9, "b": 9}, {"a": 1})
         and (root / "train" / "a" / "3.png").write_text("no"), "train/a/3.png cannot be read as a picture"),
    ],
    ids=["stranger", "empty", "nothing", "one", "untested", "nested", "damaged"],
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
        ((IMAGES[:5], LABELS[:5]), "5 images are too few to cut 0 of them off"),
        ((IMAGES, LABELS, IMAGES), "cannot be read as images: .*test_labels"),
        ((IMAGES, LABELS + np.nan), r"labels\[0\] is nan, but labels are whole numbers"),
    ],
)
def test_an_npz_whose_arrays_do_not_go_together_is_refused(
    arrays: tuple[np.ndarray, ...], said: str, scratch: Path
) -> None:
    np.savez(scratch / "mine.npz", **dict(zip(own.ARRAYS, arrays, strict=False)))
    with pytest.raises(DataError, match=said):
        cli.main(["check", "mine.npz"])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (lambda n: np.where(n == 17, 99, n % 26), r"no images of 73 of its classes.*class 99 is labels\[17\]"),
        (lambda n: np.where(n == 40, 7, n % 3), r"class 7 is labels\[40\]"),
        (lambda n: 97 + n % 5, "no images of 97 of its classes"),
        (lambda n: n % 3 - 1, r"labels\[0\] is -1, but labels are whole numbers from 0 to 255"),
        (lambda n: n % 3 + 0.5, r"labels\[0\] is 0\.5"),
        (lambda n: n % 3 + 0j, r"labels\[0\] is 0j"),
        (lambda n: n.astype("datetime64[D]"), r"labels\[0\] is 1970-01-01"),
        (lambda n: n * 0, "images of one class, 0"),
        (lambda n: np.array(["a"] * len(n)), "num_classes must be between 2 and 256, but got 1"),
        (lambda n: n.astype(str), "num_classes must be between 2 and 256, but got 520"),
        (lambda n: n[:, None] % [3, 3], r"labels of shape \(520, 2\)"),
    ],
)
def test_labels_that_are_no_classes_are_refused_and_the_image_is_named(
    labels: Callable[[np.ndarray], np.ndarray], said: str, scratch: Path
) -> None:
    np.savez("mine.npz", images=np.zeros((520, 4, 4), np.uint8), labels=labels(np.arange(520)))
    with pytest.raises((DataError, ConfigError), match=said):
        cli.main(["check", "mine.npz", "write=mine.yaml"])
    assert not Path("mine.yaml").exists()


def test_images_of_another_size_leave_nothing_in_the_cache(scratch: Path, composed: Callable[..., Config]) -> None:
    np.savez("mine.npz", images=np.zeros((12, 4, 4), np.uint8), labels=np.arange(12) % 2)
    data = composed("data=sklearn_digits", "data.reader=npz", "data.root=mine.npz", "data.test_images=2").data
    with pytest.raises(DataError):
        fetch.ensure(data)
    assert not fetch.folder_of(data).exists()


@pytest.mark.parametrize("kind", [float, bool, np.int64, np.uint16, str])
def test_images_that_are_no_bytes_are_refused_with_what_bytes_are(kind: type, scratch: Path) -> None:
    np.savez("mine.npz", images=np.ones((12, 4, 4), kind), labels=np.arange(12) % 2)
    with pytest.raises(DataError, match=r"has images of type .*, not bytes") as caught:
        cli.main(["check", "mine.npz"])
    assert caught.value.help == "Save them as np.uint8, from 0 (black) to 255 (white)."


@pytest.mark.parametrize(
    ("shape", "known"),
    [
        ((6, 4, 1), (1, 6, 4)),
        ((1, 6, 4), (1, 6, 4)),
        ((6, 4, 3), (3, 6, 4)),
        ((3, 6, 4), (3, 6, 4)),
        ((6, 4), (1, 6, 4)),
    ],
)
def test_channels_are_the_last_or_the_second_axis(
    shape: tuple[int, ...], known: tuple[int, ...], scratch: Path, composed: Callable[..., Config]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, *shape), np.uint8)
    np.savez(
        "mine.npz", images=images, labels=np.arange(24)[:, None] % 2, test_images=images, test_labels=np.arange(24) % 2
    )
    data = checked("mine.npz", scratch, composed)
    assert data.shape == known
    assert splits.load(data, CPU).test.images.numel() == images.size


@pytest.mark.parametrize("shape", [(6, 4, 4), (6, 4, 2), (4, 6, 4), (6, 0)])
def test_other_numbers_of_channels_are_refused(shape: tuple[int, ...], scratch: Path) -> None:
    np.savez("mine.npz", images=np.zeros((24, *shape), np.uint8), labels=np.arange(24) % 2)
    with pytest.raises(DataError, match=r"images of shape \(24, ") as caught:
        cli.main(["check", "mine.npz"])
    assert "1 or 3 channels as last or second axis" in caught.value.help


def test_a_class_without_images_is_said_by_check_and_before_training(
    scratch: Path, composed: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.array([label for label in range(5) if label != 3] * 12)
    np.savez("mine.npz", images=np.zeros((48, 4, 4), np.uint8), labels=labels)
    data = checked("mine.npz", scratch, composed)
    assert data.num_classes == 5
    assert "mine has no training images of 3 (of 5 classes)." in capsys.readouterr().out
    assert splits.check(data) == ["mine has no training images of 3 (of 5 classes)."]


def test_labels_in_words_become_names_of_classes(scratch: Path, composed: Callable[..., Config]) -> None:
    np.savez("mine.npz", images=np.zeros((36, 4, 4), np.uint8), labels=np.array(["dog", "ant", "cat"] * 12))
    data = checked("mine.npz", scratch, composed)
    assert data.classes == ["ant", "cat", "dog"]
    assert splits.load(data, CPU).train.labels.bincount().tolist() == [10, 10, 10]
    data.classes = ["ant", "bee", "dog"]
    with pytest.raises(DataError, match=r"mine\.npz: labels\[2\] is cat, but data.classes has ant, bee, dog"):
        splits.check(data)


def test_the_test_set_that_is_cut_off_has_each_class_by_its_share(
    scratch: Path, composed: Callable[..., Config]
) -> None:
    counts = np.array([*[8] * 60, 200, 1])
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(62), counts))
    np.savez("mine.npz", images=np.zeros((len(labels), 2, 2), np.uint8), labels=labels)
    loaded = splits.load(checked("mine.npz", scratch, composed), CPU)
    tested = loaded.test.labels.bincount(minlength=62)
    assert tested.sum() == len(labels) // 6
    assert all(abs(tested.numpy() - counts / 6) <= 3)
    assert tested[:61].min() >= 1
    assert tested[61] == 0  # the only one of its class is trained on


def test_an_npz_with_a_wrong_label_is_named_also_the_second_time(
    scratch: Path, composed: Callable[..., Config]
) -> None:
    images = np.zeros((30, 4, 4), np.uint8)
    np.savez("mine.npz", images=images, labels=np.arange(30) % 3)
    data = checked("mine.npz", scratch, composed)
    np.savez("mine.npz", images=images, labels=np.where(np.arange(30) == 11, 5, np.arange(30) % 3))
    for _ in range(2):
        with pytest.raises(DataError, match=r"mine\.npz: labels\[11\] is 5, but labels are whole numbers from 0 to 2"):
            splits.check(data)


def test_images_of_one_value_have_a_file_that_trains(scratch: Path, composed: Callable[..., Config]) -> None:
    np.savez("mine.npz", images=np.zeros((30, 4, 4), np.uint8), labels=np.arange(30) % 3)
    assert checked("mine.npz", scratch, composed).std == 1


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        (1, lambda a: a[:10], "12 training images and 10 labels"),
        (1, lambda a: a[:, None], r"train-labels-idx1-ubyte has the shape \(12, 1\)"),
        (0, lambda a: a[:, 0, 0], r"train-images-idx3-ubyte has the shape \(12,\)"),
        (2, lambda a: a[:0], r"t10k-images-idx3-ubyte has the shape \(0, 28, 28\)"),
        (
            1,
            lambda a: torch.arange(12) % 3 + 200 * (torch.arange(12) == 5),
            r"class 202 is train-labels-idx1-ubyte\[5\]",
        ),
    ],
)
def test_idx_files_that_do_not_go_together_are_refused(
    part: int, change: Callable[[torch.Tensor], torch.Tensor], said: str, scratch: Path
) -> None:
    path = write_dataset(scratch / "files") / fetch.FILES[part]
    path.write_bytes(idx.encode(change(idx.read(path).clone()).byte()))
    with pytest.raises(DataError, match=said):
        cli.main(["check", "files", "write=mine.yaml"])
    assert not Path("mine.yaml").exists()


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
    sixteen, eight = (own.pixels(own.opened(path), path, data) for path in map(Path, ("sixteen.png", "eight.png")))
    assert (sixteen == eight).all()
    Image.fromarray(eight.astype(np.float32)).save("floats.tiff")
    with pytest.raises(DataError, match="has 32 bits for each pixel"):
        own.pixels(own.opened(Path("floats.tiff")), Path("floats.tiff"), data)


def test_coloured_pictures_that_become_grey_are_said(scratch: Path, composed: Callable[..., Config]) -> None:
    draw(scratch / "scans", {"a": 11, "b": 12}, {"a": 1, "b": 1})
    data = composed("data=folder", "data.root=scans", "data.height=4", "data.width=6").data
    for _ in range(2):  # made, and from the cache
        assert splits.check(data) == ["scans: 25 pictures are in colour and become grey; data.channels=3 keeps colour."]
    for path in (scratch / "scans").rglob("*.png"):
        Image.open(path).convert("L").convert("RGB").save(path)
    assert not splits.check(data)


def test_files_that_are_no_pictures_are_counted(
    scratch: Path, composed: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    root = draw(scratch / "scans", {"a": 11, "b": 12}, {"a": 1, "b": 1})
    for name in ("train/a/x.heic", "train/b/y.heic", "test/a/README", "train/.DS_Store"):
        (root / name).touch()
    said = "scans: 3 files left out, no picture by the suffix (2 .heic, 1 README)."
    data = checked("scans", scratch, composed)
    assert said in capsys.readouterr().out
    assert any(note.endswith(said) for note in splits.check(data))


def test_what_is_transparent_is_paper(scratch: Path, composed: Callable[..., Config]) -> None:
    """Black strokes on nothing, as drawing programs save them, are no black squares."""
    draw(scratch / "scans", {"a": 11, "b": 12}, {"a": 1, "b": 1})
    for path in (scratch / "scans").rglob("*.png"):
        picture = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
        picture.putpixel((2, 1), (0, 0, 0, 255))
        picture.save(path)
    loaded = splits.load(checked("scans", scratch, composed), CPU)
    assert loaded.train.shape == (1, 4, 6)
    assert loaded.train.images[0].tolist() == [255] * 8 + [0] + [255] * 15


@pytest.mark.parametrize(
    "name", ["a/0.png", "mine.npz", "emnist-letters-train-images-idx3-ubyte.gz", "A/raw/t10k-ubyte"]
)
def test_nothing_is_fetched_into_a_folder_of_another_dataset(
    name: str, scratch: Path, composed: Callable[..., Config]
) -> None:
    path = scratch / "flat" / name
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(
        DataError, match=f"flat has {name}, and no files of mnist: nothing is fetched into it"
    ) as caught:
        splits.check(composed("data=mnist", "data.root=flat").data)
    assert "data=folder" in caught.value.help
    assert [each for each in (scratch / "flat").rglob("*") if each.is_file()] == [path]


def test_an_npz_is_no_folder_of_idx_files(scratch: Path, composed: Callable[..., Config]) -> None:
    np.savez("mine.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(DataError, match=r"mine\.npz is a file, but mnist is a folder") as caught:
        splits.check(composed("data=mnist", "data.root=mine.npz").data)
    assert "mnist_exp.data check mine.npz" in caught.value.help


def test_more_classes_than_the_files_have_are_refused_or_named(scratch: Path, composed: Callable[..., Config]) -> None:
    data = composed("data=sklearn_digits", "data.num_classes=11").data
    with pytest.raises(DataError, match=r"sklearn_digits has labels 0 to 9, but data\.num_classes=11") as caught:
        splits.check(data)
    assert "Set data.num_classes=10." in caught.value.help
    data.classes = list("abcdefghijk")
    assert splits.check(data) == ["sklearn_digits has no training images of k (of 11 classes)."]


def test_names_of_classes_differ(composed: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"data\.classes must be names that differ"):
        composed("data=synthetic", "data.num_classes=3", "data.classes=[a,a,b]")


@pytest.mark.integration
def test_a_config_file_that_lies_here_is_found_with_config_dir(
    scratch: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    (scratch / "own" / "data").mkdir(parents=True)
    (scratch / "own" / "data" / "l26.yaml").touch()
    code, _, err = command("data=l26")
    assert code == 2
    assert "There is no data called 'l26'." in err
    assert "own/data/l26.yaml is found with --config-dir own." in err
