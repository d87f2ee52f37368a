"""Both libraries that multiply for the closed form, and the choice between them."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from samples import TINY
from trainings import LIBRARIES

from mnist_exp import doctor, processor, system
from mnist_exp.config import Config
from mnist_exp.engine import products
from mnist_exp.engine.products import ONEDNN, TORCH, Products
from mnist_exp.run import build


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


def test_apples_processor_has_products_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch is built with Accelerate there, and without MKL."""
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    monkeypatch.setattr(processor, "is_zen5", lambda: True)
    products.onednn_pays.cache_clear()
    assert products.fastest(torch.ones(1)) is TORCH
    products.onednn_pays.cache_clear()


@pytest.mark.parametrize(("maker", "family", "intel", "zen5"), PROCESSORS)
def test_the_maker_and_the_family_of_the_processor(
    maker: str, family: int, intel: bool, zen5: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = f"processor\t: 0\nvendor_id\t: {maker}\ncpu family\t: {family}\nmodel\t\t: 17\n"
    monkeypatch.setattr(Path, "open", lambda *_, **__: io.StringIO(lines))
    monkeypatch.setattr(system, "processor", system.processor.__wrapped__)
    assert (processor.is_intel(), processor.is_zen5()) == (intel, zen5)


FLAGS = "processor\t: 0\nflags\t\t: fpu vme {} avx512f\nbugs\t\t: avx512_bf16"


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        (FLAGS.format("avx512_bf16"), False),
        (FLAGS.format("amx_bf16 amx_tile"), False),
        (FLAGS.format("avx2"), True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16", False),
        ("processor\t: 0\nFeatures\t: fp asimd", True),
        ("arm", False),
    ],
)
def test_what_is_said_of_a_processor_without_bfloat16(
    said: str, lacks: bool, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing where it is not known, and nothing of another device or precision."""
    monkeypatch.setattr(system, "processor", lambda: said)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert bool(build.advice(tiny(precision="bf16"), cpu)) is lacks
    assert not build.advice(tiny(precision="bf16"), gpu)
    assert not build.advice(tiny(), cpu)


@pytest.mark.integration
def test_the_header_and_the_doctor_warn_of_bf16_without_bfloat16(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "processor", lambda: FLAGS.format("avx2"))
    code, out, _ = command(*TINY, "precision=bf16", "epochs=1", "hydra.run.dir=run")
    said = "This processor has no bfloat16: precision=bf16 is many times slower on it than fp32."
    assert code == 0
    assert said in " ".join(out.split())
    assert said in Path("run/train.log").read_text()
    assert said in [check.finding for check in doctor.device()]


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
    monkeypatch.setattr(system, "processor", system.processor.__wrapped__)
    assert (processor.is_intel(), processor.is_zen5()) == (intel, zen5)
