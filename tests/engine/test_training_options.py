"""Label smoothing, clipping, max-norm, averaged weights, early stopping, Muon: each against its definition."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from trainings import run

from mnist_exp import config as configs
from mnist_exp.config import SHAPE, Config, Training, classes
from mnist_exp.disk import checkpoint, ledger
from mnist_exp.engine.average import Average
from mnist_exp.engine.closed_form import MLPStack
from mnist_exp.engine.events import Control, EpochEnd, Observer
from mnist_exp.engine.loop import Descent, Progress
from mnist_exp.engine.muon import Muon
from mnist_exp.engine.stack import ModuleStack, Stack
from mnist_exp.errors import ConfigError, Interrupted
from mnist_exp.evaluate.answers import ask, images
from mnist_exp.models import MLP
from mnist_exp.run import build, session
from mnist_exp.run.export import restore
from mnist_exp.run.session import Result, Run

TINY = (
    "data=synthetic",
    "threads=1",
    "data.train_images=300",
    "data.test_images=60",
    "data.val_size=100",
    "hidden=16",
    "tracking=off",
    "checkpoint.model=false",
    "tracking.figures=false",
)


def compose(*overrides: str) -> Config:
    configs.register()
    with hydra.initialize_config_dir(configs.conf_dir(), version_base="1.3"):
        return configs.parse(hydra.compose("train", [*TINY, *overrides]))


def batch(size: int = 32) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    images = torch.randn(size, 784, generator=rng, dtype=torch.float64)
    return images, torch.randint(0, 10, (size,), generator=rng)


def networks(*shapes: dict[str, Any]) -> list[MLP]:
    made = []
    for seed, shape in enumerate(shapes):
        torch.manual_seed(seed)
        made.append(MLP(**shape).double())
    return made


def by_autograd(network: MLP, training: Training) -> list[Tensor]:
    images, labels = batch()
    network.zero_grad()
    cross_entropy(network(images), labels, label_smoothing=training.label_smoothing).backward()
    if training.clip:
        nn.utils.clip_grad_norm_(network.parameters(), training.clip)
    return [p.grad for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("activation", ["relu", "scaled_tanh"])
@pytest.mark.parametrize(
    "training",
    [Training(label_smoothing=0.2), Training(clip=1.0), Training(clip=0.05, label_smoothing=0.1)],
    ids=["smoothing", "clip", "both"],
)
def test_closed_form_has_autograds_gradient(activation: str, training: Training) -> None:
    shapes = [{"hidden": [12, 8], "activation": activation}, {"hidden": [5, 7], "activation": activation}]
    models = networks(*shapes)
    models[1].layers[0].weight.data.mul_(4)  # so that 1.0 clips one lane and not the other
    stack = MLPStack(models, [0, 1], training=training)
    stack.gradient(*batch())
    for lane, model in enumerate(models):
        for grad, wanted in zip(stack.gradients(lane).values(), by_autograd(model, training), strict=True):
            torch.testing.assert_close(grad, wanted, rtol=1e-10, atol=1e-12)


def test_clipping_shortens_one_lane_and_leaves_its_neighbour_alone() -> None:
    models = networks({"hidden": [12, 8]}, {"hidden": [5, 7]})
    models[1].layers[0].weight.data.mul_(4)
    lengths = []
    for training in (Training(), Training(clip=1.0)):
        stack = MLPStack(models, [0, 1], training=training)
        stack.gradient(*batch())
        lengths.append([torch.cat([g.flatten() for g in stack.gradients(i).values()]).norm() for i in range(2)])
    (short, long), (same, clipped) = lengths
    assert short < 1.0 < long
    assert same == short
    assert clipped == pytest.approx(1.0, rel=1e-5)


def stacks(training: Training) -> list[Stack]:
    (network,) = networks({"hidden": [12, 8]})
    return [MLPStack([network], [0], training=training), ModuleStack(network, 0, training, SHAPE)]


def test_both_ways_to_train_agree_on_every_option() -> None:
    training = Training(label_smoothing=0.1, clip=0.5, max_norm=0.6)
    states = []
    for stack in stacks(training):
        optimizer = torch.optim.SGD(stack.groups(), lr=0.5)
        for _ in range(3):
            stack.gradient(*batch())
            optimizer.step()
            stack.constrain()
        states.append({name: w.clone() for name, w in stack.weights(0).items()})
    assert states[0].keys() == states[1].keys()
    for name, weights in states[0].items():
        torch.testing.assert_close(weights, states[1][name])


@pytest.mark.parametrize("kind", [0, 1], ids=["closed_form", "autograd"])
def test_max_norm_shortens_long_rows_only(kind: int) -> None:
    stack = stacks(Training(max_norm=0.6))[kind]
    before = {name: w.clone() for name, w in stack.weights(0).items()}
    stack.constrain()
    for name, weights in stack.weights(0).items():
        if weights.dim() == 1:  # biases are free
            assert torch.equal(weights, before[name])
            continue
        long = before[name].norm(dim=1) > 0.6
        assert torch.equal(weights[~long], before[name][~long])
        assert weights[long].norm(dim=1) == pytest.approx(torch.full((int(long.sum()),), 0.6).double())
    assert any((w.norm(dim=1) > 0.6).any() for w in before.values() if w.dim() == 2)


def test_average_is_the_recursion_that_it_is_said_to_be() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    average = Average(torch.optim.SGD([weight]), decay=0.5)
    wanted = weight.detach().clone()
    for step in range(1, 13):
        weight.data.add_(step)
        average.update(step)
        keep = min(0.5, (1 + step) / (10 + step))
        wanted = keep * wanted + (1 - keep) * weight.detach()
    raw = weight.detach().clone()
    with average.in_use():
        assert weight.detach() == pytest.approx(wanted)
        assert not torch.equal(weight, raw)
    assert torch.equal(weight, raw)


def test_without_decay_there_is_no_average() -> None:
    weight = nn.Parameter(torch.ones(3))
    average = Average(torch.optim.SGD([weight]), decay=0.0)
    weight.data.fill_(7)
    average.update(1)
    with average.in_use():
        assert torch.equal(weight, torch.full((3,), 7.0))
    assert average.values == []


class Recorder(Observer):
    """Remembers what it hears and asks the loop to stop in the epoch after *stop_after*."""

    def __init__(self, control: Control, stop_after: int) -> None:
        self.control, self.stop_after = control, stop_after

    def on_epoch(self, event: EpochEnd) -> None:
        if event.epoch == self.stop_after:
            self.control.signal = 2


def train(folder: Path, *overrides: str, stop_after: int = 0) -> Result:
    def watch(about: Run, control: Control) -> Sequence[Observer]:
        return [Recorder(control, stop_after)]

    return run(compose(*overrides), folder, watch=watch)


def metrics(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line)["metrics"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


EVERYTHING = ("training.ema=0.9", "training.clip=0.5", "training.max_norm=1", "training.label_smoothing=0.1")


@pytest.mark.integration
@pytest.mark.parametrize(
    "options",
    [
        (*EVERYTHING, "augment=combined", "model.dropout=0.3", "schedule=onecycle"),
        (*EVERYTHING, "augment=combined", "model.norm=batch", "model.dropout=0.3"),
        (*EVERYTHING, "augment=shift", "optimizer=muon", "schedule=cosine"),
        ("optimizer=sgd", "training.ema=0.9"),
    ],
    ids=["closed_form", "autograd", "muon", "sgd"],
)
def test_two_epochs_and_two_are_four_to_the_last_bit(tmp_path: Path, options: tuple[str, ...]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, *options, "epochs=4")
    with pytest.raises(Interrupted):
        train(parts, *options, "epochs=4", stop_after=2)
    assert len(metrics(parts)) == 2
    train(parts, *options, "epochs=4")
    assert metrics(parts) == metrics(whole)
    for name in ("weights", "averaged"):
        states = [checkpoint.load_last(folder / "checkpoints") for folder in (whole, parts)]
        first, second = (getattr(state, name) for state in states)
        assert first.keys() == second.keys()
        assert first
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_warm_up_knows_how_many_steps_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[float] = []

    def fit(stack: object, descent: Descent, splits: object, order: object, progress: Progress, *_: object) -> None:
        first.append(descent.schedule(0.0))
        progress.alive.clear()

    monkeypatch.setattr(session, "fit", fit)
    run(compose("schedule.warmup=0.5", "batch_size=40", "epochs=2"), tmp_path)  # 2 epochs of 5 steps
    assert first == [1 / 5]


@pytest.mark.integration
def test_the_averaged_weights_are_evaluated_and_exported(tmp_path: Path) -> None:
    options = ("training.ema=0.99", "lr=0.01", "epochs=4")
    result = train(tmp_path / "run", *options)
    state = checkpoint.load_last(tmp_path / "run" / "checkpoints")
    assert state is not None
    exported = safetensors.torch.load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(exported[name], state.averaged[name]) for name in state.averaged)
    assert not torch.equal(exported["layers.0.weight"], state.weights["layers.0.weight"])
    train(tmp_path / "plain", *options[1:])
    plain = checkpoint.load_last(tmp_path / "plain" / "checkpoints")
    assert plain is not None
    assert plain.averaged == {}
    assert all(torch.equal(plain.weights[n], state.weights[n]) for n in plain.weights)  # training itself is the same
    assert result.summary["final/val_loss"] != metrics(tmp_path / "plain")[-1]["val/loss"]
    assert result.summary["final/val_accuracy"] > 0.5  # the average moves along


@pytest.mark.integration
@pytest.mark.parametrize("network", ["model.norm=none", "model.norm=layer"], ids=["closed_form", "autograd"])
def test_each_option_reaches_the_step(tmp_path: Path, network: str) -> None:
    def weights(name: str, *options: str) -> dict[str, Tensor]:
        train(tmp_path / name, network, "epochs=1", *options)
        return safetensors.torch.load_file(tmp_path / name / "weights.safetensors")

    plain = weights("plain")
    for option in ("label_smoothing=0.1", "clip=0.01", "max_norm=0.3"):
        changed = weights(option, f"training.{option}")
        assert not torch.equal(changed["layers.0.weight"], plain["layers.0.weight"]), option
        assert changed["layers.0.weight"].norm(dim=1).max() <= 0.3001 or option != "max_norm=0.3"
    assert plain["layers.0.weight"].norm(dim=1).max() > 0.31


def test_reported_training_loss_is_plain_cross_entropy(tmp_path: Path) -> None:
    """At a learning rate of almost nothing the weights stay, so smoothing must not show."""
    for name, smoothing in (("plain", 0.0), ("smooth", 0.5)):
        train(tmp_path / name, f"training.label_smoothing={smoothing}", "lr=1e-12", "epochs=1")
    losses = [metrics(tmp_path / name)[0]["train/loss"] for name in ("plain", "smooth")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_early_stopping_waits_for_patience_epochs_and_says_why(tmp_path: Path) -> None:
    result = train(tmp_path / "run", "training.patience=2", "lr=1e-12", "epochs=50")
    assert result.state == "finished"
    assert result.reason == "Validation accuracy was best after epoch 1 of 3: its weights are kept."
    assert len(metrics(tmp_path / "run")) == 3
    assert (tmp_path / "run" / "weights.safetensors").exists()


@pytest.mark.integration
@pytest.mark.parametrize(("patience", "epochs"), [(2, 50), (9, 6)], ids=["stopped", "to the end"])
def test_with_patience_the_weights_and_the_final_metrics_are_those_of_the_best_epoch(
    patience: int, epochs: int, tmp_path: Path
) -> None:
    typed = [f"training.patience={patience}", f"epochs={epochs}", "lr=0.3", "schedule=constant"]
    result = train(tmp_path / "run", *typed)
    rows = metrics(tmp_path / "run")
    accuracies = [row["val/accuracy"] for row in rows]
    best = accuracies.index(max(accuracies))
    assert best < len(rows) - 1
    assert result.summary["best/epoch"] == best + 1
    assert result.objective == accuracies[best]
    assert result.reason == f"Validation accuracy was best after epoch {best + 1} of {len(rows)}: its weights are kept."
    config = compose(*typed)
    answers = ask(restore(config, tmp_path / "run"), *images(config.data, "test", ""), classes(config.data))
    assert answers.accuracy == result.summary["final/test_accuracy"]
    assert answers.loss == pytest.approx(result.summary["final/test_loss"], rel=1e-5)
    assert answers.loss == pytest.approx(rows[best]["test/loss"], rel=1e-5)
    assert answers.loss != pytest.approx(rows[-1]["test/loss"], rel=1e-3)


def test_early_stopping_resumes_where_it_was(tmp_path: Path) -> None:
    options = ("training.patience=3", "lr=1e-12", "epochs=50")
    with pytest.raises(Interrupted):
        train(tmp_path / "run", *options, stop_after=2)
    train(tmp_path / "run", *options)
    assert len(metrics(tmp_path / "run")) == 4
    assert ledger.read(tmp_path / "run").state == "finished"


def test_muon_moves_hidden_matrices_and_adamw_the_rest() -> None:
    torch.manual_seed(0)
    network = MLP([12, 8], activation="tanh")
    images, labels = batch()
    start = {n: p.detach().clone() for n, p in network.named_parameters()}
    cross_entropy(network(images.float()), labels).backward()
    Muon(network.parameters(), lr=0.1, weight_decay=0.0).step()
    moved = {n: p.detach() - start[n] for n, p in network.named_parameters()}
    for name in ("layers.0.weight", "layers.2.weight"):  # orthogonal up to Newton-Schulz: singular values near one
        values = torch.linalg.svdvals(moved[name]) / (0.1 * 0.2 * max(moved[name].shape) ** 0.5)
        assert 0.5 < values.min() <= values.max() < 1.5
    for name in ("layers.0.bias", "layers.4.weight", "layers.4.bias"):  # Adam's first step has the size of lr
        assert moved[name].abs().max() == pytest.approx(0.1, rel=1e-3)


def test_muon_does_not_train_in_closed_form() -> None:
    for optimizer, method in (("muon", "autograd"), ("adam", "closed-form gradients")):
        config = compose(f"optimizer={optimizer}")
        assert build.stack([config], [build.model(config)], torch.device("cpu"))[1] == method


def test_muon_without_a_hidden_matrix_is_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    optimizers = [Muon(ours.parameters(), lr=0.1), torch.optim.AdamW(theirs.parameters(), lr=0.1, fused=True)]
    for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
        layer(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.label_smoothing=1", "training.label_smoothing must be at least 0 and below 1"),
        ("training.ema=nan", "training.ema must be at least 0 and below 1"),
        ("training.clip=0", "training.clip must be a finite number > 0"),
        ("training.max_norm=inf", "training.max_norm must be a finite number > 0"),
        ("training.clip=1e-300", "training.clip must be a finite number > 0 in float32, but got 1e-300."),
        ("training.patience=0", "training.patience must be at least 1"),
        ("training.cilp=1", "training.cilp"),
    ],
)
def test_values_out_of_range_are_refused_by_name(override: str, says: str) -> None:
    with pytest.raises(Exception, match=says):
        compose(override)


def test_patience_needs_validation_images() -> None:
    with pytest.raises(ConfigError, match=r"data\.val_size is 0"):
        compose("training.patience=3", "data.val_size=0")


@pytest.mark.parametrize(("init", "std"), [("he", 0.0505), ("glorot", 0.0486), ("lecun", 0.0357)])
def test_initial_weights_have_the_spread_of_their_name(init: str, std: float) -> None:
    torch.manual_seed(0)
    first = MLP(62, init=init).linears()[0]  # 784 inputs, 62 outputs
    assert first.weight.std().item() == pytest.approx(std, rel=0.02)
    assert not first.bias.any()


def test_initial_weights_of_a_given_scale() -> None:
    assert MLP(64, init="normal", init_scale=0.05).linears()[0].weight.std().item() == pytest.approx(0.05, rel=0.02)
    assert MLP(64, init="uniform", init_scale=0.05).linears()[0].weight.abs().max().item() == pytest.approx(
        0.05, rel=0.01
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"init": "normal"}, "needs a finite model.init_scale"),
        ({"init": "he", "init_scale": 0.1}, "means nothing for model.init=he"),
        ({"init": "zero"}, "model.init must be one of torch, he"),
    ],
)
def test_an_initialisation_that_makes_no_sense_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        MLP(8, **wrong)
