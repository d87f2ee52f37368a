"""The loop learns, repeats itself to the bit, and stops where the numbers stop making sense."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trainings
from torch import nn
from trainings import Listener, networks, trained

from mnist_exp import data
from mnist_exp.config import SHAPE, Config, Training
from mnist_exp.data import Order
from mnist_exp.disk import journal, ledger
from mnist_exp.engine.average import Average
from mnist_exp.engine.closed_form import MLPStack
from mnist_exp.engine.events import Control
from mnist_exp.engine.fused import Fused
from mnist_exp.engine.loop import Descent, Progress, evaluate, fit
from mnist_exp.engine.schedules import Constant
from mnist_exp.engine.stack import ModuleStack
from mnist_exp.errors import DivergedError, Interrupted
from mnist_exp.run import build

Tiny = Callable[..., Config]
CPU = torch.device("cpu")


def test_an_untrained_network_knows_nothing(tiny: Tiny) -> None:
    """Ten digits, equally likely: a loss of ln 10, with the default initialisation."""
    config = tiny(hidden=128, data={"train_images": 1000})
    stack, _ = build.stack([config], [build.model(config)], CPU)
    (loss,), (accuracy,), *_ = evaluate(stack, data.load(config.data, CPU).train)
    assert loss == pytest.approx(math.log(10), abs=0.1)
    assert accuracy < 0.3


@pytest.mark.parametrize("activation", ["relu", "gelu"], ids=["closed form", "autograd"])
def test_32_images_are_learnt_by_heart(activation: str, tiny: Tiny) -> None:
    size = {"train_images": 32, "val_size": 0}
    config = tiny(hidden=64, epochs=40, lr=3e-3, data=size, model={"activation": activation})
    result = trainings.run(config, Path("run"))
    assert result.summary["final/train_accuracy"] == 1
    assert result.summary["final/train_loss"] < 0.05


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model": {"dropout": 0.3}},
        {"model": {"dropout": 0.3, "norm": "batch"}},
        {"precision": "bf16"},
    ],
    ids=["closed form", "dropout", "autograd", "bf16"],
)
def test_the_same_seed_gives_the_same_bits(settings: dict[str, Any], tiny: Tiny) -> None:
    def weights(name: str, seed: int) -> bytes:
        torch.manual_seed(hash(name))  # what ran before in this process must not matter
        return (trainings.run(tiny(seed=seed, **settings), Path(name)).folder / "weights.safetensors").read_bytes()

    assert weights("one", 0) == weights("two", 0)
    assert weights("one-other", 1) != weights("one-more", 0)


def test_the_order_follows_the_seed_unless_it_has_its_own(tiny: Tiny) -> None:
    def loss(order_seed: int | None) -> float:
        folder = Path(f"order-{order_seed}")
        trainings.run(tiny(seed=0, epochs=1, data={"order_seed": order_seed}), folder)
        return float(journal.read(folder)[0]["metrics"]["train/loss"])

    assert loss(None) == loss(0) != loss(7)


@pytest.mark.parametrize("activation", ["relu", "gelu"], ids=["closed form", "autograd"])
def test_a_loss_that_is_not_finite_fails_the_run_and_names_the_window(activation: str, tiny: Tiny) -> None:
    config = tiny(lr=1e30, optimizer={"_target_": "torch.optim.AdamW"}, model={"activation": activation})
    with pytest.raises(DivergedError, match=r"The loss is not finite somewhere in steps 1 to 7\. Lower lr, now 1e30"):
        trainings.run(config, Path("run"))
    entry = ledger.read(Path("run"))
    assert entry.state == "failed"
    assert entry.reason.startswith("The loss is not finite")
    assert entry.ended_ms
    assert journal.read(Path("run")) == []
    assert not Path("run/weights.safetensors").exists()


def test_a_window_is_looked_at_before_the_epoch_ends(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_exp.engine.loop.WINDOW", 3)
    splits = data.load(tiny().data, CPU)  # 7 steps an epoch
    listener = trained(MLPStack(networks(16), [0]), splits, lr=math.inf)
    assert [end.reason for end in listener.ends] == [
        "The loss is not finite somewhere in steps 1 to 3. Lower lr, now inf."
    ]


def test_a_failing_lane_leaves_its_neighbours_alone(tiny: Tiny) -> None:
    splits = data.load(tiny().data, CPU)
    stack = MLPStack(networks(16, 12, 16), [0, 1, 2], sets=[0, 1, 2])
    listener = trained(stack, splits, lr=[0.05, 1e30, 0.05], epochs=1)
    alone = [MLPStack([network], [0]) for network in (networks(16, 12, 16)[0], networks(16, 12, 16)[2])]
    for lane, single in zip((0, 2), alone, strict=True):
        expected = trained(single, splits, epochs=1)
        events = [event for event in listener.epochs if event.lane == lane]
        for ours, theirs in zip(events, expected.epochs, strict=True):
            assert ours.metrics["test/loss"] == pytest.approx(theirs.metrics["test/loss"], rel=1e-4)
        for name, tensor in single.weights(0).items():
            torch.testing.assert_close(stack.weights(lane)[name], tensor, atol=1e-5, rtol=1e-4)
    assert [(end.lane, end.state) for end in listener.ends] == [(1, "failed"), (0, "finished"), (2, "finished")]
    assert not [event for event in listener.epochs if event.lane == 1]


def test_a_placeholder_has_no_events(tiny: Tiny) -> None:
    splits, listener = data.load(tiny().data, CPU), Listener()
    stack = MLPStack(networks(16, 12), [0, 1])
    optimizer = Fused(torch.optim.SGD, [{**g, "lr": 0.05, "initial_lr": 0.05} for g in stack.groups()], momentum=0.0)
    order, descent = (
        Order(splits.train.rows, 16, 0),
        Descent(optimizer, Constant(), Average(optimizer, decay=0), [0.05] * 9),
    )
    fit(stack, descent, splits, order, Progress(epochs=2, alive={1}), {0: [listener], 1: [listener]}, Control())
    assert [(event.lane, event.epoch) for event in listener.epochs] == [(1, 1), (1, 2)]
    assert [end.lane for end in listener.ends] == [1]


def test_an_observer_gets_each_epoch_in_order_and_one_end(tiny: Tiny) -> None:
    splits = data.load(tiny().data, CPU)
    listener = trained(MLPStack(networks(8, 8), [0, 1]), splits, epochs=3)
    for lane in (0, 1):
        events = [event for event in listener.epochs if event.lane == lane]
        assert [event.epoch for event in events] == [1, 2, 3]
        assert [event.step for event in events] == [7, 14, 21]
    assert [end.state for end in listener.ends] == ["finished", "finished"]


def test_metrics_are_means_over_images_not_batches(tiny: Tiny) -> None:
    """The last batch is smaller; with a learning rate of 0 the epoch's means are those of one pass."""
    splits = data.load(tiny().data, CPU)
    stack = MLPStack(networks(8), [0])
    (event,) = trained(stack, splits, epochs=1, lr=0.0).epochs
    images, labels = splits.train.take(splits.train.rows)
    logits = stack.logits(images)[0].t()
    assert event.metrics["train/loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert event.metrics["train/accuracy"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert next(iter(event.metrics)) == "test/accuracy"  # MLflow's compare page preselects the first


def test_best_means_more_than_any_before(tiny: Tiny) -> None:
    splits = data.load(tiny().data, CPU)
    listener = trained(MLPStack(networks(16), [0]), splits, epochs=6)
    highest = -1.0
    for event in listener.epochs:
        assert event.best is (event.metrics["val/accuracy"] > highest)
        highest = max(highest, event.metrics["val/accuracy"])


def test_without_validation_the_last_epoch_is_the_best(tiny: Tiny) -> None:
    splits = data.load(tiny(data={"val_size": 0}).data, CPU)
    listener = trained(MLPStack(networks(16), [0]), splits, epochs=3)
    assert all(event.best for event in listener.epochs)
    assert "val/loss" not in listener.epochs[0].metrics


def test_the_schedule_is_asked_at_each_step(tiny: Tiny) -> None:
    asked: list[float] = []

    def schedule(progress: float) -> float:
        asked.append(progress)
        return 1.0

    trained(MLPStack(networks(4), [0]), data.load(tiny().data, CPU), epochs=2, schedule=schedule)
    assert asked == [step / 14 for step in range(14)]


def test_a_request_to_stop_is_heard_after_the_batch(tiny: Tiny) -> None:
    control = Control()

    def schedule(progress: float) -> float:
        control.signal = 15 if progress >= 8 / 14 else 0
        return 1.0

    with pytest.raises(Interrupted, match="Stopped in epoch 2") as stopped:
        trained(MLPStack(networks(4), [0]), data.load(tiny().data, CPU), schedule=schedule, control=control)
    assert control.step == 9
    assert stopped.value.exit_code == 143


def test_autograd_and_closed_form_learn_the_same(tiny: Tiny) -> None:
    splits = data.load(tiny().data, CPU)
    one = trained(MLPStack(networks(16), [0]), splits, epochs=3, momentum=0.9)
    two = trained(ModuleStack(networks(16)[0], 0, Training(), SHAPE), splits, epochs=3, momentum=0.9)
    for ours, theirs in zip(one.epochs, two.epochs, strict=True):
        for key in ("train/loss", "val/loss", "test/loss"):
            assert ours.metrics[key] == pytest.approx(theirs.metrics[key], rel=1e-4)
