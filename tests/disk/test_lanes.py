"""Runs that train together end as they would alone, whatever becomes of their neighbours."""

import dataclasses
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import MNIST
from trainings import assert_alike, losses, run, tasks

from mnist_exp.config import Config
from mnist_exp.disk import checkpoint, journal, lanes, ledger, records
from mnist_exp.disk.files import read_json, write_json
from mnist_exp.engine.events import Control, EpochEnd, Observer
from mnist_exp.errors import BusyError, DivergedError, ExperimentError, Interrupted
from mnist_exp.run import build
from mnist_exp.run.session import Result, Run, Task, run_many

Tiny = Callable[..., Config]
ORDER = {"order_seed": 0}


def varied(tiny: Tiny, **settings: object) -> list[Config]:
    """All that lanes may differ in."""
    return [
        tiny(data=ORDER, **settings),
        tiny(data=ORDER, lr=0.003, seed=1, **settings),
        tiny(data=ORDER, hidden=9, optimizer={"weight_decay": 0.01, "betas": [0.8, 0.99]}, **settings),
        tiny(data=ORDER, model={"dropout": 0.4}, seed=2, **settings),
    ]


def stop_after(epoch: int) -> Callable[[Run, Control], Sequence[Observer]]:
    class Stop(Observer):
        def __init__(self, control: Control) -> None:
            self.control = control

        def on_epoch(self, event: EpochEnd) -> None:
            if event.epoch == epoch:
                self.control.signal = signal.SIGINT

    return lambda about, control: [Stop(control)]


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": {"fused": False}}, {"training": {"ema": 0.9, "clip": 0.5}}],
    ids=["fused", "torch", "average"],
)
def test_each_lane_trains_as_it_would_alone(tiny: Tiny, settings: dict[str, object]) -> None:
    chosen = varied(tiny, epochs=4)
    if settings:
        chosen = [tiny(data=ORDER, epochs=4, hidden=h, lr=lr, **settings) for h, lr in ((8, 1e-3), (9, 3e-3))]
    results = run_many(tasks(chosen, "together"))
    for i, config in enumerate(chosen):
        alone = run(config, Path(f"alone/{i}"))
        together = results[i]
        assert isinstance(together, Result)
        assert together.folder == Path(f"together/{i}")
        assert together.state == alone.state == "finished"
        assert together.summary.keys() == alone.summary.keys()
        assert_alike(together.folder, alone.folder)


def test_lanes_of_one_pack_differ(tiny: Tiny) -> None:
    run_many(tasks(varied(tiny), "together"))
    lasts = [losses(Path(f"together/{i}"))[-1] for i in range(4)]
    assert all(a != b for i, a in enumerate(lasts) for b in lasts[:i])


def test_a_lane_that_diverges_fails_alone(tiny: Tiny) -> None:
    chosen = [*varied(tiny, epochs=3), tiny(data=ORDER, lr=1e30, epochs=3)]
    *good, bad = run_many(tasks(chosen, "together"))
    assert isinstance(bad, DivergedError)
    assert "Lower lr, now 1e30" in bad.message
    assert ledger.read(Path("together/4")).state == "failed"
    for i, (config, result) in enumerate(zip(chosen[:4], good, strict=True)):
        assert isinstance(result, Result)
        assert ledger.read(result.folder).state == "finished"
        run(config, Path(f"alone/{i}"))
        assert_alike(result.folder, Path(f"alone/{i}"))


def pruning(epochs: dict[str, int], stop: int = 0) -> Callable[[Run, Control], Sequence[Observer]]:
    """Gives up the runs in folders of these names after so many *epochs*; all are stopped after epoch *stop*."""

    class GiveUp(Observer):
        def __init__(self, about: Run, control: Control) -> None:
            self.name, self.control = about.folder.name, control

        def on_epoch(self, event: EpochEnd) -> None:
            if epochs.get(self.name) == event.epoch:
                self.control.pruned[event.lane] = f"Pruned after epoch {event.epoch}."
            if event.epoch == stop:
                self.control.signal = signal.SIGINT

    return lambda about, control: [GiveUp(about, control)]


@pytest.mark.parametrize("settings", [{}, {"optimizer": {"fused": False}}, {"training": {"ema": 0.9, "clip": 0.5}}])
def test_lanes_that_are_pruned_leave_and_the_others_train_on_as_they_would_alone(
    tiny: Tiny, settings: dict[str, object]
) -> None:
    chosen = [tiny(data=ORDER, epochs=4, hidden=h, lr=1e-3 * h, **settings) for h in (8, 8, 9, 12)]
    results = run_many(tasks(chosen, "together"), pruning({"1": 1, "3": 3, "0": 3}))
    assert [result.state for result in results if isinstance(result, Result)] == [
        "pruned",
        "pruned",
        "finished",
        "pruned",
    ]
    entries = [ledger.read(Path(f"together/{i}")) for i in range(4)]
    assert [(entry.epoch, entry.reason) for entry in entries] == [
        (3, "Pruned after epoch 3."),
        (1, "Pruned after epoch 1."),
        (4, ""),
        (3, "Pruned after epoch 3."),
    ]
    record = lanes.read(Path("together/2"))
    assert record
    assert [len(record.present(epoch)) for epoch in range(4)] == [4, 3, 3, 1]
    run(chosen[2], Path("alone"))
    assert_alike(Path("together/2"), Path("alone"))


