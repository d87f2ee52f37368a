"""Networks fit the images and classes of the dataset, or are refused before anything starts."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mnist_exp.config import Config
from mnist_exp.errors import ConfigError
from mnist_exp.run import build

Compose = Callable[..., Config]
LETTERS = ("data=synthetic", "data.num_classes=26", "data.channels=3", "data.height=32", "data.width=24", "device=cpu")


class Looks(nn.Module):
    """Looks at a number, which a network without memory does not have."""

    def __init__(self, shape: tuple[int, int, int], outputs: int = 10) -> None:
        super().__init__()
        self.layer = nn.Linear(shape[0] * shape[1] * shape[2], outputs)

    def forward(self, images: Tensor) -> Tensor:
        assert float(images.sum()) == 0
        logits: Tensor = self.layer(images.flatten(1))
        return logits


@pytest.mark.integration
@pytest.mark.parametrize("name", ["mlp", "small_cnn", "strong_cnn", "five_conv_cnn", "simard_cnn"])
def test_a_network_takes_its_shape_from_the_dataset(name: str, composed: Compose) -> None:
    config = composed(*LETTERS, f"model={name}")
    assert build.rehearse(config) > 10_000
    network = build.model(config).eval()
    images = torch.randn(2, 3 * 32 * 24)
    logits = build.stack([config], [network], torch.device("cpu"))[0].logits(images)
    assert logits.shape == (1, 26, 2)
    torch.testing.assert_close(logits[0].t(), network(images.view(2, 3, 32, 24)))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=small_cnn", "data.height=8", "data.width=8"], r"^SmallCNN cannot take images of 8x8: .* its kernels"),
        (["+model.classes=11"], r"^MLP makes 11 outputs, but synthetic has 10 classes \(data\.num_classes\)\."),
        (
            ["model=custom", "hidden=null", f"model._target_={__name__}.Looks", "+model.outputs=11"],
            "^Looks makes 11 outputs, but synthetic has 10 classes",
        ),
        (
            ["model=custom", "hidden=null", "model._target_=faulty.Faulty", "data.channels=3"],
            r"^Faulty does not take the images of synthetic, 3x28x28: mat1 and mat2 shapes cannot be multiplied",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_refused(overrides: list[str], said: str, composed: Compose) -> None:
    with pytest.raises(ConfigError, match=said):
        build.rehearse(composed("data=synthetic", "device=cpu", *overrides))


def test_a_network_that_looks_at_numbers_may(composed: Compose) -> None:
    own = ["model=custom", "hidden=null", f"model._target_={__name__}.Looks"]
    assert build.rehearse(composed("data=synthetic", "device=cpu", *own)) == 7850


@pytest.mark.integration
@pytest.mark.parametrize("name", ["shift", "affine", "elastic", "combined"])
def test_augmentation_takes_its_shape_from_the_dataset(name: str, composed: Compose) -> None:
    augment = build.augment(composed(*LETTERS, f"augment={name}"))
    assert augment is not None
    pixels = torch.full((4, 3, 32, 24), 255.0)
    varied = augment(pixels, torch.Generator().manual_seed(0))
    assert varied.shape == pixels.shape
    assert 0.5 < varied.mean() / 255 <= 1


@pytest.mark.integration
@pytest.mark.parametrize(
    ("overrides", "cuda", "expected"),
    [
        ([], False, "cpu"),
        (["hidden=256"], False, "cpu"),
        (["hidden=[4096,4096]", "batch_size=256"], False, "mps"),
        (["model=small_cnn"], False, "mps"),
        (["model=small_cnn"], True, "cuda"),
        (["device=mps"], False, "mps"),
        (["model=small_cnn", "device=cpu"], False, "cpu"),
    ],
)
def test_apples_gpu_is_taken_where_it_is_likely_to_pay(
    overrides: list[str], cuda: bool, expected: str, composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert build.device(composed("data=synthetic", *overrides)).type == expected


@pytest.mark.integration
def test_a_rehearsal_loads_nothing_heavy() -> None:
    code = (
        "import sys; from mnist_exp import config; from mnist_exp.run import build\n"
        "for model in ('mlp', 'small_cnn'):\n"
        "    build.rehearse(config.compose(['data=synthetic', 'device=cpu', f'model={model}']))\n"
        "print('sympy' in sys.modules)"
    )  # a product without memory would load it, in a second
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
