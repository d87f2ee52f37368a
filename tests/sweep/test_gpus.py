"""Which GPUs the workers of a sweep share: those that CUDA can use, and none where there are none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mnist_exp.config import Config
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.local.launch import gpus_for
from mnist_exp.sweep.local.pool import Capacity


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
    visible: str | None, usable: int, shared: list[str], tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: usable)
    composer: Any = None  # for jobs whose config is not known
    assert gpus_for([Job(0, [], config=tiny(device="auto"))], composer) == shared
    assert gpus_for([Job(0, [], config=tiny(device="cpu"))], composer) == []


@pytest.mark.parametrize(
    ("per_gpu", "workers", "used"),
    [(1, None, "01"), (2, None, "010"), (2**70, None, "010"), (2, 1, "0"), (1, 3, "01")],
)
def test_no_more_workers_than_jobs_however_many_may_share_a_gpu(per_gpu: int, workers: int | None, used: str) -> None:
    slots = Capacity(workers, per_gpu, gpus=["0", "1"]).slots(3)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == list(used)
