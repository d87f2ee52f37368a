"""Which jobs train together, and what happens to a pack if its process dies."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_exp.config import Config
from mnist_exp.disk import journal, ledger
from mnist_exp.run import build
from mnist_exp.sweep import packing
from mnist_exp.sweep.packing import UNITS, divide, key

Tiny = Callable[..., Config]
SWEEP = (
    "-m",
    "data=synthetic",
    "data.train_images=120",
    "data.test_images=40",
    "data.val_size=20",
    "batch_size=16",
    "epochs=2",
    "device=cpu",
    "tracking=off",
    "checkpoint.model=false",
    "hydra.sweeper.report=false",
    "hydra.launcher.workers=1",
)


def test_a_network_is_built_once_for_each_kind(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of points are divided in a second."""
    monkeypatch.setattr(packing, "_CLOSED", {})
    built: list[int] = []
    monkeypatch.setattr(build, "in_closed_form", lambda config, network: built.append(config.seed) or True)
    divide([tiny(seed=seed, hidden=hidden) for hidden in (8, 16) for seed in range(5)], 2, "auto", gpu=False)
    assert built == [0, 0]


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden": 30},
        {"hidden": [9]},
        {"lr": 0.5},
        {"seed": 3, "data": {"order_seed": 0}},
        {"name": "mine", "tags": {"why": "x"}},
        {"optimizer": {"weight_decay": 0.1, "betas": [0.5, 0.6]}},
        {"model": {"dropout": 0.3, "init": "he"}},
    ],
    ids=str,
)
def test_lanes_may_differ_in(tiny: Tiny, settings: dict[str, Any]) -> None:
    assert key(tiny(**settings)) == key(tiny()) is not None


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden": [8, 8]},
        {"seed": 3},
        {"epochs": 3},
        {"batch_size": 8},
        {"threads": 2},
        {"data": {"split_seed": 1}},
        {"model": {"activation": "tanh"}},
        {"schedule": {"warmup": 0.1}},
        {"training": {"clip": 1.0}},
        {"optimizer": {"_target_": "torch.optim.AdamW"}},
        {"checkpoint": {"enabled": False}},
    ],
    ids=str,
)
def test_lanes_are_equal_in(tiny: Tiny, settings: dict[str, Any]) -> None:
    assert key(tiny(**settings)) not in (None, key(tiny()))


@pytest.mark.parametrize(
    "settings",
    [{"model": {"activation": "gelu"}}, {"model": {"norm": "layer"}}, {"model": {"input_dropout": 0.1}}],
    ids=str,
)
def test_what_trains_alone(tiny: Tiny, settings: dict[str, Any]) -> None:
    assert key(tiny(**settings)) is None


def grid(tiny: Tiny, widths: list[int], rates: int) -> list[Config]:
    return [tiny(hidden=h, lr=10.0**-i) for h in widths for i in range(rates)]


def test_no_core_is_idle_for_the_sake_of_a_pack(tiny: Tiny) -> None:
    for jobs in range(1, 9):
        packs = divide(grid(tiny, [16], jobs), workers=4, option="auto", gpu=False)
        assert len(packs) == min(4, jobs)
        assert max(map(len, packs)) - min(map(len, packs)) <= 1


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_one_wide_network_does_not_draw_all_others_to_one_core(tiny: Tiny, workers: int) -> None:
    packs = divide(grid(tiny, [8, 16, 128], 1), workers, "auto", gpu=False)
    assert len(packs) == min(workers, 3)


@pytest.mark.parametrize("option", ["auto", 3])
@pytest.mark.parametrize("gpu", [False, True])
def test_every_job_is_in_one_pack(tiny: Tiny, option: str | int, gpu: bool) -> None:
    jobs = grid(tiny, [16, 64, 300], 9)
    packs = divide(jobs, 2, option, gpu)
    assert sorted(i for p in packs for i in p) == list(range(len(jobs)))
    if option == 3:
        assert max(map(len, packs)) <= 3
        assert len(packs) % 2 == 0


def test_on_a_cpu_only_narrow_networks_are_packed(tiny: Tiny) -> None:
    packs = divide(grid(tiny, [64, 256], 4), 1, "auto", gpu=False)
    assert [0, 1, 2, 3] in packs
    assert [[i] for i in range(4, 8)] == packs[1:]
    assert divide(grid(tiny, [64, 256], 4), 1, "auto", gpu=True) == [list(range(8))]