def test_a_pack_that_lanes_have_left_goes_on_bit_for_bit(tiny: Tiny) -> None:
    chosen, given_up = varied(tiny, epochs=5), {"1": 1, "2": 3}
    run_many(tasks(chosen, "whole"), pruning(given_up))
    run_many(tasks(chosen, "parts"), pruning(given_up, stop=2))
    left = [Task(chosen[i], Path(f"parts/{i}")) for i in (0, 2, 3)]
    run_many(left, pruning(given_up))
    for i in (0, 3):
        assert_equal(Path(f"parts/{i}"), Path(f"whole/{i}"))


def test_a_run_whose_neighbours_left_is_repeated_bit_for_bit(tiny: Tiny) -> None:
    """As `mnist_exp.rerun` does it: alone, with placeholders for as long as the others were there."""
    chosen = varied(tiny, epochs=4)
    run_many(tasks(chosen, "whole"), pruning({"1": 1, "2": 3}))
    Path("again").mkdir()
    lanes.copy(Path("whole/3"), Path("again"))
    run(chosen[3], Path("again"))
    assert_equal(Path("again"), Path("whole/3"))


def test_a_pack_of_which_some_do_not_know_who_left_is_two(tiny: Tiny) -> None:
    """A kill came between the records of two lanes."""
    chosen = varied(tiny, epochs=4)
    run_many(tasks(chosen, "parts"), pruning({"1": 1}, stop=2))
    record = lanes.read(Path("parts/0"))
    assert record
    lanes.leave(dataclasses.replace(record, left={}), [], 1, Path("parts/0"))
    left = [Task(chosen[i], Path(f"parts/{i}")) for i in (0, 2, 3)]
    assert [getattr(result, "state", result) for result in run_many(left)] == ["finished"] * 3
    for i in (0, 2, 3):
        run(chosen[i], Path(f"alone/{i}"))
        assert_alike(Path(f"parts/{i}"), Path(f"alone/{i}"))


def test_a_pruned_run_of_a_sweep_is_not_run_again_and_alone_it_may_be(tiny: Tiny) -> None:
    chosen = varied(tiny, epochs=3)[:2]
    run_many(tasks(chosen, "sweep"), pruning({"1": 1}))
    _, again = run_many(tasks(chosen, "sweep"), sweep="sweep")
    assert isinstance(again, Result)
    assert (again.state, len(losses(Path("sweep/1")))) == ("pruned", 1)
    assert run(chosen[1], Path("sweep/1")).state == "finished"


def test_a_lane_that_stops_early_leaves_the_others(tiny: Tiny) -> None:
    """With a learning rate of nearly nothing the first epoch stays the best."""
    training = {"patience": 2}
    chosen = [tiny(data=ORDER, lr=lr, epochs=6, training=training) for lr in (1e-12, 3e-3)]
    stopped, other = run_many(tasks(chosen, "together"))
    assert isinstance(stopped, Result)
    assert "best after epoch 1 of 3" in stopped.reason
    assert len(losses(stopped.folder)) == 3
    assert isinstance(other, Result)
    assert len(losses(other.folder)) > 3
    run(chosen[1], Path("alone"))
    assert_alike(other.folder, Path("alone"))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_pack_that_was_stopped_goes_on_bit_for_bit(tiny: Tiny, ema: float) -> None:
    chosen = varied(tiny, epochs=4, training={"ema": ema})
    run_many(tasks(chosen, "whole"))
    stopped = run_many(tasks(chosen, "parts"), stop_after(2))
    assert all(isinstance(outcome, Interrupted) for outcome in stopped)
    assert [ledger.read(Path(f"parts/{i}")).state for i in range(4)] == ["killed"] * 4
    assert all(isinstance(outcome, Result) for outcome in run_many(tasks(chosen, "parts")))
    for i in range(4):
        assert_equal(Path(f"parts/{i}"), Path(f"whole/{i}"))


