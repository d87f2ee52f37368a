"""Callbacks: what they measure is recorded, what they stop ends, and their faults have a name."""

import sys
from collections.abc import Callable
from pathlib import Path

import following
import numpy as np
import pytest
import torch
import trainings
from samples import TINY

from mnist_exp.config import Config
from mnist_exp.disk import journal, ledger
from mnist_exp.engine.events import Control, EpochEnd, Observer
from mnist_exp.errors import ConfigError, ExperimentError
from mnist_exp.evaluate.answers import Answers
from mnist_exp.run import export, session
from mnist_exp.run.callbacks import MacroF1

Tiny = Callable[..., Config]
HERE = Path("run")


def named(target: str, **keywords: object) -> dict[str, object]:
    return {"mine": {"_target_": target, **keywords}}


@pytest.fixture(autouse=True)
def _none_made() -> None:
    following.Rule.made.clear()


def test_what_a_callback_measures_is_recorded_and_what_it_stops_is_finished(tiny: Tiny) -> None:
    config = tiny(epochs=4, callbacks=named("following.Rule", after=2))
    result = trainings.run(config, HERE)
    assert (result.state, result.reason) == ("finished", "Enough.")
    assert [row["metrics"]["val/answers"] for row in journal.read(HERE)] == [20, 20]
    assert result.summary["final/val_answers"] == 20
    assert ledger.read(HERE).params["callbacks.mine.after"] == "2"
    (rule,) = following.Rule.made
    assert rule.seen == ["epoch 1, 20", "epoch 2, 20", "finished, Enough."]
    assert (HERE / "weights.safetensors").is_file()


def test_in_a_pack_only_the_lane_that_is_stopped_ends(tiny: Tiny) -> None:
    configs = [tiny(seed=seed, epochs=3, data={"order_seed": 0}, callbacks=named("following.Rule")) for seed in (0, 1)]
    outcomes = session.run_many(trainings.tasks(configs, "runs"))
    assert [isinstance(each, session.Result) and each.state for each in outcomes] == ["finished", "finished"]
    assert [len(journal.read(Path(f"runs/{i}"))) for i in (0, 1)] == [1, 3]


def test_a_run_that_is_stopped_after_its_last_epoch_does_not_end_the_next_one(tiny: Tiny) -> None:
    configs = [tiny(threads=threads, callbacks=named("following.Rule", after=2)) for threads in (1, 2)]
    session.run_many(trainings.tasks(configs, "runs"))  # one after the other: their threads differ
    assert [len(journal.read(Path(f"runs/{i}"))) for i in (0, 1)] == [2, 2]


def test_a_lane_that_is_stopped_and_pruned_at_once_does_not_end_the_one_that_takes_its_place(tiny: Tiny) -> None:
    stops = named("following.Rule")  # after one epoch, where the seed is 0
    configs = [tiny(seed=i, epochs=3, data={"order_seed": 0}, callbacks=stops) for i in (0, 1)]

    class GiveUp(Observer):
        def __init__(self, control: Control) -> None:
            self.control = control

        def on_epoch(self, event: EpochEnd) -> None:
            self.control.pruned[event.lane] = "Pruned."

    def watch(about: session.Run, control: Control) -> list[Observer]:
        return [GiveUp(control)] if about.config.seed == 0 else []

    outcomes = session.run_many(trainings.tasks(configs, "runs"), watch)
    assert [isinstance(each, session.Result) and each.state for each in outcomes] == ["pruned", "finished"]
    assert [len(journal.read(Path(f"runs/{i}"))) for i in (0, 1)] == [1, 3]


