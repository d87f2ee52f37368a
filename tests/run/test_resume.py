"""A run resumes only as what it was, and never after it has finished."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import trainings
from data_fixtures import TEST, TRAIN, write_dataset
from report_fixtures import make_run, make_sweep, track
from samples import TINY

from mnist_exp.config import Config
from mnist_exp.data import fetch
from mnist_exp.disk import checkpoint, journal, ledger, provenance, records
from mnist_exp.disk.files import sha256
from mnist_exp.disk.layout import RunFolder
from mnist_exp.engine.events import Control, Observer
from mnist_exp.errors import CheckpointError, ConfigError
from mnist_exp.models import MLP
from mnist_exp.run import claim, resume, session

Tiny = Callable[..., Config]
Command = Callable[..., tuple[int, str, str]]
HERE = Path("run")


def test_a_finished_run_is_never_run_again(tiny: Tiny) -> None:
    first = trainings.run(tiny(), HERE)
    before = {path: path.read_bytes() for path in HERE.rglob("*") if path.is_file()}

    def watch(about: session.Run, control: Control) -> list[Observer]:
        raise AssertionError("it trains again")

    assert trainings.run(tiny(), HERE, watch=watch) == first
    assert {path: path.read_bytes() for path in HERE.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("layers.0.bias"), "The saved state lacks layers.0.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "The saved state has extra, which this model has not"),
        (
            lambda s: s.update({"layers.2.weight": torch.zeros(10, 9)}),
            r"layers.2.weight was saved with shape \(10, 9\), but this model has \(10, 12\)",
        ),
    ],
    ids=["missing", "extra", "shape"],
)
def test_a_state_that_does_not_fit_names_the_leaf(change, sentence: str) -> None:
    wanted = MLP(12).state_dict()
    saved = dict(wanted)
    change(saved)
    with pytest.raises(CheckpointError, match=sentence):
        claim.same_shapes(saved, wanted)


def test_another_config_is_refused_and_named(tiny: Tiny) -> None:
    trainings.run(tiny(), HERE)
    with pytest.raises(
        ConfigError, match=r"run was made with something else: batch_size was 16, now 8; lr was"
    ) as caught:
        trainings.run(tiny(batch_size=8, lr=0.01), HERE)
    assert caught.value.help == "force=true goes on all the same."
    assert not records.held(HERE)
    assert ledger.read(HERE).state == "finished"


def test_what_does_not_change_the_result_may_change(tiny: Tiny) -> None:
    first = trainings.run(tiny(), HERE)
    assert trainings.run(tiny(name="other", tags={"why": "x"}, threads=2), HERE) == first


def test_other_code_is_refused_unless_forced(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trainings.run(tiny(), HERE)
    monkeypatch.setattr(provenance, "code_fingerprint", lambda: "another")
    with pytest.raises(ConfigError, match="the code has changed"):
        trainings.run(tiny(), HERE)
    assert trainings.run(tiny(force=True), HERE) == first


@pytest.mark.integration
def test_more_epochs_go_on_from_the_last(tiny: Tiny) -> None:
    constant = {"floor": 1.0}  # a rate that falls depends on how many epochs there will be
    trainings.run(tiny(schedule=constant), HERE)
    result = trainings.run(tiny(epochs=4, force=True, schedule=constant), HERE)
    trainings.run(tiny(epochs=4, schedule=constant), Path("whole"))
    one, other = (sha256((folder / "weights.safetensors").read_bytes()) for folder in (HERE, Path("whole")))
    assert one == other
    assert (result.state, ledger.read(HERE).epoch) == ("finished", 4)


@pytest.fixture
def on_files(tiny: Tiny) -> Config:
    """A config whose images are files of no known digest."""
    write_dataset(Path("images"))
    images = {"name": "small", "root": "images", "train_images": TRAIN, "test_images": TEST, "val_size": 2}
    return tiny(data=images)


def other_images() -> None:
    path = Path("images", fetch.FILES[0])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("state", ["killed", "finished"])
def test_other_images_are_refused_by_their_digests_and_the_run_stays_as_it_was(on_files: Config, state: str) -> None:
    trainings.run(on_files, HERE)
    entry = ledger.read(HERE)
    entry.state = state
    entry.write(HERE)
    other_images()
    with pytest.raises(
        ConfigError, match=rf"the images \(small\) were {entry.fingerprint['data']}, now [0-9a-f]{{16}}\."
    ):
        trainings.run(on_files, HERE)
    assert ledger.read(HERE) == entry
    on_files.force = True
    assert trainings.run(on_files, HERE).state == "finished"
    assert ledger.read(HERE).fingerprint["data"] != entry.fingerprint["data"]


def test_what_is_refused_before_training_stays_as_it_was(tiny: Tiny) -> None:
    trainings.run(tiny(epochs=1), HERE)
    entry = ledger.read(HERE)
    entry.state = "killed"
    entry.write(HERE)
    before = {path: path.read_bytes() for path in HERE.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError) as caught:
        trainings.run(tiny(epochs=1, hidden=8, force=True), HERE)
    assert "in a folder of its own" in caught.value.help
    assert {path: path.read_bytes() for path in HERE.rglob("*") if path.is_file()} == before


def test_more_epochs_than_are_wanted_are_not_trained_back(tiny: Tiny) -> None:
    trainings.run(tiny(epochs=3), HERE)
    before = (HERE / "ledger.json").read_bytes()
    with pytest.raises(CheckpointError, match="has finished 3 epochs, which is more than epochs=2"):
        trainings.run(tiny(epochs=2, force=True), HERE)
    assert (HERE / "ledger.json").read_bytes() == before


def test_a_forced_run_says_what_it_is_now(tiny: Tiny) -> None:
    trainings.run(tiny(epochs=1), HERE, ["hidden=16", "epochs=1"], sweep="s")
    before = ledger.read(HERE)
    trainings.run(tiny(epochs=2, lr=0.1, force=True), HERE, ["resume=run", "force=true", "lr=0.1", "epochs=2"])
    entry = ledger.read(HERE)
    assert (entry.params["lr"], entry.epochs, entry.sweep) == (0.1, 2, "s")
    assert entry.overrides == ["hidden=16", "epochs=2", "lr=0.1"]
    assert entry.name.startswith("hidden=16 lr=0.1")
    assert entry.tags["forced"] == "epochs was 1, now 2; lr was 0.001, now 0.1; optimizer.lr was 0.001, now 0.1"
    assert entry.id != before.id  # MLflow lets no param of a run change


OPTIMIZERS = {
    "adam": ["optimizer=adam"],
    "amsgrad": ["optimizer=adam", "+optimizer.amsgrad=true", "optimizer.fused=false"],
    "adamw": ["optimizer=adamw"],
    "sgd": ["optimizer=sgd", "optimizer.momentum=0"],
    "momentum": ["optimizer=sgd"],
    "muon": ["optimizer=muon"],
}
ONE_KIND = {"adam", "adamw"}


@pytest.mark.integration
@pytest.mark.parametrize("before", OPTIMIZERS)
def test_force_takes_over_moments_that_fit_the_optimiser_and_says_which_it_leaves(
    before: str, composed: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    trainings.run(composed(*TINY, *OPTIMIZERS[before], "epochs=1"), HERE / before)
    for after in OPTIMIZERS.keys() - {before}:
        caplog.clear()
        shutil.copytree(HERE / before, HERE / after)
        result = trainings.run(composed(*TINY, *OPTIMIZERS[after], "force=true"), HERE / after)
        assert (result.state, ledger.read(HERE / after).epoch) == ("finished", 2)
        fits = before == "sgd" or {before, after} == ONE_KIND
        assert ("The optimiser begins anew: what the earlier one left (" in caplog.text) is not fits


def test_moments_that_fit_go_on_with_another_rate(tiny: Tiny) -> None:
    trainings.run(tiny(epochs=1), HERE)
    before = checkpoint.load_last(RunFolder(HERE).checkpoints)
    trainings.run(tiny(epochs=2, lr=0.01, force=True), HERE)
    after = checkpoint.load_last(RunFolder(HERE).checkpoints)
    assert before
    assert after
    (steps,) = {float(moments["step"]) for moments in before.moments.values()}
    assert {float(moments["step"]) for moments in after.moments.values()} == {2 * steps}


def test_no_row_of_an_earlier_config_is_taken_for_one_of_this(tiny: Tiny) -> None:
    off = {"enabled": False}
    trainings.run(tiny(checkpoint=off), HERE)
    trainings.run(tiny(checkpoint=off, lr=0.05, force=True), HERE)
    trainings.run(tiny(checkpoint=off, lr=0.05), Path("whole"))
    one, other = ([row["metrics"]["train/loss"] for row in journal.read(folder)] for folder in (HERE, Path("whole")))
    assert one == other


@pytest.mark.integration
@pytest.mark.parametrize(
    ("typed", "sentence", "way_out"),
    [
        ("resume=last", "There is no run in outputs/runs.", "Train one first: python -m mnist_exp.train"),
        ("resume=nowhere", "No run, sweep or experiment is called 'nowhere'.", "A name is last, best, "),
    ],
)
def test_resuming_nothing_is_explained(typed: str, sentence: str, way_out: str, command: Command) -> None:
    code, out, err = command(typed)
    assert (code, out) == (2, "")
    assert sentence in err
    assert way_out in err


ID = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("name", ["last", "outputs/runs/2026-01-31/10-00-00-abcdef", "10-00-00", ID])
def test_a_run_has_the_names_that_other_commands_know(name: str) -> None:
    folder = make_run(Path("outputs/runs/2026-01-31/10-00-00-abcdef"), ["lr=0.1"], 0.9)
    track(folder, ID)
    assert resume.run_folder("outputs/runs", name) == str(folder)


def test_a_sweep_is_no_run_but_its_best_is_one() -> None:
    sweep = make_sweep(Path("outputs"), [["lr=0.1"]])
    make_run(sweep / "0", ["lr=0.1"], 0.9)
    assert resume.run_folder("outputs/runs", "best") == str(sweep / "0")
    with pytest.raises(ConfigError) as caught:
        resume.run_folder("outputs/runs", sweep.name)
    assert caught.value.help == f"Go on with all of them:\npython -m mnist_exp.train -m resume={sweep.name}"


@pytest.mark.integration
def test_a_run_that_has_finished_says_that_nothing_was_trained(command: Command) -> None:
    for typed in ([*TINY, "hydra.run.dir=rd"], [*TINY, "hydra.run.dir=rd"], ["resume=rd"]):
        code, out, _ = command(*typed)
        assert code == 0
        assert ("Nothing was trained: this run is finished already." in out) == Path("seen").exists()
        Path("seen").touch()


@pytest.mark.integration
def test_the_same_choice_may_be_typed_again(command: Command) -> None:
    assert command(*TINY, "hydra.run.dir=rd", "+tags.why=x")[0] == 0
    code, out, err = command(*TINY, "+tags.why=x", "resume=rd")
    assert code == 0, err
    assert "Nothing was trained: this run is finished already." in out
    code, out, err = command("data=synthetic", "optimizer=adam", "cluster=local", "resume=rd", "epochs=2")
    assert code == 0, err
    code, _, err = command("data=synthetic", "optimizer=sgd", "resume=rd")
    assert code == 2
    assert "error: optimizer=sgd cannot be changed in a run that exists." in err
    assert "plain values only" in err
