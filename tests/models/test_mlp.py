"""The networks: their size to the parameter, their shapes, their beginnings."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor, nn

from mnist_exp import system
from mnist_exp.config import Config
from mnist_exp.errors import ConfigError
from mnist_exp.models import MLP, Classifier, export
from mnist_exp.models.mlp import ACTIVATIONS
from mnist_exp.run import build


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({"hidden": 128}, 101_770),  # (784 + 1) * 128 + (128 + 1) * 10
        ({"hidden": 1}, 805),  # 785 + 20
        ({"hidden": [512, 256]}, 535_818),  # 785 * 512 + 513 * 256 + 257 * 10
        ({"hidden": [64, 32, 16]}, 53_018),  # 785 * 64 + 65 * 32 + 33 * 16 + 17 * 10
        ({"hidden": 128, "dropout": 0.5, "input_dropout": 0.2}, 101_770),
        ({"hidden": 128, "norm": "batch"}, 102_026),  # a scale and a shift for each unit
        ({"hidden": 128, "norm": "layer"}, 102_026),
    ],
)
def test_parameter_counts(settings: dict[str, Any], parameters: int) -> None:
    assert count(MLP(**settings)) == parameters


@jaxtyped(typechecker=beartype)
def forward(model: nn.Module, images: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch 10"]:
    return model(images)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_ten_logits_for_each_image(activation: str, norm: str) -> None:
    model = MLP([12, 7], activation, dropout=0.1, norm=norm).eval()
    flat = forward(model, torch.randn(5, 784))
    assert forward(model, torch.randn(1, 1, 28, 28)).isfinite().all()
    assert forward(model, torch.randn(5, 784)).shape == flat.shape


def test_images_and_flat_pixels_are_the_same() -> None:
    model, images = MLP(9), torch.randn(4, 1, 28, 28)
    assert model(images).equal(model(images.flatten(1)))


def test_the_initial_weights_are_those_of_torchs_linear_layers() -> None:
    model = MLP([100, 50])
    for layer in model.linears():
        bound = layer.in_features**-0.5
        for values in (layer.weight, layer.bias):
            assert values.abs().max() <= bound
            if values.numel() > 1000:  # enough to come near the ends
                assert values.abs().max() > 0.98 * bound
                assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_initial_weights_are_a_function_of_the_seed(tiny: Callable[..., Config]) -> None:
    torch.manual_seed(7)
    one = build.model(tiny(seed=1)).state_dict()
    torch.manual_seed(8)
    same, other = build.model(tiny(seed=1)).state_dict(), build.model(tiny(seed=2)).state_dict()
    assert all(one[name].equal(same[name]) for name in one)
    assert not any(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"activation": "rleu"}, "model.activation must be one of relu, tanh, .*, but got 'rleu'"),
        ({"norm": "group"}, "model.norm must be one of none, batch, layer, but got 'group'"),
        ({"dropout": 1.0}, "model.dropout must be at least 0 and below 1, but got 1.0"),
        ({"dropout": float("nan")}, "model.dropout must be at least 0 and below 1, but got nan"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        MLP(8, **settings)


def test_rehearsing_counts_parameters_without_memory(
    composed: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "memory", lambda: 10**11)  # bytes: enough to train it
    config = composed("hidden=[1000000,1000]", "device=cpu")  # 7 GB, if they were made
    assert build.rehearse(config) == 785 * 1_000_000 + 1_000_001 * 1000 + 1001 * 10


def test_a_classifier_takes_pixels_and_gives_probabilities() -> None:
    network = MLP(8)
    classifier = Classifier(network, mean=0.25, std=0.5).eval()
    pixels = torch.randint(0, 256, (3, 1, 28, 28)).float()
    probabilities = classifier(pixels)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    torch.testing.assert_close(probabilities, torch.softmax(network((pixels / 255 - 0.25) / 0.5), 1))


@pytest.mark.integration
def test_two_threads_may_export_at_once() -> None:
    """A sweep that is stopped leaves one that loads the exporter, and a notebook goes on at once."""
    classifiers = [Classifier(MLP(hidden), 0.25, 0.5) for hidden in (4, 8, 12)]
    with ThreadPoolExecutor(len(classifiers)) as threads:
        exported = list(threads.map(export, classifiers))
    assert exported == [export(classifier) for classifier in classifiers]


@pytest.mark.slow  # loads torch's compiler
def test_an_exported_classifier_is_the_same_at_any_batch_size() -> None:
    classifier = Classifier(MLP([8, 4], dropout=0.5, norm="batch"), 0.25, 0.5).eval()
    loaded = torch.export.load(io.BytesIO(export(classifier))).module()
    for batch in (1, 2, 5):
        pixels = torch.randint(0, 256, (batch, 1, 28, 28)).float()
        torch.testing.assert_close(loaded(pixels), classifier(pixels))
