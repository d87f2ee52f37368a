"""Both libraries that multiply for the closed form, and the choice between them."""

import io
from pathlib import Path

import pytest
import torch
from trainings import LIBRARIES

from mnist_exp import processor
from mnist_exp.engine import products
from mnist_exp.engine.products import ONEDNN, TORCH, Products


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("units", [1, 10, 130])
def test_products_are_those_of_float64(library: Products, units: int) -> None:
    rng = torch.Generator().manual_seed(units)
    weight, images, bias = (torch.randn(*shape, generator=rng) for shape in [(units, 784), (64, 784), (units, 1)])
    back = torch.randn(units, 64, generator=rng)
    out = torch.full((units, 784), torch.nan)
    library.into(out, back, images)
    torch.testing.assert_close(out.double(), back.double() @ images.double(), rtol=1e-5, atol=1e-4)
    exact = torch.addmm(bias.double(), weight.double(), images.t().double())
    torch.testing.assert_close(library.affine(bias, weight, images.t()).double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_same_product_has_the_same_bits_wherever_it_lies(library: Products) -> None:
    back, images = torch.randn(64, 64), torch.randn(64, 784)
    first, second = torch.empty(64, 784), torch.empty(64 * 784 + 3)[3:].view(64, 784)
    library.into(first, back, images)
    shifted = torch.empty(64 * 784 + 1)[1:].view(64, 784).copy_(images)
    library.into(second, back, shifted)
    assert torch.equal(first, second)


@pytest.mark.parametrize("zen5", [True, False])
def test_onednn_multiplies_where_mkl_holds_back(zen5: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "is_zen5", lambda: zen5)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    products.onednn_pays.cache_clear()
    try:
        assert products.onednn_pays() is zen5
        assert products.fastest(torch.zeros(1)) is (ONEDNN if zen5 else TORCH)
        assert products.fastest(torch.zeros(1, dtype=torch.float64)) is TORCH
    finally:
        products.onednn_pays.cache_clear()


PROCESSORS = [("GenuineIntel", 6, True, False), ("AuthenticAMD", 25, False, False), ("AuthenticAMD", 26, False, True)]


@pytest.mark.parametrize(("maker", "family", "intel", "zen5"), PROCESSORS)
def test_the_maker_and_the_family_of_the_processor(
    maker: str, family: int, intel: bool, zen5: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = f"processor\t: 0\nvendor_id\t: {maker}\ncpu family\t: {family}\nmodel\t\t: 17\n"
    monkeypatch.setattr(Path, "open", lambda *_, **__: io.StringIO(lines))
    monkeypatch.setattr(processor, "description", processor.description.__wrapped__)
    assert (processor.is_intel(), processor.is_zen5()) == (intel, zen5)


@pytest.mark.parametrize(
    ("said", "intel", "zen5"),
    [
        ("Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", True, False),
        ("AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD", False, True),
        ("arm", False, False),
        ("", False, False),
    ],
)
def test_without_proc_the_system_says_which_processor_it_is(
    said: str, intel: bool, zen5: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "open", missing)
    monkeypatch.setattr("platform.processor", lambda: said)
    monkeypatch.setattr(processor, "description", processor.description.__wrapped__)
    assert (processor.is_intel(), processor.is_zen5()) == (intel, zen5)
