"""On a GPU: graphs against plain steps, lanes against single runs, precision, and whole commands.

Written without a GPU. tests/engine/test_graph.py has the same rules on the CPU.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import trainings
from samples import TINY
from torch import Tensor
from trainings import KINDS, RATE, assert_alike, interrupted, lanes, losses, outcome, tasks

from mnist_exp.config import Config
from mnist_exp.data import Order
from mnist_exp.disk import journal, ledger
from mnist_exp.disk import lanes as pack_records
from mnist_exp.engine import graph
from mnist_exp.engine.loop import Tally
from mnist_exp.errors import DivergedError
from mnist_exp.run import build, memory, session
from mnist_exp.run.session import Result

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.xdist_group("gpu"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

Compose = Callable[..., Config]
ON_GPU = [*(o for o in TINY if o != "device=cpu"), "device=cuda"]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list with one item for each recorded graph."""
    recordings: list[int] = []
    record = graph.Recorder.record

    def counting(*arguments: Any) -> Callable[[], Tensor]:
        recordings.append(1)
        return record(*arguments)

    monkeypatch.setattr(graph.Recorder, "record", counting)
    return recordings


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables graphs from here on."""
    monkeypatch.setattr(graph, "fits", lambda stack, optimizer: False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_trains_as_plain_steps(
    kind: str, composed: Compose, recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels are the same; convolutions and autograd may sum in a different order each time."""
    config = composed(*ON_GPU, *KINDS[kind], *RATE, "epochs=3")
    trainings.run(config, Path("graph"))
    assert len(recorded) == 1
    plainly(monkeypatch)
    trainings.run(config, Path("plain"))
    assert len(recorded) == 1
    loose = kind in ("autograd", "convolutions", "bf16")
    for ours, theirs in zip(losses(Path("graph")), losses(Path("plain")), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-2 if loose else 1e-5)