def test_callbacks_change_no_loss(tiny: Tiny) -> None:
    trainings.run(tiny(), HERE)
    trainings.run(tiny(callbacks=named("mnist_exp.run.callbacks.MacroF1", recall=True)), Path("watched"))
    assert trainings.losses(HERE) == trainings.losses(Path("watched"))
    assert (HERE / "weights.safetensors").read_bytes() == Path("watched/weights.safetensors").read_bytes()
    assert "val/macro_f1" in journal.read(Path("watched"))[0]["metrics"]


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({}, "ZeroDivisionError"),
        ({"key": "val/loss", "value": 1.0}, "'val/loss', which has another form than val/name, or is there already"),
        ({"key": "loss", "value": 1.0}, "'loss', which has another form"),
        ({"value": 1e-30}, "val/x is inf"),
    ],
)
def test_the_fault_of_a_callback_has_its_name_and_the_epochs_before_stay(
    keywords: dict[str, object], said: str, tiny: Tiny
) -> None:
    with pytest.raises(ExperimentError, match=r"callbacks\.mine failed: ") as caught:
        trainings.run(tiny(epochs=3, callbacks=named("following.Bad", **keywords)), HERE)
    assert said in str(caught.value)
    assert ledger.read(HERE).state == "failed"
    assert len(journal.read(HERE)) == 1


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("+callbacks.mine._target_=following.Stranger", "must make a Callback, not a Stranger"),
        ("+callbacks.mine._target_=following.Missing", "callbacks.mine._target_=following.Missing cannot be used"),
        ("+callbacks.mine={_target_:following.Rule,afterr:2}", "Did you mean 'callbacks.mine.after'?"),
        ("+callbacks.mine=1", "callbacks must hold names, each with a _target_ below it"),
    ],
)
def test_what_is_no_callback_is_refused(
    typed: str, said: str, command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = command(*TINY, typed)
    assert code == 2
    assert said in err
    assert not list(Path("outputs").glob("runs/*/*/ledger.json"))


def test_macro_f1_is_that_of_evaluate() -> None:
    rng = np.random.default_rng(0)
    true, answers = rng.integers(0, 3, 50), rng.integers(0, 4, 50)
    run = session.Run(
        *(None, Path(), None, torch.device("cpu"), 1, ""),  # type: ignore[arg-type]
        labels={"val": torch.from_numpy(true)},
        classes=["zero", "one", "t w o", "three", "four"],
    )
    event = EpochEnd(
        lane=0, epoch=1, step=1, metrics={}, time_ms=0, best=True, answers={"val": torch.from_numpy(answers).byte()}
    )
    expected = Answers(np.zeros((50, 1, 1, 1)), true, np.eye(5)[answers], None)
    measured = MacroF1(run, recall=True).measure(event)
    assert measured["val/macro_f1"] == pytest.approx(expected.macro_f1)
    recalls = [measured[f"val/recall_{name}"] for name in ("zero", "one", "t_w_o")]
    assert np.mean(recalls) == pytest.approx(expected.balanced_accuracy)
    assert "val/recall_three" not in measured
    assert MacroF1(run, split="test").measure(event) == {}


def test_tensorboard_reads_what_a_resumed_run_wrote(tiny: Tiny) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny(epochs=3, callbacks=named("mnist_exp.run.callbacks.TensorBoard"))
    trainings.interrupted(config, HERE, after=2)
    trainings.run(config, HERE)
    events = EventAccumulator(str(HERE / "tensorboard"))
    events.Reload()
    rows = [row["metrics"]["val/loss"] for row in journal.read(HERE)]
    assert [event.step for event in events.Scalars("val/loss")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("val/loss")] == pytest.approx(rows)


@pytest.mark.integration
def test_an_onnx_model_answers_as_the_network(tiny: Tiny) -> None:
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    from onnx.reference import ReferenceEvaluator

    config = tiny(epochs=1, callbacks=named("mnist_exp.run.callbacks.ONNX"))
    trainings.run(config, HERE)
    pixels = torch.randint(0, 256, (3, 1, 28, 28), generator=torch.Generator().manual_seed(0)).float()
    (answers,) = ReferenceEvaluator(str(HERE / "model.onnx")).run(None, {"pixels": pixels.numpy()})
    with torch.no_grad():
        assert torch.from_numpy(answers).allclose(export.restore(config, HERE)(pixels), atol=1e-6)


@pytest.mark.parametrize(("option", "module"), [("tensorboard", "torch.utils.tensorboard"), ("onnx", "onnxscript")])
def test_a_missing_extra_is_named(
    option: str, module: str, composed: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"callbacks={option} needs") as caught:
        trainings.run(composed(*TINY, f"callbacks={option}"), HERE)
    assert f"mnist_exp[{option}]" in caught.value.help
