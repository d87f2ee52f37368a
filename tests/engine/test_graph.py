"""A step that is recorded and replayed trains as one that runs; here under a CUDA graph's rules, on the CPU.

tests/services/test_gpu.py holds the same against real graphs.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trainings
from counting import operations
from samples import TINY
from tape import TapeRecorder
from torch import Tensor
from trainings import KINDS, RATE, Compose, interrupted, lanes, losses, networks, outcome, tasks, trained

from mnist_exp import data
from mnist_exp.config import SHAPE, Config, Precision, Training
from mnist_exp.engine import graph, loop
from mnist_exp.engine.closed_form import MLPStack
from mnist_exp.engine.events import Control
from mnist_exp.engine.loop import Tally
from mnist_exp.engine.stack import ModuleStack
from mnist_exp.errors import DivergedError
from mnist_exp.run import build, session
from mnist_exp.run.pack import set_up_torch

CPU = torch.device("cpu")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps are recorded on the CPU too; has one item for each recording."""
    recordings: list[int] = []

    class Counting(TapeRecorder):
        def record(self, work: Callable[[], Any], generators: list[torch.Generator]) -> Callable[[], Any]:
            recordings.append(1)
            return super().record(work, generators)

    monkeypatch.setattr(graph, "_on_cuda", lambda optimizer: True)
    monkeypatch.setattr(graph, "Recorder", Counting)
    return recordings


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_recorded_or_not(
    kind: str, composed: Compose, recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(*TINY, *KINDS[kind], *RATE, "epochs=3")
    trainings.run(config, Path("recorded"))
    assert len(recorded) == 1
    monkeypatch.setattr(graph, "_on_cuda", lambda optimizer: False)
    trainings.run(config, Path("plain"))
    assert outcome(Path("recorded")) == outcome(Path("plain"))
    assert len(recorded) == 1


@pytest.mark.integration
def test_lanes_of_a_pack_are_recorded_in_one_graph(
    composed: Compose, recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    session.run_many(tasks(lanes(composed), "recorded"))
    assert len(recorded) == 1
    monkeypatch.setattr(graph, "_on_cuda", lambda optimizer: False)
    session.run_many(tasks(lanes(composed), "plain"))
    for i in range(4):
        assert outcome(Path(f"recorded/{i}")) == outcome(Path(f"plain/{i}"))


@pytest.mark.integration
def test_a_schedule_moves_the_rate_of_a_recorded_step(
    composed: Compose, recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph has its rate in float32, so not to the last bit."""
    config = composed(*TINY, "schedule=cosine", "schedule.warmup=0.3", "lr=0.01", "epochs=3")
    trainings.run(config, Path("recorded"))
    monkeypatch.setattr(graph, "_on_cuda", lambda optimizer: False)
    trainings.run(config, Path("plain"))
    trainings.run(composed(*TINY, "schedule=constant", "lr=0.01", "epochs=3"), Path("constant"))
    ours, theirs, constant = (losses(Path(name)) for name in ("recorded", "plain", "constant"))
    for mine, expected, other in zip(ours, theirs, constant, strict=True):
        assert mine == pytest.approx(expected, rel=1e-5)
        assert mine != pytest.approx(other, rel=1e-3)


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["closed form", "sgd", "dropout", "options", "autograd"])
def test_a_recorded_run_goes_on_bit_for_bit(kind: str, composed: Compose, recorded: list[int]) -> None:
    """After a stop its first steps run as they are, where the undisturbed run replays them."""
    config = composed(*TINY, *KINDS[kind], "schedule=linear", "epochs=3")
    trainings.run(config, Path("whole"))
    interrupted(config, Path("parts"), after=1)
    trainings.run(config, Path("parts"))
    assert outcome(Path("parts")) == outcome(Path("whole"))
    assert len(recorded) == 3


@pytest.mark.integration
def test_a_lane_that_diverges_fails_alone_in_a_graph(composed: Compose, recorded: list[int]) -> None:
    configs = lanes(composed)
    session.run_many(tasks(configs, "good"))
    *_, bad = session.run_many(
        tasks([*configs, composed(*TINY, "data.order_seed=0", "epochs=3", "schedule=constant", "lr=1e30")], "mixed")
    )
    assert isinstance(bad, DivergedError)
    assert "somewhere in steps 1 to 7. Lower lr, now 1e30" in bad.message
    for i in range(4):
        for ours, theirs in zip(losses(Path(f"mixed/{i}")), losses(Path(f"good/{i}")), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.integration
@pytest.mark.parametrize(("augment", "launched"), [("none", 3), ("shift", 4)])
def test_the_host_launches_little_besides_the_graph(
    augment: str, launched: int, composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of the batch, of the logits and of the labels; images are gathered in the graph unless they are varied."""
    counts: list[int] = []

    class Nothing(TapeRecorder):
        def record(self, work: Callable[[], Any], generators: list[torch.Generator]) -> Callable[[], Any]:
            result = work()
            return lambda: result

    class Counted(graph.Graphed):  # type: ignore[misc]  # final
        def __call__(self, *batch_and_factor: Any) -> graph.Scored:
            results: list[graph.Scored] = []
            counts.append(operations(lambda: results.append(super(Counted, self).__call__(*batch_and_factor))))
            return results[0]

    monkeypatch.setattr(graph, "_on_cuda", lambda optimizer: True)
    monkeypatch.setattr(graph, "Recorder", Nothing)
    monkeypatch.setattr(graph, "Graphed", Counted)
    trainings.run(composed(*TINY, f"augment={augment}", "schedule=constant"), Path("run"))
    assert counts[7:13] == [launched] * 6  # the second epoch but for its smaller last batch
    assert counts[0] > launched


@pytest.mark.integration
def test_fewer_batches_than_a_warm_up_are_not_recorded(composed: Compose, recorded: list[int]) -> None:
    trainings.run(composed(*TINY, "batch_size=128", "epochs=3"), Path("run"))
    assert not recorded


@pytest.mark.integration
@pytest.mark.parametrize(
    ("overrides", "noted"),
    [
        ([], "closed-form gradients, CUDA graph"),
        (["optimizer=sgd"], "closed-form gradients, CUDA graph"),
        (["optimizer.fused=false"], "closed-form gradients, no CUDA graph"),
        (["optimizer=muon"], "autograd, no CUDA graph"),
        (["model=strong_cnn", "hidden=null"], "autograd, CUDA graph"),
        (
            ["model=custom", "hidden=null", "model._target_=torch.nn.LazyLinear", "+model.out_features=10"],
            "autograd, no CUDA graph",
        ),
    ],
)
def test_what_cannot_be_recorded_runs_as_it_is_and_the_log_says_so(
    overrides: list[str], noted: str, composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(*TINY, *overrides)
    stack, method = build.stack([config], [build.model(config)], CPU)
    optimizer = build.optimizer(config, stack.groups())
    assert graph.note(stack, optimizer) == ""
    monkeypatch.setattr(graph, "_on_cuda", lambda optimizer: True)
    assert method + graph.note(stack, optimizer) == noted


@pytest.mark.parametrize("promise", [{"recordable": True}, {"recordable": False}, {}])
def test_the_class_of_a_network_says_whether_its_step_can_be_recorded(promise: dict[str, bool]) -> None:
    network = type("Own", (torch.nn.Linear,), promise)(784, 10)
    assert ModuleStack(network, 0, Training(), SHAPE).recordable == (promise == {"recordable": True})


@pytest.mark.parametrize("at_once", [True, False])
def test_windows_are_named_the_same_whenever_they_are_looked_at(
    at_once: bool, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU nothing waits for it before an epoch is over."""
    control, looks = Control(), []
    settle = Tally.settle

    def looking(tally: Tally) -> list[tuple[int, int, int]]:
        looks.append(control.step)
        return settle(tally)

    monkeypatch.setattr(Tally, "settle", looking)
    monkeypatch.setattr(loop, "WINDOW", 3)
    monkeypatch.setattr(loop, "AT_ONCE", {"cpu"} if at_once else set())
    stack = MLPStack(networks(8, 8, 8), [0, 1, 2], sets=[0, 1, 2])
    splits = data.load(tiny().data, CPU)  # 7 steps an epoch
    listener = trained(
        stack,
        splits,
        lr=[0.05, 1e30, 0.1],
        schedule=lambda progress: 1e30 if progress >= 11 / 14 else 1,
        control=control,
    )
    assert [(end.lane, end.reason.partition(" Lower")[0]) for end in listener.ends] == [
        (1, "The loss is not finite somewhere in steps 1 to 3."),
        (0, "The loss is not finite somewhere in steps 11 to 13."),
        (2, "The loss is not finite somewhere in steps 11 to 13."),
    ]
    training = [step for step in looks if step]
    assert [step for i, step in enumerate(training) if step != training[i - 1]] == (
        [3, 6, 7, 10, 13, 14] if at_once else [7, 14]
    )


@pytest.mark.parametrize(("precision", "exact"), [("fp32", True), ("tf32", False), ("bf16", False)])
def test_fp32_on_a_gpu_means_convolutions_too(
    precision: str, exact: bool, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    config = dataclasses.replace(tiny(), precision=Precision[precision])
    set_up_torch(config, torch.device("cuda"), 1)
    assert torch.get_float32_matmul_precision() == ("highest" if exact else "high")
    assert torch.backends.cudnn.allow_tf32 is not exact


def test_deterministic_is_a_setting_of_each_run(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker trains one after another."""
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for asked in (False, True, False):
        set_up_torch(tiny(deterministic=asked), torch.device("cuda"), 1)
        assert torch.are_deterministic_algorithms_enabled() is asked
        assert torch.backends.cudnn.deterministic is asked
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize(
    ("work", "refused"),
    [
        (lambda x, rng: x.mul_(x.sum().item()), "reads a number"),
        (lambda x, rng: x.bernoulli_(0.5, generator=rng), "generator is not registered"),
    ],
)
def test_meta_a_tape_refuses_what_a_capture_would(
    work: Callable[[Tensor, torch.Generator], Tensor], refused: str
) -> None:
    with pytest.raises(AssertionError, match=refused):
        TapeRecorder(CPU).record(lambda: work(torch.ones(3), torch.Generator()), [])


def test_meta_a_tape_keeps_plain_numbers_as_they_were() -> None:
    x, number = torch.zeros(()), torch.ones(())
    numbers = [1.0]
    replay = TapeRecorder(CPU).record(lambda: x.add_(numbers[0]).add_(number).clone(), [])
    first = replay()
    assert first.item() == 2
    numbers[0] = number.fill_(100).item()
    assert replay() is first
    assert first.item() == 2 + 1 + 100