def test_what_trains_longest_starts_first(tiny: Tiny) -> None:
    jobs = [tiny(hidden=hidden, epochs=epochs) for hidden, epochs in [(8, 2), (64, 2), (8, 4), (64, 2)]]
    assert divide(jobs, workers=2, option="off", gpu=False) == [[1], [3], [2], [0]]


def test_a_pack_that_was_interrupted_stays_together(tiny: Tiny) -> None:
    jobs, before = grid(tiny, [32], 6), ["x", "", "y", "x", "", "y"]
    assert sorted(divide(jobs, 1, "auto", gpu=False, before=before)) == [[0, 3], [1, 4], [2, 5]]
    assert sorted(divide(jobs, 1, "off", gpu=False, before=before)) == [[0, 3], [1], [2, 5], [4]]


def test_packs_stay_within_the_cache(tiny: Tiny) -> None:
    packs = divide(grid(tiny, [128], 20), 1, "auto", gpu=False)
    assert 1 < max(map(len, packs)) * 128 <= UNITS


def losses(folder: Path) -> list[float]:
    return [ledger.read(folder / str(i)).summary["final/test_loss"] for i in range(4)]


@pytest.mark.integration
def test_packed_or_not_a_sweep_comes_out_the_same(command: Callable[..., tuple[int, str, str]]) -> None:
    results = []
    for option in ("4", "off"):
        folder = Path(option).absolute()
        code, out, err = command(
            *SWEEP, "hidden=8,16", "lr=1e-3,3e-3", f"hydra.launcher.pack={option}", f"hydra.sweep.dir={folder}"
        )
        assert code == 0, err
        assert "4 runs (4 finished)" in out
        results.append(losses(folder))
        log = (folder / "1" / "train.log").read_text(encoding="utf-8")
        assert ("#0, #1, #2, #3" in log) == (option == "4")
        assert re.findall(r"Epoch \d/\d, Train Loss|The run has finished", log) == [
            "Epoch 1/2, Train Loss",
            "Epoch 2/2, Train Loss",
            "The run has finished",
        ]
        assert (folder / "2" / ".hydra" / "overrides.yaml").exists()
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    assert len(set(results[0])) == 4


@pytest.mark.integration
def test_a_lane_that_kills_its_process_does_not_take_the_others_with_it(
    command: Callable[..., tuple[int, str, str]],
) -> None:
    folder = Path("sweep").absolute()
    grid = ["hidden=8", "lr=1e-3,2e-3,3e-3,4e-3", "hydra.launcher.pack=auto"]
    deadly = "+callbacks.deadly._target_=following.Deadly"
    code, out, _ = command(*SWEEP, "epochs=6", *grid, deadly, f"hydra.sweep.dir={folder}")
    assert code == 1
    assert Path("killed").read_text() == "xxx", "twice in the pack, and alone"
    assert [ledger.read(folder / str(i)).state for i in range(4)] == ["finished", "killed", "finished", "finished"]
    assert out.count("trying again") == 8
    for i in (0, 2, 3):
        assert [row["epoch"] for row in journal.read(folder / str(i))] == list(range(1, 7))


def test_each_set_of_options_is_a_group_of_the_optimiser(tiny: Callable[..., Config]) -> None:
    configs = [
        tiny(lr=1e-3, seed=0),
        tiny(lr=2e-3, seed=0, optimizer={"weight_decay": 0.5}),
        tiny(lr=1e-3, seed=1),
        tiny(lr=3e-3, seed=0),
    ]
    stack, method = build.stack(configs, [build.model(config) for config in configs], torch.device("cpu"))
    assert method == "closed-form gradients"
    assert stack.sets == [0, 1, 0, 2]
    groups = build.groups(configs, stack)
    assert [(group["lr"], group["weight_decay"]) for group in groups[1:]] == [(2e-3, 0.5), (3e-3, 0.0)]
    optimizer = build.optimizer(configs[0], groups)
    assert [group["initial_lr"] for group in optimizer.param_groups] == [1e-3, 2e-3, 3e-3]


def test_runs_on_other_images_train_apart(tiny: Callable[..., Config]) -> None:
    def of(**data: Any) -> str | None:
        return key(tiny(data={"order_seed": 0, **data}))

    assert of(limit=50) == of(limit=50)
    assert len({of(), of(limit=50), of(limit=60), of(folds=3, fold=0), of(folds=3, fold=1)}) == 5