def assert_equal(one: Path, other: Path) -> None:
    assert (one / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()
    assert losses(one) == losses(other)


@pytest.mark.parametrize("settings", [{}, {"optimizer": {"fused": False}}, {"training": {"ema": 0.9, "clip": 0.5}}])
def test_a_lane_goes_on_without_its_neighbours_bit_for_bit(tiny: Tiny, settings: dict[str, object]) -> None:
    """Some of them alone, two together; each as in the pack that nothing disturbed."""
    own = {k: v for k, v in settings.items() if k == "optimizer"}
    chosen = [tiny(data=ORDER, epochs=4, hidden=h, lr=lr, **settings) for h, lr in ((8, 1e-3), (9, 3e-3), (40, 1e-3))]
    chosen += [tiny(data=ORDER, epochs=4, model={"dropout": 0.4}, seed=2, **own, **(settings if not own else {}))]
    run_many(tasks(chosen, "whole"))
    run_many(tasks(chosen, "parts"), stop_after(2))
    run(chosen[1], Path("parts/1"))
    run(chosen[3], Path("parts/3"))
    run_many([Task(chosen[i], Path(f"parts/{i}")) for i in (2, 0)])
    for i in range(4):
        assert_equal(Path(f"parts/{i}"), Path(f"whole/{i}"))


def test_lanes_that_lost_each_other_at_different_epochs_end_as_they_would_have(tiny: Tiny) -> None:
    chosen = varied(tiny, epochs=4)
    run_many(tasks(chosen, "whole"))
    run_many(tasks(chosen, "parts"), stop_after(1))
    run_many(tasks(chosen, "parts")[:2], stop_after(3))
    assert all(isinstance(result, Result) for result in run_many(tasks(chosen, "parts")))
    for i in range(4):
        assert_equal(Path(f"parts/{i}"), Path(f"whole/{i}"))


def test_a_lane_that_was_stopped_before_its_first_epoch_keeps_its_lane(tiny: Tiny) -> None:
    chosen = varied(tiny)
    run_many(tasks(chosen, "whole"))
    run_many(tasks(chosen, "parts"), lambda about, control: setattr(control, "signal", signal.SIGINT) or ())
    run(chosen[2], Path("parts/2"))
    assert_equal(Path("parts/2"), Path("whole/2"))


def test_the_others_end_as_in_an_undisturbed_pack_after_one_has_diverged(tiny: Tiny) -> None:
    chosen = [*varied(tiny, epochs=3), tiny(data=ORDER, lr=1e30, epochs=3)]
    run_many(tasks(chosen, "whole"))
    run_many(tasks(chosen, "parts"), stop_after(2))
    run_many(tasks(chosen, "parts"))
    for i in range(4):
        assert_equal(Path(f"parts/{i}"), Path(f"whole/{i}"))


def test_a_single_run_that_is_resumed_with_others_stays_by_itself(tiny: Tiny) -> None:
    chosen = varied(tiny, epochs=4)
    for i, config in enumerate(chosen[1:], start=1):
        run(config, Path(f"whole/{i}"))
        with pytest.raises(Interrupted):
            run(config, Path(f"single/{i}"), watch=stop_after(2))
    run_many(tasks(chosen, "single"))
    for i in range(1, 4):
        assert_equal(Path(f"single/{i}"), Path(f"whole/{i}"))


def test_a_pack_that_was_not_wholly_written_down_has_not_begun(tiny: Tiny) -> None:
    chosen = varied(tiny)
    run_many(tasks(chosen, "whole"))
    run_many(tasks(chosen, "parts"), lambda about, control: setattr(control, "signal", signal.SIGINT) or ())
    first = next(i for i in range(4) if lanes.read(Path(f"parts/{i}")).lane == 0)  # type: ignore[union-attr]
    Path(f"parts/{first}/pack.json").unlink()
    assert all(lanes.read(Path(f"parts/{i}")) is None for i in range(4))
    run_many(tasks(chosen, "parts"))
    for i in range(4):
        assert_equal(Path(f"parts/{i}"), Path(f"whole/{i}"))


def test_with_force_and_other_settings_a_lane_leaves_its_pack(tiny: Tiny) -> None:
    chosen = varied(tiny, epochs=4)
    run_many(tasks(chosen, "parts"), stop_after(2))
    result = run(tiny(data=ORDER, epochs=4, lr=0.01, force=True), Path("parts/0"))
    assert result.state == "finished"


def test_what_was_wrong_before_training_concerns_one_lane(tiny: Tiny) -> None:
    """One folder is in use, another holds a finished run; the third trains."""
    chosen = varied(tiny)[:3]
    held = Path("together/0")
    held.mkdir(parents=True)
    before = run(chosen[1], Path("together/1"))
    with ledger.hold(held):
        busy, finished, trained = run_many(tasks(chosen, "together"))
    assert isinstance(busy, BusyError)
    assert finished == before
    assert isinstance(trained, Result)
    assert not records.held(Path("together/2")), "its lock is released"


def test_a_lane_saves_the_state_of_a_model_of_its_own(tiny: Tiny) -> None:
    chosen = varied(tiny)
    run_many(tasks(chosen, "together"))
    for i, config in enumerate(chosen):
        run(config, Path(f"alone/{i}"))
        ours, theirs = (checkpoint.load_last(Path(f"{w}/{i}/checkpoints")) for w in ("together", "alone"))
        assert ours is not None
        assert theirs is not None
        assert {n: w.shape for n, w in ours.weights.items()} == {n: w.shape for n, w in theirs.weights.items()}
        for name, tensor in theirs.weights.items():
            torch.testing.assert_close(ours.weights[name], tensor, atol=1e-5, rtol=1e-4)
            assert ours.moments[name].keys() == theirs.moments[name].keys()
            assert ours.weights[name].untyped_storage().nbytes() == tensor.numel() * 4, "not the whole buffer"


@pytest.mark.slow
@pytest.mark.skipif(not (MNIST / "verified.json").exists(), reason="python -m mnist_exp.data fetch was not run")
def test_lanes_train_as_alone_for_an_epoch_of_mnist(composed: Callable[..., Config]) -> None:
    """860 steps of Adam, within 1e-4 of the loss. Measured on an AMD EPYC: these widths give equal bits."""
    common = [f"data.root={MNIST}", "data.order_seed=0", "epochs=1", "device=cpu", "threads=1", "tracking=off"]
    chosen = [composed(*common, f"hidden={hidden}", f"lr={lr}") for hidden in (64, 128) for lr in (1e-3, 3e-3)]
    stack, _ = build.stack(chosen, [build.model(config) for config in chosen], torch.device("cpu"))
    for lane, config in enumerate(chosen):
        own = build.model(config).state_dict()
        assert own.keys() == stack.weights(lane).keys()
        assert all(own[name].equal(tensor) for name, tensor in stack.weights(lane).items())
    run_many(tasks(chosen, "together"), extras=False)
    for i, config in enumerate(chosen):
        record = lanes.read(Path(f"together/{i}"))
        assert record
        assert len(record.lanes) == 4
        assert run(config, Path(f"alone/{i}"), extras=False).state == "finished"
        (row,) = journal.read(Path(f"together/{i}"))
        assert row["step"] == 860
        assert_alike(Path(f"together/{i}"), Path(f"alone/{i}"))


CRAFTED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a placeholder beyond all memory": lambda plain: plain["lanes"][1]["model"].update(hidden=10**9),
    "a negative width": lambda plain: plain["lanes"][1]["model"].update(hidden=-1),
    "a width of text": lambda plain: plain["lanes"][1]["model"].update(hidden="x"),
    "another network": lambda plain: plain["lanes"][1].update(model={"_target_": "mnist_exp.models.SmallCNN"}),
    "no network": lambda plain: plain["lanes"][1].update(model=None),
    "a list for a network": lambda plain: plain["lanes"][1].update(model=[1]),
    "no target": lambda plain: plain["lanes"][1]["model"].pop("_target_"),
    "another norm": lambda plain: plain["lanes"][1]["model"].update(norm="batch"),
    "a rate of text": lambda plain: plain["lanes"][1].update(lr="x"),
    "a negative rate": lambda plain: plain["lanes"][1].update(lr=-1),
    "another optimiser": lambda plain: plain["lanes"][1].update(optimizer={"_target_": "torch.optim.Adadelta"}),
    "a list for an optimiser": lambda plain: plain["lanes"][1].update(optimizer=[1]),
    "an option of text": lambda plain: plain["lanes"][1]["optimizer"].update(betas="x"),
    "a first of another file system": lambda plain: plain.update(first="x" * 5000),
    "a first with a zero byte": lambda plain: plain.update(first="a\0b"),
    "lanes that left before they began": lambda plain: plain.update(left={"1": -5}),
    "lanes that leave in another age": lambda plain: plain.update(left={"1": 2**62}),
    "lanes that are none": lambda plain: plain.update(left={"x": 1}),
}


@pytest.mark.parametrize("what", CRAFTED)
def test_a_pack_that_no_run_has_written_trains_or_is_refused_with_a_sentence(what: str, tiny: Tiny) -> None:
    chosen = varied(tiny, epochs=3)[:2]
    run_many(tasks(chosen, "together"), stop_after(1))
    for number in "01":
        path = Path("together", number, "pack.json")
        plain = read_json(path)
        CRAFTED[what](plain)
        write_json(path, plain)
    try:
        (outcome,) = run_many(tasks(chosen, "together")[:1])
    except ExperimentError as error:
        outcome = error
    assert isinstance(outcome, (Result, ExperimentError)), outcome
    if isinstance(outcome, Result):
        assert outcome.state == "finished"
