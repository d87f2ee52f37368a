"""How many CPU threads a run takes while other programs want the processors."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import warm

from mnist_exp import system
from mnist_exp.disk.ledger import Ledger
from mnist_exp.engine.events import EpochEnd
from mnist_exp.run.session import Run
from mnist_exp.run.sharing import Sharing


def chosen(
    free: list[float | None], monkeypatch: pytest.MonkeyPatch, fixed: int | None = None, **changes: int
) -> tuple[int, dict[str, int]]:
    """Threads at the start, and those after epochs, with four cores of which others leave *free* ones at each look."""
    looks = iter(free)
    monkeypatch.setattr(system.FreeCores, "look", lambda self: next(looks))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(system, "cores", lambda: 4)
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    sharing = Sharing(fixed, changes)
    entry = Ledger(epochs=9, threads=sharing.begin())
    about = Run(None, Path(), entry, torch.device("cpu"), entry.threads_now, "")  # type: ignore[arg-type]
    observer = sharing.watch(about)
    for epoch in range(1, len(free) or 10):
        observer.on_epoch(EpochEnd(lane=0, epoch=epoch, step=0, metrics={}, time_ms=0, best=True))
    assert set_to == list(entry.threads_after.values())
    return entry.threads, entry.threads_after


@pytest.mark.parametrize(
    ("free", "began", "after"),
    [
        ([4.0, 4.0, 4.0], 4, {}),
        ([3.6, 4.0, 3.5], 4, {}),
        ([None, None, 4.0], 4, {}),  # too early to say
        ([0.2, 0.3], 1, {}),
        ([1.4, 1.2, 1.0], 1, {}),
        ([4.0, 2.9, 3.0, 1.1], 4, {"1": 3, "3": 1}),
        ([2.0, 4.0, 4.0, 4.0], 2, {"2": 4}),  # more only after two epochs with more free
        ([2.0, 4.0, 2.0, 4.0, 2.0], 2, {}),
        ([4.0, 2.0, 4.0, 4.0, 4.0, 4.0], 4, {"1": 2, "4": 4}),  # three epochs, after others came once
        ([4.0, 2.0, None, 2.0], 4, {"1": 2}),
        ([4.0] * 9 + [1.0], 4, {}),  # after the last epoch there is nothing to change
    ],
)
def test_threads_are_as_many_as_others_leave(
    free: list[float | None], began: int, after: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(free, monkeypatch) == (began, after)


def test_as_many_as_were_asked_for_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen([], monkeypatch, fixed=3) == (3, {})


def test_changes_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen([], monkeypatch, fixed=3, **{"2": 1, "5": 3}) == (3, {"2": 1, "5": 3})


@pytest.fixture
def busy() -> Iterator[None]:
    """Other programs want every core."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(system.cores())]
    yield
    for other in others:
        other.kill()
        other.wait()


@pytest.mark.slow
def test_on_a_busy_machine_a_run_takes_fewer_threads(busy: None) -> None:
    cores = system.cores()
    typed = [sys.executable, "-m", "mnist_exp.train", "data=synthetic", "epochs=2", "tracking=off", "hydra.run.dir=run"]
    environment = {**os.environ, **warm.COLD}  # it looks while it loads torch
    done = subprocess.run(typed, capture_output=True, text=True, check=True, env=environment)
    threads = json.loads(Path("run/ledger.json").read_text())["threads"]
    assert threads < cores or cores == 1
    assert f"cpu, {threads} thread" in done.stdout
