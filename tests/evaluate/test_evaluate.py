"""What is measured, drawn and printed about a trained network."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import trainings
from PIL import Image
from report_fixtures import write_report

from mnist_exp import config
from mnist_exp.charts import network
from mnist_exp.config import Config, Tracking
from mnist_exp.data import sources
from mnist_exp.disk import ledger
from mnist_exp.disk.files import read_json
from mnist_exp.errors import CheckpointError, ConfigError, DataError, ExperimentError
from mnist_exp.evaluate import __main__ as evaluate
from mnist_exp.evaluate.answers import Answers
from mnist_exp.tracking import publisher as publisher
from mnist_exp.tracking.runs import publish
from mnist_exp.tracking.store import Store

PICTURES = {"confusion.png", "reliability.png", "mistakes.png", "first_layer.png"}


@pytest.fixture
def trained(scratch: Path, finished: Callable[..., Path]) -> Path:
    """A network that gets some images right and some wrong, as the newest run."""
    return finished(scratch / "outputs" / "runs" / "2026-01-31" / "10-00-00-abcdef")


def answers(confidence: list[float], right: list[bool]) -> Answers:
    """Answers of the class 3 with that confidence; where they are wrong, a 5 was meant."""
    probabilities = np.zeros((len(right), 10), np.float32)
    probabilities[:, 3], probabilities[:, 5] = confidence, 1 - np.array(confidence)
    true = np.where(right, 3, 5)
    return Answers(np.zeros((len(right), 1, 28, 28), np.uint8), true, probabilities, None)


def test_the_measures_of_known_answers() -> None:
    measured = answers([0.9, 0.9, 0.9, 0.9, 0.6], [True, True, True, False, True])
    assert measured.accuracy == pytest.approx(0.8)
    assert measured.loss == pytest.approx(-np.log([0.9, 0.9, 0.9, 0.1, 0.6]).mean())
    # Four images that are 90 % sure and 75 % right, one that is 60 % sure and right.
    assert measured.ece == pytest.approx((4 * 0.15 + 1 * 0.4) / 5)
    assert measured.calibration()[:, 0].sum() == 5


def test_a_network_that_is_as_right_as_sure_has_no_calibration_error() -> None:
    assert answers([0.75] * 4, [True, True, True, False]).ece == pytest.approx(0, abs=1e-7)
    assert answers([1.0] * 3, [True] * 3).ece == 0


def test_a_hopeless_answer_costs_much_but_not_infinitely() -> None:
    assert 80 < answers([1.0], [False]).loss < 100


def test_the_reliability_diagram_says_what_it_shows() -> None:
    measured = answers([0.9] * 10, [True] * 5 + [False] * 5)
    picture = network.reliability(measured.calibration(), measured.ece, "validation images of mnist")
    assert "ECE 40.00 %" in picture.title
    assert "90.0 % sure on average, 50.0 % right" in picture.alt
    upper, lower = picture.figure.axes
    assert [bar.get_height() for bar in upper.patches] == [pytest.approx(0.5)]
    assert [bar.get_height() for bar in lower.patches] == [10]


@pytest.mark.integration
@pytest.mark.parametrize(("split", "count"), [("train", 100), ("val", 20), ("test", 40)])
def test_each_split_gives_what_the_run_measured(
    trained: Path, split: str, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main([f"split={split}", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"] == count == np.sum(facts["confusion"])
    if split != "train":  # whose accuracy is that of the batches while weights still moved
        summary = ledger.read(trained).summary
        assert facts["accuracy"] == pytest.approx(summary[f"final/{split}_accuracy"])
        assert facts["loss"] == pytest.approx(summary[f"final/{split}_loss"], rel=1e-4)
    assert {path.name for path in (trained / "figures" / f"synthetic-{split}").iterdir()} <= PICTURES


@pytest.mark.integration
def test_the_screen_shows_digits_pairs_and_the_folder(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([])
    out = capsys.readouterr().out
    assert "40 test images of synthetic: accuracy " in out
    assert "recognised" in out
    assert " taken for " in out
    assert out.splitlines()[-1].endswith("10-00-00-abcdef/figures/synthetic-test/")
    assert {path.name for path in (trained / "figures" / "synthetic-test").iterdir()} == PICTURES


@pytest.mark.integration
def test_classes_that_are_no_digits_have_their_names(
    tiny: Callable[..., Config], composed: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    names = composed("data=fashion_mnist").data.classes
    assert names is not None
    before, after = tiny(), tiny(data={"classes": names})
    assert config.fingerprint(before) == config.fingerprint(after)
    trainings.run(after, Path("outputs/runs/2026-01-31/10-00-00-abcdef"))
    evaluate.main([])
    table = capsys.readouterr().out
    assert re.search(r"^ *class +images", table, re.MULTILINE)
    assert "digit" not in table
    digits = answers([0.9] * 2, [True, False])
    fashion = dataclasses.replace(digits, names=names, images=np.ones((2, 1, 28, 28), np.uint8))
    confusion, _, mistakes = evaluate.pictures_of(fashion, "test images")
    assert [tick.get_text() for tick in confusion.figure.axes[0].get_yticklabels()] == names
    assert "a sandal taken for a dress" in mistakes.alt
    page = write_report("last").read_text()
    assert re.search(r"<li>(T-shirt|[a-z ]+) taken for ", page)


def test_a_class_may_be_called_as_rich_marks_text(capsys: pytest.CaptureFixture[str]) -> None:
    bracketed = dataclasses.replace(answers([0.9] * 2, [True, False]), names=[*"012", "[/red]", *"456789"])
    evaluate._show("test images", bracketed, evaluate.measured(bracketed))
    assert re.search(r"^ *\[/red\] ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.integration
def test_other_data_is_named_as_in_conf(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main(["data=synthetic", "split=val"])  # 200 images there, 20 in the run
    assert "200 validation images of synthetic" in capsys.readouterr().out
    Path("scans").mkdir()
    for typed, near in (("mnits", "Did you mean mnist"), ("scnas/", "Did you mean scans/?")):
        with pytest.raises(ConfigError, match=f"There is no dataset or folder called '{typed}'") as caught:
            evaluate.main([f"data={typed}"])
        assert near in caught.value.help


@pytest.mark.integration
def test_a_folder_of_labelled_pictures(
    trained: Path, scratch: Path, tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own test images, saved as files in MNIST's form, give the same answers."""
    _, _, images, labels = sources.synthetic(tiny().data)
    for i, (image, label) in enumerate(zip(images.numpy(), labels.tolist(), strict=True)):
        own = image[0].copy()
        own[0], own[-1], own[:, 0], own[:, -1] = 0, 0, 0, 0  # a border as MNIST's
        (scratch / "scans" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(own).save(scratch / "scans" / str(label) / f"{i:02}.png")
    evaluate.main(["data=scans", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"] == 40
    assert np.sum(facts["confusion"], 1).tolist() == np.bincount(labels.numpy(), minlength=10).tolist()
    assert (trained / "figures" / "scans" / "confusion.png").exists()


def test_pictures_without_labels_are_only_classified(
    trained: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scratch / "scans").mkdir()
    Image.fromarray(np.pad(np.full((20, 4), 255, np.uint8), 10)).save(scratch / "scans" / "one.png")
    evaluate.main(["data=scans"])
    assert "scans/one.png" in capsys.readouterr().out
    assert not (trained / "figures").exists()


@pytest.mark.integration
def test_a_run_that_was_trained_elsewhere_is_fetched_from_mlflow(
    tiny: Callable[..., Config],
    mlflow_store: Callable[[str], Store],
    scratch: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    elsewhere = scratch / "elsewhere"
    trainings.run(tiny(tracking={"enabled": True}), elsewhere)
    publish(elsewhere, mlflow_store("mnist_exp"))
    run_id = read_json(elsewhere / "mlflow.json")["run_id"]
    summary = ledger.read(elsewhere).summary
    shutil.rmtree(elsewhere)
    evaluate.main([f"run={run_id}", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["accuracy"] == pytest.approx(summary["final/test_accuracy"])
    assert facts["figures"] == f"outputs/reports/{run_id}/figures/synthetic-test"
    shutil.rmtree("mlruns")
    shutil.rmtree("outputs")
    with pytest.raises(ExperimentError, match=r"MLflow does not give config\.yaml of run"):
        evaluate.main([f"run={run_id}"])


@pytest.mark.integration
def test_the_pictures_go_to_the_run_in_mlflow_but_to_no_other_store(
    tiny: Callable[..., Config],
    mlflow_store: Callable[[str], Store],
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown: list[str] = []  # before it waits

    class Messenger:
        """In place of the child process, the same in this one."""

        def __init__(self, tracking: Tracking) -> None:
            self.folders: list[Path] = []
            self.delivered = False

        def __enter__(self) -> "Messenger":
            return self

        def follow(self, folder: Path) -> None:
            self.folders.append(folder)

        def __exit__(self, *error: object) -> None:
            shown.append(capsys.readouterr().out)
            self.delivered = all(publish(folder, shop) for folder in self.folders)

    monkeypatch.setattr(publisher, "Publisher", Messenger)
    shop = mlflow_store("mnist_exp")
    folder = scratch / "run"
    trainings.run(tiny(tracking={"enabled": True}), folder)
    publish(folder, shop)
    evaluate.main(["run=run"])
    assert "accuracy" in shown[0]
    assert capsys.readouterr().out == "Pictures: run/figures/synthetic-test/, and in MLflow\n"
    sent = shop.client.list_artifacts(read_json(folder / "mlflow.json")["run_id"], "figures/synthetic-test")
    assert {Path(file.path).name for file in sent} == PICTURES
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    evaluate.main(["run=run"])
    assert capsys.readouterr().out.splitlines()[-1] == "Pictures: run/figures/synthetic-test/"
    assert not Path("other.db").exists()


def test_images_of_another_digest_are_refused(trained: Path) -> None:
    entry = ledger.read(trained)
    entry.dataset["digest"] = "0" * 16
    entry.write(trained)
    with pytest.raises(DataError, match="are not those of the run"):
        evaluate.main([])


@pytest.mark.integration
def test_wrong_use_is_a_sentence(trained: Path, tiny: Callable[..., Config], scratch: Path) -> None:
    with pytest.raises(ConfigError, match="split must be one of train, val, test, but got 'tset'"):
        evaluate.main(["split=tset"])
    trainings.run(tiny(data={"val_size": 0}), scratch / "all")
    with pytest.raises(ConfigError, match="synthetic has no val images"):
        evaluate.main(["run=all", "split=val"])
    (trained / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="does not fit the run's network"):
        evaluate.main([])


def test_uneven_classes_have_measures_that_count_each_the_same() -> None:
    probabilities = np.eye(4)[[0] * 9 + [0, 1, 1]].astype(np.float32)
    uneven = Answers(np.zeros((12, 1, 2, 2)), np.array([0] * 9 + [1, 1, 1]), probabilities, None, list("abcd"))
    assert uneven.uneven
    assert uneven.accuracy == pytest.approx(11 / 12)
    assert uneven.balanced_accuracy == pytest.approx((1 + 2 / 3) / 2)
    assert uneven.macro_f1 == pytest.approx((18 / 19 + 4 / 5) / 2)
    assert not answers([0.9] * 4, [True, True, False, False]).uneven


@pytest.mark.parametrize("classes", [10, 26, 47, 62])
def test_the_counts_of_many_classes_have_room(classes: int) -> None:
    picture = network.confusion(np.eye(classes, dtype=int) * 999, "test", [f"class {i}" for i in range(classes)])
    assert min(picture.figure.get_size_inches()) / classes > 0.2  # inches, for three digits of a twelfth


def test_another_datasets_images_must_fit_the_network(trained: Path) -> None:
    with pytest.raises(ConfigError, match="sklearn_digits has 10 classes of images of 8x8, but the network knows 10"):
        evaluate.main(["data=sklearn_digits"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_weights_that_give_no_probabilities_are_a_sentence(value: float, trained: Path) -> None:
    """A run from elsewhere may have any."""
    weights = safetensors.torch.load_file(trained / "weights.safetensors")
    filled = {name: torch.full_like(tensor, value) for name, tensor in weights.items()}
    safetensors.torch.save_file(filled, trained / "weights.safetensors")
    with pytest.raises(CheckpointError, match="probabilities are no numbers"):
        evaluate.main([f"run={trained}"])
