"""Pictures of any kind become what MNIST is, and the command says which digit they show."""

import json
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import trainings
from PIL import Image, ImageDraw, ImageFont
from samples import MNIST

from mnist_exp import predict
from mnist_exp.config import Config, Data, classes
from mnist_exp.errors import CheckpointError, ConfigError, DataError
from mnist_exp.evaluate import pictures, predictions

INK, PAPER = (20, 30, 60), (240, 230, 200)
FONTS = ("Pillow's own", "DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "cmr10")  # matplotlib brings the others


def drawn(
    digit: int, size: int, dark: bool, at: tuple[float, float] = (0.2, 0.3), font: str = "Pillow's own"
) -> Image.Image:
    """A digit, *size* pixels high, somewhere on a paper of twice that."""
    if font == "Pillow's own":
        face = ImageFont.load_default(size)
    else:
        face = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf", size)
    ink, paper = (INK, PAPER) if dark else (PAPER, INK)
    picture = Image.new("RGB", (2 * size, 2 * size), paper)
    where = (at[0] * 2 * size, at[1] * 2 * size)
    ImageDraw.Draw(picture).text(where, str(digit), fill=ink, font=face)
    return picture


def seen(picture: Image.Image, name: str = "picture.png", form: str = "strokes") -> np.ndarray:
    picture.save(name)
    return pictures.read(Path(name), Data(pictures=form)).astype(float)


def centre_of_mass(image: np.ndarray) -> tuple[float, float]:
    grid = np.arange(28)
    return float(np.average(grid, weights=image.sum(1))), float(np.average(grid, weights=image.sum(0)))


@pytest.mark.parametrize("size", [14, 40, 300])
@pytest.mark.parametrize("dark", [True, False])
@pytest.mark.parametrize("digit", [1, 4, 7])
def test_a_digit_fills_the_box_and_its_mass_is_central(digit: int, size: int, dark: bool) -> None:
    image = seen(drawn(digit, size, dark))
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    longest = max(np.ptp(rows), np.ptp(columns)) + 1
    assert 19 <= longest <= 20
    assert image.max() == 255
    assert np.median(image) == 0
    assert centre_of_mass(image) == pytest.approx((14, 14), abs=0.51)  # whole pixels


def test_a_thing_fills_its_image() -> None:
    picture = Image.new("L", (300, 200), 255)
    picture.paste(60, (50, 40, 190, 110))  # twice as wide as high
    image = seen(picture, form="things")
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (8, 21, 0, 27)


def test_dark_on_light_and_light_on_dark_are_the_same_digit() -> None:
    assert np.abs(seen(drawn(5, 60, dark=True)) - seen(drawn(5, 60, dark=False))).mean() < 4


def test_the_place_on_the_paper_does_not_matter() -> None:
    assert np.array_equal(seen(drawn(3, 100, True)), seen(drawn(3, 100, True, at=(0.5, 0.1))))


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255)])
def test_what_is_transparent_is_paper_behind_ink_of_any_brightness(ink: tuple[int, int, int]) -> None:
    picture = Image.new("RGBA", (120, 120), (*ink, 0))
    ImageDraw.Draw(picture).text((40, 20), "4", fill=(*ink, 255), font=ImageFont.load_default(60))
    assert np.abs(seen(picture) - seen(drawn(4, 60, True))).mean() < 6


def test_a_faint_digit_on_grey_becomes_white_on_black() -> None:
    picture = Image.new("L", (80, 80), 120)
    ImageDraw.Draw(picture).line((40, 20, 40, 60), fill=90, width=6)
    image = seen(picture)
    assert (image.max(), image.min()) == (255, 0)
    assert np.flatnonzero(image.any(0)).size == 3  # 20 high, so 3 wide


def test_sixteen_bits_are_not_clipped() -> None:
    deep = np.full((60, 60), 60_000, np.uint16)
    deep[15:45, 28:32] = 20_000
    Image.fromarray(deep).save("deep.png")
    assert pictures.read(Path("deep.png"), Data()).max() == 255


def test_a_picture_in_mnists_own_form_is_taken_as_it_is() -> None:
    own = np.zeros((28, 28), np.uint8)
    own[5:23, 10:14] = 200
    assert np.array_equal(seen(Image.fromarray(own)), own)


def test_a_blank_page_shows_nothing_whatever_the_classes_are() -> None:
    Image.new("L", (50, 50), 200).save("blank.png")
    with pytest.raises(DataError, match=r"blank\.png: it shows nothing"):
        pictures.read(Path("blank.png"), Data())


