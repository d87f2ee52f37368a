"""Which GPUs the workers of a sweep share: those that CUDA can use, and none where there are none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mnist_exp.config import Config
from mnist_exp.sweep.local import pool as local


@pytest.mark.parametrize(
    ("visible", "usable", "found"),
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
    visible: str | None, usable: int, found: list[str], tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: usable)
    composer: Any = None  # for jobs whose config is not known
    assert local.gpus_for([local.Job(0, [], own=tiny(device="auto"))], composer) == found
    assert local.gpus_for([local.Job(0, [], own=tiny(device="cpu"))], composer) == []


@pytest.mark.parametrize(
    ("per_gpu", "workers", "found"),
    [(1, None, "01"), (2, None, "010"), (2**70, None, "010"), (2, 1, "0"), (1, 3, "01")],
)
def test_no_more_workers_than_jobs_however_many_may_share_a_gpu(per_gpu: int, workers: int | None, found: str) -> None:
    nothing: Any = None
    options = {"workers": workers, "per_gpu": per_gpu}
    pool = local.Pool(options, b"", nothing, nothing, nothing, ["0", "1"], nothing)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in pool.slots(3)] == list(found)
