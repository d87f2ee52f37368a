"""Which GPUs the workers of a sweep share: those that CUDA can use, and none where there are none."""

from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch

from mnist_exp.config import Config
from mnist_exp.run.pack import set_up_torch
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.launching import Stop
from mnist_exp.sweep.local.launch import visible_gpus
from mnist_exp.sweep.local.pool import Capacity, Pool, Worker


@pytest.mark.parametrize(
    ("visible", "usable", "shared"),
    [
        (None, 0, []),
        ("0", 0, []),
        ("-1", 0, []),
        ("", 0, []),
        (None, 2, ["0", "1"]),
        ("3, 1", 2, ["3", "1"]),
        ("1,-1,0", 1, ["1"]),
        ("GPU-8932f937", 1, ["GPU-8932f937"]),
    ],
)
def test_workers_share_the_gpus_that_can_be_used(
    visible: str | None, usable: int, shared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: usable)
    assert visible_gpus() == shared


@pytest.mark.parametrize(
    ("per_gpu", "workers", "used"),
    [(1, None, "01"), (2, None, "010"), (2**70, None, "010"), (2, 1, "0"), (1, 3, "01")],
)
def test_no_more_workers_than_jobs_however_many_may_share_a_gpu(per_gpu: int, workers: int | None, used: str) -> None:
    slots = Capacity(workers, per_gpu, gpus=["0", "1"]).slots(3)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == list(used)


Device = Callable[..., Config]


def pool(jobs: list[Job], per_gpu: int, workers: int | None, gpus: list[str]) -> Pool:
    """A pool whose workers do nothing."""
    anything: Any = mock.MagicMock()
    options = {"on_error": "continue", "max_failures": None, "job_timeout": None, "retries": 0}
    made = Pool(options, anything, Capacity(workers, per_gpu, gpus, numbered=True), anything, Stop())
    made.start_worker = lambda slot: Worker(mock.MagicMock(), anything, anything, slot)  # type: ignore[method-assign]
    made.assign = lambda to, pack: to.jobs.extend(pack)  # type: ignore[method-assign]
    made.begin([[job] for job in jobs])
    return made


def devices(of: Pool) -> list[str]:
    return sorted(job.config.device for worker in of.workers for job in worker.jobs)


@pytest.mark.parametrize(
    ("per_gpu", "workers", "first", "then"),
    [
        (1, None, ["cuda:0", "cuda:1"], ["cuda:0", "cuda:0"]),
        (2, None, ["cuda:0", "cuda:0", "cuda:1", "cuda:1"], ["cuda:0"] * 2),
        (1, 1, ["cuda:0"], ["cuda:0"]),
    ],
)
def test_jobs_that_ask_for_gpus_by_number_take_turns_on_each(
    per_gpu: int, workers: int | None, first: list[str], then: list[str], tiny: Device
) -> None:
    asked = ["cuda:0", "cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    jobs = [Job(i, [], parsed=tiny(device=device)) for i, device in enumerate(asked)]
    of = pool(jobs, per_gpu, workers, ["cuda:0", "cuda:1"])
    assert {tuple(worker.slot) for worker in of.workers} == {()}  # they see all GPUs, so that a number means the same
    assert devices(of) == first
    seen = []
    while any(worker.jobs for worker in of.workers):
        running = [worker for worker in of.workers if worker.jobs]
        assert max(Counter(worker.gpu for worker in running).values()) <= per_gpu
        for worker in running:
            seen += [job.number for job in worker.jobs]
            worker.jobs.clear()
        of.hand_out()
    assert sorted(seen) == list(range(5))


def test_a_worker_stays_on_its_gpu_where_its_memory_is(tiny: Device) -> None:
    jobs = [Job(i, [], parsed=tiny(device=f"cuda:{i % 2}")) for i in range(6)]
    of = pool(jobs, 1, None, ["cuda:0", "cuda:1"])
    had: dict[int, set[str]] = {id(worker): set() for worker in of.workers}
    while any(worker.jobs for worker in of.workers):
        for worker in of.workers:
            had[id(worker)] |= {job.config.device for job in worker.jobs}
            worker.jobs.clear()
        of.hand_out()
    assert sorted(map(sorted, had.values())) == [["cuda:0"], ["cuda:1"]]


def test_other_jobs_of_such_a_sweep_count_by_where_they_train(tiny: Device) -> None:
    jobs = [Job(i, [], parsed=tiny(device=device)) for i, device in enumerate(["cuda", "auto", "cpu", "cuda:1"])]
    of = pool(jobs, 2, None, ["cuda:0", "cuda:1"])
    assert [of.gpu_of([job]) for job in jobs] == ["cuda:0", "cuda:0", "", "cuda:1"]
    assert devices(of) == ["auto", "cpu", "cuda", "cuda:1"]


def test_a_run_makes_its_gpu_the_current_one(tiny: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what names no device, such as a stream, would open a context on the first GPU."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("cuda:1", "cuda", "cpu"):
        set_up_torch(tiny(), torch.device(name), 1)
    assert chosen == [1, 0]
