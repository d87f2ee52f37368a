"""What a pack costs in operations, of which a GPU launches each: as many for 64 lanes as for two."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from counting import operations
from samples import TINY
from trainings import Compose, lanes, losses, outcome, tasks

from mnist_exp.config import Config, Training
from mnist_exp.engine.closed_form import MLPStack
from mnist_exp.models import MLP
from mnist_exp.run import build, session

CPU, GPU = torch.device("cpu"), torch.device("cuda")
OPTIMIZERS = {
    "adam": [],
    "L2": ["optimizer.weight_decay=0.01"],
    "adamw": ["optimizer=adamw"],
    "momentum": ["optimizer=sgd", "lr=0.05"],
    "nesterov": ["optimizer=sgd", "optimizer.nesterov=true"],
}


def images(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(count, 784, generator=rng), torch.randint(0, 10, (count,), generator=rng)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stacks and parameter groups of a GPU, whose operations the CPU does."""
    monkeypatch.setattr(build, "_update", lambda config, where, update=build._update: update(config, GPU))


def step(configs: list[Config]) -> Callable[[], Any]:
    stack, _ = build.stack(configs, [build.model(config) for config in configs], CPU)
    optimizer, batch = build.optimizer(configs[0], build.groups(configs, stack)), images()

    def work() -> None:
        stack.gradient(*batch)
        optimizer.step()
        stack.constrain()

    with torch.no_grad():
        work()  # the first makes the optimiser's state
    return work


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["adam", "adamw", "momentum"])
def test_rates_of_their_own_cost_no_operations_of_their_own(kind: str, composed: Compose, as_on_a_gpu: None) -> None:
    def configs(count: int) -> list[Config]:
        return [dataclasses.replace(config, lr=0.001 * (1 + i / 100)) for i in range(count)]

    config = composed(*TINY, *OPTIMIZERS[kind], "hidden=8")
    few, many = (operations(step(configs(count))) for count in (2, 64))
    assert few == many <= 45


def test_clipping_costs_no_more_for_more_lanes() -> None:
    def cost(count: int, training: Training) -> int:
        stack = MLPStack([MLP(8) for _ in range(count)], list(range(count)), training=training)
        return operations(lambda: stack.gradient(*images()))

    few, many = (cost(count, Training(clip=1.0)) - cost(count, Training()) for count in (2, 64))
    assert few == many <= 20


@pytest.mark.parametrize("widths", [[[128]], [[16]] * 6, [[33], [100], [7]], [[17, 5], [17, 5], [9, 3]]])
@torch.no_grad()
def test_clipping_has_the_bits_of_clipping_each_lane(widths: list[list[int]]) -> None:
    torch.manual_seed(0)
    models = [MLP(w) for w in widths]
    plain, clipped = (MLPStack(models, list(range(len(models))), training=Training(clip=c)) for c in (None, 0.5))
    for stack in (plain, clipped):
        stack.gradient(*images())
    for lane in range(len(models)):
        pieces = list(plain.gradients(lane).values())
        torch._foreach_mul_(pieces, (0.5 / (torch.nn.utils.get_total_norm(pieces) + 1e-6)).clamp_(max=1))
        assert all(map(torch.equal, clipped.gradients(lane).values(), pieces))


@pytest.mark.integration
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_one_kernel_for_all_rates_trains_as_a_kernel_each(
    kind: str, composed: Compose, request: pytest.FixtureRequest
) -> None:
    configs = lanes(composed, *OPTIMIZERS[kind], "schedule=cosine")
    session.run_many(tasks(configs, "each"))
    request.getfixturevalue("as_on_a_gpu")
    session.run_many(tasks(configs, "all"))
    assert outcome(Path("each/0")) != outcome(Path("all/0"))
    for i in range(len(configs)):
        for ours, theirs in zip(losses(Path(f"all/{i}")), losses(Path(f"each/{i}")), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.integration
def test_lanes_with_other_options_than_the_rate_have_kernels_of_their_own(composed: Compose, as_on_a_gpu: None) -> None:
    own = (["lr=0.001"], ["lr=0.002"], ["lr=0.002", "optimizer.weight_decay=0.1"], ["lr=0.004", "hidden=5"])
    configs = [composed(*TINY, *mine) for mine in own]
    stack, _ = build.stack(configs, [build.model(config) for config in configs], CPU)
    groups = build.groups(configs, stack)
    assert stack.sets == [0, 0, 1, 0]
    assert [group.get("weight_decay") for group in groups] == [None, 0.1]
    rates = [rate for each in groups[0]["rates"] for rate in each.unique().tolist()]
    assert {round(rate, 6) for rate in rates} == {0.001, 0.002, 0.004}
    assert "rates" not in groups[1]


@pytest.mark.integration
def test_a_run_goes_on_bit_for_bit_in_a_pack_with_rates(composed: Compose, as_on_a_gpu: None) -> None:
    for folder, epochs in (("whole", 3), ("parts", 2), ("parts", 3)):
        configs = lanes(composed, f"epochs={epochs}", "force=true", "schedule=constant")
        session.run_many(tasks(configs, folder))
    for i in range(len(configs)):
        assert outcome(Path(f"parts/{i}")) == outcome(Path(f"whole/{i}"))
