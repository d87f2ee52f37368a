"""Convolutional networks: size, shapes, deployment."""

import io

import pytest
import torch
from torch import nn

from mnist_exp.errors import ConfigError
from mnist_exp.models import Classifier, FiveConvCNN, SimardCNN, SmallCNN, StrongCNN, export

PARAMETERS = {SmallCNN: 215_194, FiveConvCNN: 1_128_180, SimardCNN: 132_540, StrongCNN: 210_354}


@pytest.mark.parametrize("network", PARAMETERS)
def test_parameter_count_is_the_one_in_the_docstring(network: type[nn.Module]) -> None:
    assert sum(p.numel() for p in network().parameters()) == PARAMETERS[network]
    assert f"{PARAMETERS[network]:,} parameters" in str(network.__doc__)


@pytest.mark.parametrize("network", PARAMETERS)
def test_maps_images_to_logits_and_every_weight_takes_part(network: type[nn.Module]) -> None:
    model = network()
    logits = model(torch.randn(3, 1, 28, 28))
    assert logits.shape == (3, 10)
    nn.functional.cross_entropy(logits, torch.tensor([1, 2, 3])).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("network", PARAMETERS)
def test_exports_to_a_graph_that_gives_the_same_probabilities(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    classifier = Classifier(network(), mean=0.13, std=0.31).eval()
    pixels = torch.randint(0, 256, (5, 1, 28, 28)).float()
    program = torch.export.load(io.BytesIO(export(classifier)))
    assert torch.allclose(program.module()(pixels), classifier(pixels), atol=1e-6)


def test_the_doubled_edge_of_simards_network_is_background() -> None:
    black = torch.full((1, 1, 28, 28), -0.4242)
    assert (SimardCNN().layers[0](black) == -0.4242).all()


@pytest.mark.parametrize("channels", [[8, 8, 8, 8], [8, 8, 0, 8, 8]])
def test_a_strong_network_has_five_convolutions(channels: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"model\.channels must be five numbers, each at least 1, but got \[8, 8"):
        StrongCNN(channels)


@pytest.mark.parametrize("network", PARAMETERS)
@pytest.mark.parametrize("sides", [(28, 28), (32, 24), (33, 31), (29, 40)])
def test_other_sizes_have_the_head_that_fits(network: type[nn.Module], sides: tuple[int, int]) -> None:
    model = network(shape=(3, *sides), classes=47)
    assert model.eval()(torch.randn(2, 3, *sides)).shape == (2, 47)


def test_images_smaller_than_the_kernels_are_refused() -> None:
    with pytest.raises(ConfigError, match="SmallCNN cannot take images of 3x11x30: they are smaller than its kernels"):
        SmallCNN(shape=(3, 11, 30))
    assert SmallCNN(shape=(3, 12, 30))
