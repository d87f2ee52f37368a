"""Training on Apple's GPU, which has no float64; here on one that is simulated, so it is the CPU's to the last bit."""

from pathlib import Path

import pytest
import torch
import trainings
from samples import TINY
from simulated import MPS, simulated_mps  # noqa: F401  # a fixture
from trainings import KINDS, Compose, interrupted, outcome

from mnist_exp.engine import products

ON_MPS = [*(o for o in TINY if o != "device=cpu"), "device=mps"]


@pytest.mark.integration
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"bf16", "autograd", "convolutions"}))
def test_a_run_on_mps(
    kind: str, composed: Compose, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "onednn_pays", lambda: False)  # it is for CPUs
    overrides = [*KINDS[kind], "training.ema=0.9"]
    trainings.run(composed(*TINY, *overrides), Path("cpu"))
    request.getfixturevalue("simulated_mps")
    config = composed(*ON_MPS, *overrides)
    interrupted(config, Path("mps"), after=1)
    trainings.run(config, Path("mps"))
    assert outcome(Path("mps")) == outcome(Path("cpu"))


def test_meta_the_simulated_device_has_no_float64(simulated_mps: None) -> None:  # noqa: F811
    tensor = torch.ones(3, device=MPS)
    assert tensor.add_(1).device == MPS
    assert tensor.cpu().double().tolist() == [2, 2, 2]
    with pytest.raises(AssertionError, match="no float64"):
        tensor.double()
    with pytest.raises(AssertionError, match="generator is elsewhere"):
        tensor.bernoulli_(0.5, generator=torch.Generator())
    with pytest.raises(AssertionError, match="tensor is elsewhere"):
        tensor.add_(torch.ones(3))
