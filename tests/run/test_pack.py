"""Packs of the size that a GPU's memory holds: by their shapes, and by halves where that was too much."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import trainings
from trainings import Compose, Listener, lanes, outcome, tasks

from mnist_exp import system
from mnist_exp.config import Config
from mnist_exp.disk import lanes as pack_records
from mnist_exp.disk import ledger
from mnist_exp.engine.closed_form import MLPStack
from mnist_exp.engine.events import Control, Observer
from mnist_exp.errors import ExperimentError
from mnist_exp.run import build, memory, pack, session
from mnist_exp.run.claim import Member

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture
def holds(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """`holds(2)`: a device whose memory is full in a step of more lanes; returns the sizes that were tried."""
    gradient, tried = MLPStack.gradient, []

    def most(count: int) -> list[int]:
        def limited(stack: MLPStack, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            tried.append(stack.lanes)
            if stack.lanes > count:
                raise torch.OutOfMemoryError(FULL)
            return gradient(stack, images, labels)

        monkeypatch.setattr(MLPStack, "gradient", limited)
        return tried

    return most


def test_a_pack_that_is_too_large_goes_on_in_halves(composed: Compose, holds: Callable[[int], list[int]]) -> None:
    tried, listeners = holds(1), [Listener() for _ in range(4)]
    configs = lanes(composed)

    def watch(about: session.Run, control: Control) -> Sequence[Observer]:
        return [listeners[int(about.folder.name)]]

    results = session.run_many(tasks(configs, "tried"), watch)
    assert [getattr(result, "state", result) for result in results] == ["finished"] * 4
    assert list(dict.fromkeys(tried)) == [4, 2, 1]
    assert [[event.epoch for event in listener.epochs] for listener in listeners] == [[1, 2, 3]] * 4
    for i, config in enumerate(configs):
        trainings.run(config, Path("alone") / str(i))
        assert outcome(Path(f"tried/{i}")) == outcome(Path(f"alone/{i}"))
        assert pack_records.read(Path(f"tried/{i}")) is None


def test_halves_are_packs_of_their_own_and_resume_as_such(composed: Compose, holds: Callable[[int], list[int]]) -> None:
    holds(2)
    session.run_many(tasks(lanes(composed), "tried"))
    records = [pack_records.read(Path(f"tried/{i}")) for i in range(4)]
    assert all(record and len(record.lanes) == 2 for record in records)
    assert len({record.pack for record in records if record}) == 2


def test_one_run_that_is_too_large_says_so(composed: Compose, holds: Callable[[int], list[int]]) -> None:
    holds(0)
    with pytest.raises(ExperimentError, match="The GPU's memory is full: CUDA out of memory") as caught:
        trainings.run(lanes(composed)[0], Path("run"))
    assert "batch_size" in caught.value.help
    assert ledger.read(Path("run")).state == "failed"


def test_memory_that_others_take_later_ends_the_pack(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, holds: Callable[[int], list[int]]
) -> None:
    """It resumes with its lanes as they were, where half of them would need placeholders for the others."""

    class Grows(Listener):
        def on_epoch(self, event: Any) -> None:
            holds(1)

    results = session.run_many(tasks(lanes(composed), "tried"), lambda about, control: [Grows()])
    assert all(isinstance(result, ExperimentError) for result in results)
    assert {ledger.read(Path(f"tried/{i}")).epoch for i in range(4)} == {1}


def members(config: Config, count: int) -> list[Member]:
    with torch.device("meta"):
        network = build.model(config)
    entry: Any = None
    return [Member(config, Path(str(i)), False, entry, "", network, None, None) for i in range(count)]


@pytest.mark.parametrize(("gigabytes", "sizes"), [(100, [64]), (2, [32, 32]), (1, [16] * 4), (0.001, [1] * 64)])
def test_a_pack_is_made_of_what_fits_into_the_free_memory(
    gigabytes: float, sizes: list[int], composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "device", lambda config: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gigabytes * 1e9, 140e9))
    packs = pack.within_memory(members(composed("hidden=1024", "data=synthetic"), 64))
    assert [len(each) for each in packs] == sizes


@pytest.mark.parametrize("hidden", ["32", "1024", "[512,256]"])
def test_the_memory_of_a_lane_is_about_what_its_tensors_take(hidden: str, composed: Compose) -> None:
    config = composed(f"hidden={hidden}", "data=synthetic")
    with torch.device("meta"):
        network = build.model(config)
    weights = 4 * sum(p.numel() for p in network.parameters())
    assert 6 * weights < memory.of_lane(config, network) < 7 * weights + 12e6


def test_apples_gpu_has_the_memory_of_the_machine(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "device", lambda config: torch.device("mps"))
    monkeypatch.setattr(system, "memory", lambda: 2 * 10**9)
    packs = pack.within_memory(members(composed("hidden=1024", "data=synthetic"), 64))
    assert [len(each) for each in packs] == [32, 32]


def test_nothing_is_divided_on_a_cpu(composed: Compose) -> None:
    whole = members(composed("hidden=16", "data=synthetic", "device=cpu"), 9)
    assert pack.within_memory(whole) == [whole]
