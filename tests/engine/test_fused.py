"""Our optimisers are torch's, to the last bit, for every option that they understand."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from mnist_exp.engine import fused
from mnist_exp.engine.fused import Fused

ADAMS = [
    {"lr": lr, "betas": betas, "eps": eps, "weight_decay": decay}
    for (lr, betas), (eps, decay) in itertools.product(
        [(1e-3, (0.9, 0.999)), (0.1, (0.5, 0.9))], [(1e-8, 0.0), (1e-3, 0.0), (1e-8, 0.1)]
    )
]
SGDS = [
    {"lr": 0.1, "momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": decay}
    for momentum, dampening, nesterov in [(0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.5, False), (0.9, 0.0, True)]
    for decay in (0.0, 0.01)
]
CASES = [
    *((torch.optim.Adam, options) for options in ADAMS),
    *((torch.optim.AdamW, options) for options in ADAMS),
    *((torch.optim.SGD, options) for options in SGDS),
]


def parameters() -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=rng).requires_grad_() for shape in [(37, 5), (11,), (1,)]]


def gradient_step(params: list[Tensor], step: int) -> None:
    rng = torch.Generator().manual_seed(100 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=rng)


@pytest.mark.parametrize(("target", "options"), CASES, ids=lambda value: getattr(value, "__name__", "-"))
@torch.no_grad()
def test_the_same_bits_as_torch(target: Any, options: dict[str, Any]) -> None:
    ours, theirs = parameters(), parameters()
    # Two groups, one with a rate of its own, and a schedule that changes both at each step.
    mine = Fused(target, [{"params": ours[:2]}, {"params": ours[2:], "lr": 0.03}], **options)
    model = target([{"params": theirs[:2]}, {"params": theirs[2:], "lr": 0.03}], fused=True, **options)
    for step in range(5):
        for optimizer, params in ((mine, ours), (model, theirs)):
            gradient_step(params, step)
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
            optimizer.step()
        for a, b in zip(ours, theirs, strict=True):
            assert a.equal(b)
    assert not ours[0].equal(parameters()[0])  # something was learnt


@pytest.mark.parametrize("target", fused.OPTIONS, ids=lambda target: target.__name__)
def test_the_defaults_are_torchs(target: Any) -> None:
    defaults = target([torch.zeros(1)]).defaults
    assert {key: defaults[key] for key in fused.OPTIONS[target]} == fused.OPTIONS[target]


@pytest.mark.parametrize("target", fused.OPTIONS, ids=lambda target: target.__name__)
@torch.no_grad()
def test_a_saved_state_goes_on_with_the_same_bits(target: Any) -> None:
    options = {"momentum": 0.9} if target is torch.optim.SGD else {}
    ours, copy = parameters(), parameters()
    mine, second = (Fused(target, [{"params": params}], lr=0.01, **options) for params in (ours, copy))
    for step in range(3):
        gradient_step(ours, step)
        mine.step()
    for a, b in zip(copy, ours, strict=True):
        a.copy_(b)
    second.load_state_dict(mine.state_dict())
    for optimizer, params in ((mine, ours), (second, copy)):
        gradient_step(params, 3)
        optimizer.step()
    assert all(a.equal(b) for a, b in zip(ours, copy, strict=True))
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(_moments(mine), _moments(second), strict=True))


def _moments(optimizer: Fused) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values()]


@torch.no_grad()
def test_parameters_without_gradient_stay() -> None:
    params = parameters()
    gradient_step(params, 0)
    params[1].grad = None
    Fused(torch.optim.Adam, [{"params": params}], lr=0.1).step()
    assert params[1].equal(parameters()[1])
    assert not params[0].equal(parameters()[0])


REFUSED = [
    (torch.optim.Adam, {"lr": -1.0}),
    (torch.optim.Adam, {"betas": (1.0, 0.9)}),
    (torch.optim.Adam, {"betas": (0.9, -0.1)}),
    (torch.optim.Adam, {"eps": -1e-8}),
    (torch.optim.AdamW, {"weight_decay": -0.1}),
    (torch.optim.SGD, {"momentum": -0.5}),
    (torch.optim.SGD, {"nesterov": True}),
    (torch.optim.SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
]


@pytest.mark.parametrize(("target", "options"), REFUSED, ids=str)
def test_what_torch_refuses_is_refused_in_its_words(target: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".") as theirs:
        target(parameters(), **options)
    with pytest.raises(ValueError, match=r".") as ours:
        Fused(target, [{"params": parameters()}], **options)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    ("target", "options", "whether"),
    [
        (torch.optim.Adam, {"lr": 1e-3, "fused": True}, True),
        (torch.optim.Adam, {"amsgrad": False, "foreach": None}, True),
        (torch.optim.Adam, {"amsgrad": True}, False),
        (torch.optim.SGD, {"maximize": True}, False),
        (torch.optim.Adam, {"fused": False}, False),
        (torch.optim.RMSprop, {}, False),
    ],
)
def test_other_options_are_left_to_torch(target: Any, options: dict[str, Any], whether: bool) -> None:
    assert fused.fits(target, options) is whether