@pytest.mark.parametrize("kind", ["closed form", "dropout", "autograd"])
def test_gradients_of_a_replayed_step(kind: str, composed: Compose) -> None:
    """One step, after a few that are not compared: values and gradients, from equal weights and random numbers."""
    config = composed(*ON_GPU, *KINDS[kind])
    rng = torch.Generator().manual_seed(0)
    batches = [(torch.randn(16, 784, generator=rng).cuda(), torch.arange(16).cuda() % 10) for _ in range(6)]

    def seen(replayed: bool) -> list[Tensor]:
        stack, _ = build.stack([config], [build.model(config)], torch.device("cuda"))
        (group,) = stack.groups()

        def step(images: Tensor, labels: Tensor, factor: object) -> tuple[Tensor, Tensor]:
            return stack.gradient(images, labels), labels

        train = graph.Graphed(step, stack.generators()) if replayed else step
        stack.reseed(0)
        for images, labels in batches:
            logits, _ = train(images, labels, 1.0)
        return [logits, *(p.grad.clone() for p in group["params"])]

    for ours, theirs in zip(seen(True), seen(False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_schedule_moves_the_rate_in_a_graph(
    composed: Compose, recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings.run(composed(*ON_GPU, "schedule=cosine", "lr=0.01", "epochs=3"), Path("graph"))
    trainings.run(composed(*ON_GPU, "schedule=constant", "lr=0.01", "epochs=3"), Path("constant"))
    assert len(recorded) == 2
    plainly(monkeypatch)
    trainings.run(composed(*ON_GPU, "schedule=cosine", "lr=0.01", "epochs=3"), Path("plain"))
    ours, theirs, constant = (losses(Path(name)) for name in ("graph", "plain", "constant"))
    for mine, expected, other in zip(ours, theirs, constant, strict=True):
        assert mine == pytest.approx(expected, rel=1e-4)
        assert mine != pytest.approx(other, rel=1e-3)


def test_each_lane_trains_as_it_would_alone_on_a_gpu(composed: Compose, recorded: list[int]) -> None:
    configs = lanes(composed, "device=cuda")
    assert all(isinstance(result, Result) for result in session.run_many(tasks(configs, "together")))
    assert len(recorded) == 1
    for i, config in enumerate(configs):
        trainings.run(config, Path(f"alone/{i}"))
        assert_alike(Path(f"together/{i}"), Path(f"alone/{i}"))


def test_a_lane_that_diverges_fails_alone_on_a_gpu(composed: Compose) -> None:
    configs = lanes(composed, "device=cuda")
    worst = composed(*ON_GPU, "data.order_seed=0", "epochs=3", "schedule=constant", "lr=1e30")
    *good, bad = session.run_many(tasks([*configs, worst], "together"))
    assert isinstance(bad, DivergedError)
    assert "somewhere in steps 1 to 7. Lower lr, now 1e30" in bad.message
    for i, (config, result) in enumerate(zip(configs, good, strict=True)):
        assert isinstance(result, Result)
        trainings.run(config, Path(f"alone/{i}"))
        assert_alike(Path(f"together/{i}"), Path(f"alone/{i}"))


@pytest.mark.parametrize("kind", ["closed form", "adamw", "sgd", "dropout", "options"])
def test_a_run_goes_on_bit_for_bit_on_the_same_gpu(kind: str, composed: Compose) -> None:
    config = composed(*ON_GPU, *KINDS[kind], "schedule=linear", "epochs=4")
    trainings.run(config, Path("whole"))
    interrupted(config, Path("parts"), after=2)
    trainings.run(config, Path("parts"))
    assert outcome(Path("parts")) == outcome(Path("whole"))


@pytest.mark.parametrize("kind", ["convolutions", "autograd"])
def test_a_run_by_autograd_goes_on_bit_for_bit_where_that_is_asked(kind: str, composed: Compose) -> None:
    config = composed(*ON_GPU, *KINDS[kind], "schedule=linear", "epochs=4", "deterministic=true")
    trainings.run(config, Path("whole"))
    interrupted(config, Path("parts"), after=2)
    trainings.run(config, Path("parts"))
    assert outcome(Path("parts")) == outcome(Path("whole"))


def test_a_pack_with_rates_of_their_own_repeats_bit_for_bit(composed: Compose) -> None:
    for folder in ("first", "again"):
        session.run_many(tasks(lanes(composed, "device=cuda", "training.clip=0.5"), folder))
    for i in range(4):
        assert outcome(Path(f"first/{i}")) == outcome(Path(f"again/{i}"))


def test_a_pack_takes_about_the_memory_that_is_expected(composed: Compose) -> None:
    configs = [composed(*ON_GPU, "hidden=512", f"lr={0.001 * (1 + i / 64)}") for i in range(64)]
    expected = sum(memory.of_lane(config, build.model(config)) for config in configs)
    torch.cuda.reset_peak_memory_stats()
    session.run_many(tasks(configs, "pack"))
    assert 0.3 * expected < torch.cuda.max_memory_allocated() < 1.2 * expected


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU only")
def test_the_second_gpu_is_used_alone(composed: Compose) -> None:
    trainings.run(composed(*ON_GPU, "device=cuda:1"), Path("run"))
    assert torch.cuda.current_device() == 1
    assert torch.cuda.memory_allocated(0) == 0


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch calls it a prototype
def test_nothing_waits_for_the_gpu_within_an_epoch(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises at each synchronisation that it detects, from the first batch of an epoch until its scores are read.

    Recording the graph, once, synchronises.
    """
    batches, settle, record, refused = Order.batches, Tally.settle, graph.Recorder.record, []

    def fed(order: Order, epoch: int) -> Iterator[Tensor]:
        for rows in batches(order, epoch):
            torch.cuda.set_sync_debug_mode("error")
            refused.append(1)
            yield rows

    def settled(tally: Tally) -> list[tuple[int, int, int]]:
        torch.cuda.set_sync_debug_mode("default")
        return settle(tally)

    def recording(*arguments: Any) -> Callable[[], Tensor]:
        torch.cuda.set_sync_debug_mode("default")
        replay = record(*arguments)
        torch.cuda.set_sync_debug_mode("error")
        return replay

    monkeypatch.setattr(Order, "batches", fed)
    monkeypatch.setattr(Tally, "settle", settled)
    monkeypatch.setattr(graph.Recorder, "record", recording)
    monkeypatch.setattr("mnist_exp.engine.loop.WINDOW", 3)
    try:
        trainings.run(composed(*ON_GPU, "model.dropout=0.2", "training.ema=0.9"), Path("run"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(refused) == 14


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("model", ["mlp", "small_cnn"])
def test_less_precision_trains_about_as_well(precision: str, model: str, composed: Compose) -> None:
    common = [*ON_GPU, f"model={model}", "epochs=3"]
    exact = trainings.run(composed(*common), Path("fp32"))
    rough = trainings.run(composed(*common, f"precision={precision}"), Path(precision))
    assert rough.summary["final/train_loss"] == pytest.approx(exact.summary["final/train_loss"], rel=0.1)


def command(folder: Path, *arguments: str) -> str:
    typed = [sys.executable, "-m", "mnist_exp.train", *arguments, "device=cuda", "data=synthetic", "epochs=2"]
    done = subprocess.run(typed, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_whole_command_on_a_gpu(tmp_path: Path) -> None:
    assert "closed-form gradients, CUDA graph" in command(tmp_path)
    (folder,) = (path.parent for path in tmp_path.glob("outputs/runs/*/*/ledger.json"))
    assert ledger.read(folder).state == "finished"
    assert [row["epoch"] for row in journal.read(folder)] == [1, 2]


def test_a_sweep_trains_as_one_pack_on_a_gpu(tmp_path: Path) -> None:
    command(tmp_path, "-m", "hidden=32,64", "lr=1e-3,3e-3", "tracking=off", "hydra.launcher.workers=1")
    folders = sorted(path.parent for path in tmp_path.glob("outputs/sweeps/*/*/*/ledger.json"))
    assert [ledger.read(folder).state for folder in folders] == ["finished"] * 4
    records = [pack_records.read(folder) for folder in folders]
    assert all(record and len(record.lanes) == 4 for record in records)
