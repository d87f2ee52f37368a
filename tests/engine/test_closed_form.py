"""The written-out gradient is that of autograd, lane by lane, value by value, in float64."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from trainings import LIBRARIES

from mnist_exp.data import mix
from mnist_exp.engine import closed_form, products
from mnist_exp.engine.closed_form import MLPStack
from mnist_exp.engine.fused import Fused
from mnist_exp.models import MLP

# Neighbours with equal widths share their products; others do not.
WIDTHS = {1: [[12], [12], [5]], 2: [[12, 7], [12, 7], [3, 3]], 3: [[8, 6, 4], [4, 6, 8], [4, 6, 8]]}


def networks(depth: int, activation: str = "relu", dropout: float = 0.0, input_dropout: float = 0.0) -> list[MLP]:
    torch.manual_seed(0)
    return [MLP(w, activation, dropout, input_dropout).double() for w in WIDTHS[depth]]


def batch(size: int = 11) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(size, 784, generator=rng, dtype=torch.float64), torch.randint(0, 10, (size,), generator=rng)


@pytest.mark.parametrize("activation", closed_form.ACTIVATIONS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_values_and_gradients_are_those_of_autograd(depth: int, activation: str) -> None:
    models, (images, labels) = networks(depth, activation), batch()
    stack = MLPStack(models, [0, 1, 2])
    logits = stack.gradient(images, labels)
    for lane, model in enumerate(models):
        expected = model(images)
        cross_entropy(expected, labels).backward()
        torch.testing.assert_close(logits[lane].t(), expected)
        torch.testing.assert_close(stack.logits(images)[lane].t(), expected)
        gradients = stack.gradients(lane)
        for name, p in model.named_parameters():
            torch.testing.assert_close(gradients[name], p.grad, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_either_library_gives_the_same_gradients(
    depth: int, library: products.Products, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "fastest", lambda _: library)
    (model, *_), (images, labels) = networks(depth), batch()
    stack = MLPStack([model.float()], [0])
    logits = stack.gradient(images.float(), labels)
    exact = MLPStack([model.double()], [0])
    monkeypatch.setattr(exact, "products", products.TORCH)
    torch.testing.assert_close(logits.double(), exact.gradient(images, labels), rtol=1e-4, atol=1e-5)
    for name, wanted in exact.gradients(0).items():
        torch.testing.assert_close(stack.gradients(0)[name].double(), wanted, rtol=1e-4, atol=1e-5)


def test_the_largest_gradient_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tensor] = []

    def product(a: Tensor, b: Tensor) -> Tensor:
        made.append(a @ b)
        return made[-1]

    stack = MLPStack(networks(1), [0, 1, 2], sets=[0, 0, 1])
    monkeypatch.setattr(stack, "products", products.TORCH._replace(product=product))
    stack.gradient(*batch())
    (whole,) = made
    assert whole.shape == (29, 784)
    for lane, rows in enumerate([slice(0, 12), slice(12, 24), slice(24, 29)]):
        grad = stack.gradients(lane)["layers.0.weight"]
        assert (grad.data_ptr(), grad.shape) == (whole[rows].data_ptr(), whole[rows].shape)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_dropout_is_the_same_function_with_the_same_mask(depth: int) -> None:
    """The masks that a lane draws, put into the plain network by hand."""
    models, (images, labels) = networks(depth, dropout=0.4), batch()
    stack = MLPStack(models, [3, 4, 5])
    stack.reseed(2)
    logits = stack.gradient(images, labels)
    for lane, (model, seed) in enumerate(zip(models, [3, 4, 5], strict=True)):
        rng = torch.Generator().manual_seed(mix(seed, 2, 1))
        output: Tensor = images
        for layer in model.layers:
            if isinstance(layer, nn.Dropout):
                mask = output.new_empty(output.shape[::-1]).bernoulli_(0.6, generator=rng).t() / 0.6
                assert 0 < (mask == 0).double().mean() < 1
                output = output * mask
            else:
                output = layer(output)
        cross_entropy(output, labels).backward()
        torch.testing.assert_close(logits[lane].t(), output)
        gradients = stack.gradients(lane)
        for name, p in model.named_parameters():
            torch.testing.assert_close(gradients[name], p.grad)


def test_input_dropout_hides_pixels_and_keeps_their_mean() -> None:
    models, (images, labels) = networks(1, input_dropout=0.25)[:1], batch(400)
    stack = MLPStack(models, [0])
    stack.reseed(0)
    ones = torch.ones_like(images)
    stack.gradient(ones, labels)
    rng = torch.Generator().manual_seed(mix(0, 0, 1))
    mask = torch.empty_like(ones).bernoulli_(0.75, generator=rng) / 0.75
    assert mask.mean().item() == pytest.approx(1, abs=0.01)
    weight, bias = models[0].linears()[0].weight, models[0].linears()[0].bias
    hidden = torch.relu(mask @ weight.t() + bias)
    delta = torch.softmax(hidden @ models[0].linears()[1].weight.t() + models[0].linears()[1].bias, 1)
    delta = (delta - torch.eye(10, dtype=torch.float64)[labels]) / len(labels)
    torch.testing.assert_close(stack.gradients(0)["layers.3.weight"], delta.t() @ hidden)


def test_in_use_nothing_is_dropped() -> None:
    models, (images, _) = networks(2, dropout=0.5, input_dropout=0.5), batch()
    stack = MLPStack(models, [0, 1, 2])
    for lane, model in enumerate(models):
        torch.testing.assert_close(stack.logits(images)[lane].t(), model.eval()(images))


def test_dropout_differs_between_batches_epochs_and_seeds() -> None:
    models, (images, labels) = networks(1, dropout=0.5)[:1], batch()
    stack = MLPStack(models, [0])

    def drawn(epoch: int, seed: int) -> list[Tensor]:
        stack.seeds[0] = seed
        stack.reseed(epoch)
        return [stack.gradient(images, labels).clone() for _ in range(2)]

    first, second = drawn(0, 0)
    assert not first.equal(second)
    assert first.equal(drawn(0, 0)[0])
    assert not first.equal(drawn(1, 0)[0])
    assert not first.equal(drawn(0, 1)[0])


def test_a_lane_trains_as_it_would_alone() -> None:
    """Ten steps of Adam; in float64 what differs is the order of a sum."""
    models, (images, labels) = networks(2), batch()
    together, alone = MLPStack(models, [0, 1, 2]), [MLPStack([m], [s]) for s, m in enumerate(models)]
    for stack in [together, *alone]:
        optimizer = Fused(torch.optim.Adam, stack.groups(), lr=1e-2)
        for _ in range(10):
            stack.gradient(images, labels)
            optimizer.step()
    for lane, stack in enumerate(alone):
        for name, tensor in stack.weights(0).items():
            torch.testing.assert_close(together.weights(lane)[name], tensor)


def test_sets_of_lanes_have_learning_rates_of_their_own() -> None:
    models, (images, labels) = networks(2), batch()
    together = MLPStack(models, [0, 1, 2], sets=[0, 0, 1])
    groups = together.groups()
    assert len(groups) == 2
    optimizer = Fused(torch.optim.SGD, [{**groups[0], "lr": 0.1}, {**groups[1], "lr": 0.0}])
    before = [{name: w.clone() for name, w in together.weights(lane).items()} for lane in range(3)]
    together.gradient(images, labels)
    optimizer.step()
    for lane in range(3):
        gradients = together.gradients(lane)
        for name, was in before[lane].items():
            rate = 0.0 if lane == 2 else 0.1
            torch.testing.assert_close(together.weights(lane)[name], was - rate * gradients[name])


@pytest.mark.parametrize("sets", [None, [0, 0, 1], [0, 1, 2], [1, 0, 1]])
def test_weights_and_moments_move_from_stack_to_stack(sets: list[int] | None) -> None:
    """A lane of one stack goes on alone where it stopped."""
    models, (images, labels) = networks(2), batch()
    stack = MLPStack(models, [0, 1, 2], sets)
    optimizer = Fused(torch.optim.Adam, stack.groups(), lr=1e-2)
    for _ in range(3):
        stack.gradient(images, labels)
        optimizer.step()
    saved = [({n: w.clone() for n, w in stack.weights(i).items()}, stack.moments(i, optimizer)) for i in range(3)]
    for lane, model in enumerate(models):
        moved = MLPStack([model], [lane])
        after = Fused(torch.optim.Adam, moved.groups(), lr=1e-2)
        moved.restore(0, *saved[lane], after)
        for name, quantities in moved.moments(0, after).items():
            for quantity, value in quantities.items():
                assert value.equal(saved[lane][1][name][quantity]), (name, quantity)
        moved.gradient(images, labels)
        after.step()
        saved[lane] = (moved.weights(0), {})
    stack.gradient(images, labels)
    optimizer.step()
    for lane in range(3):
        for name, tensor in saved[lane][0].items():
            torch.testing.assert_close(stack.weights(lane)[name], tensor)


@pytest.mark.parametrize(
    "maker", [functools.partial(Fused, torch.optim.Adam), functools.partial(torch.optim.Adam, fused=True)]
)
def test_a_state_is_restored_to_the_device_of_the_weights(maker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are on the CPU, and the kernels want all of an optimiser's state, its counter too, on the device."""
    models = networks(1)
    stack = MLPStack(models, [0, 1, 2])
    optimizer = Fused(torch.optim.Adam, stack.groups())
    stack.gradient(*batch())
    optimizer.step()
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device: generator())  # the meta device has none
    away = MLPStack([model.to("meta") for model in models], [0, 1, 2])
    copied = maker(away.groups())
    for lane in range(3):
        away.restore(lane, stack.weights(lane), stack.moments(lane, optimizer), copied)
    for state in copied.state.values():
        assert {name: value.device.type for name, value in state.items()} == dict.fromkeys(
            ("step", "exp_avg", "exp_avg_sq"), "meta"
        )