def test_a_black_picture_in_mnists_own_form_shows_nothing() -> None:
    for level in (0, 5):
        own = np.zeros((28, 28), np.uint8)
        own[5:23, 10:14] = level
        Image.fromarray(own).save("black.png")
        with pytest.raises(DataError, match=r"black\.png: it shows nothing"):
            pictures.read(Path("black.png"), Data())


def test_what_is_no_picture_is_a_sentence(scratch: Path) -> None:
    with pytest.raises(DataError, match="There is no picture nowhere"):
        pictures.read(Path("nowhere.png"), Data())
    (scratch / "text.png").write_text("no picture")
    with pytest.raises(DataError, match="cannot be read as a picture"):
        pictures.read(Path("text.png"), Data())


@pytest.fixture
def trained(scratch: Path, finished: Callable[..., Path]) -> Path:
    """A small trained network, as the newest run."""
    return finished(scratch / "outputs" / "runs" / "2026-01-31" / "10-00-00-abcdef")


def test_the_command_prints_a_line_for_each_picture(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for digit in (3, 8):
        drawn(digit, 50, True).save(f"{digit}.png")
    predict.main(["3.png", "8.png"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Network: {trained.relative_to(Path.cwd())} (seed 0)"
    assert [line.split()[0] for line in lines[1:]] == ["3.png", "8.png"]


def test_the_good_pictures_are_answered_beside_bad_ones(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(3, 50, True).save("3.png")
    Image.new("L", (28, 28), 0).save("black.png")
    with pytest.raises(DataError, match=r"black\.png: it shows nothing.*\n  There is no picture gone\.png"):
        predict.main(["black.png", "3.png", "gone.png"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["Network:", "3.png"]


def test_json_gives_one_object_for_each_picture_also_of_a_folder(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("scans").mkdir()
    for digit in (3, 8):
        drawn(digit, 50, True).save(f"scans/{digit}.png")
    Path("scans/notes.txt").write_text("no picture")
    predict.main(["--json", "scans", f"run={trained}"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [about["file"] for about in rows] == ["scans/3.png", "scans/8.png"]
    for about in rows:
        assert sum(about["probabilities"]) == pytest.approx(1)
        assert about["digit"] == np.argmax(about["probabilities"])


def test_faults_are_told_before_any_network_is_loaded(trained: Path, scratch: Path) -> None:
    with pytest.raises(ConfigError, match="Which picture"):
        predict.main([])
    (scratch / "empty").mkdir()
    with pytest.raises(ConfigError, match="no pictures in empty"):
        predict.main(["empty"])
    (trained / "weights.safetensors").unlink()
    with pytest.raises(DataError, match="no picture"):
        predict.main(["nowhere.png"])
    drawn(1, 50, True).save("1.png")
    with pytest.raises(CheckpointError, match="has no trained weights"):
        predict.main(["1.png"])


def test_the_answer_in_words() -> None:
    shares = [0.02, 0.9, *[0.0] * 7, 0.08]
    assert predictions.sentence(shares, classes(Data())) == "1   90.0 %   (then 9: 8.0 %, 0: 2.0 %)"
    assert predictions.sentence(shares, [f"kind {i}" for i in range(10)]).startswith(
        "kind 1   90.0 %   (then kind 9: 8.0 %"
    )


@pytest.mark.slow  # two epochs of the strong convolutional network: a minute of one core
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not (MNIST / "verified.json").exists(), reason="python -m mnist_exp.data fetch was not run")
@pytest.mark.long
def test_the_strong_network_reads_printed_digits(scratch: Path, composed: Callable[..., Config]) -> None:
    """Each digit dark on light and light on dark, from 14 to 300 pixels, in each of five fonts.

    Pillow's own 1 has a flag that makes it a 7. In float32: bfloat16 takes minutes where the processor does not have
    it, and rounds otherwise on each.
    """
    overrides = ["experiment=strong_cnn", "precision=fp32", "epochs=2", "tracking=off", "checkpoint=off"]
    trainings.run(composed(*overrides, f"data.root={MNIST}"), scratch / "run")
    sizes = (14, 24, 48, 96, 300)
    for font in FONTS:
        paths = []
        for digit in range(10):
            for dark in (True, False):
                paths.append(scratch / f"{digit}-{dark}.png")
                drawn(digit, sizes[(2 * digit + (not dark)) % 5], dark, font=font).save(paths[-1])
        rows = [json.loads(line) for line in predictions.lines(scratch / "run", paths, as_json=True)]
        right = sum(about["digit"] == int(Path(about["file"]).name[0]) for about in rows)
        sevens = 2 if font == "Pillow's own" else 0
        assert right >= 18 - sevens, (font, [(about["file"], about["digit"]) for about in rows])