def test_what_does_not_fit_is_left_to_autograd() -> None:
    assert closed_form.fits(MLP(8, "tanh", dropout=0.5))
    assert not closed_form.fits(MLP(8, "gelu"))
    assert not closed_form.fits(MLP(8, norm="layer"))
    assert not closed_form.fits(nn.Linear(784, 10))


@pytest.mark.parametrize("widths", [[128], [1], [7, 1000, 3], [33, 33, 64]])
def test_rows_of_the_first_layers_begin_where_cache_lines_do(widths: list[int]) -> None:
    """A GPU reads sixteen bytes at a time from such an address only, and a row of weights has 49 cache lines."""
    torch.manual_seed(0)
    stack = MLPStack([MLP(width) for width in widths], list(range(len(widths))), list(range(len(widths))))
    assert [weights.data_ptr() % 64 for weights in stack.first_weight] == [0] * sum(widths)
    assert [leaf.data_ptr() % 64 for _, leaf in stack.first_leaves] == [0] * len(widths)


def test_the_gradient_is_that_of_autograd_for_other_images_and_classes() -> None:
    torch.manual_seed(0)
    models = [MLP(width, shape=(3, 5, 4), classes=26).double() for width in ([6], [6], [9])]
    images, labels = torch.randn(11, 60, dtype=torch.float64), torch.arange(11) + 15
    stack = MLPStack(models, [0, 1, 2])
    assert stack.gradient(images, labels).shape == (3, 26, 11)
    for lane, model in enumerate(models):
        cross_entropy(model(images.view(-1, 3, 5, 4)), labels).backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(stack.gradients(lane)[name], p.grad)
