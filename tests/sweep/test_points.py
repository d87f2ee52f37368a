"""Which points a grid has: all combinations, pairs, a draw, or the rows of a file."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from samples import REPO

from mnist_exp.disk.plan import Plan
from mnist_exp.errors import ConfigError
from mnist_exp.sweep import points, trials
from mnist_exp.sweep.home import Home

SWEEPER: Any = SimpleNamespace(hydra_context=SimpleNamespace(config_loader=None))
GRID = ("hidden=8,16,32", "epochs=3", "lr=0.1,0.2")


@pytest.fixture
def expand(scratch: Path) -> Callable[..., list[str]]:
    """The points of what was typed, each as one line."""

    def lines(*typed: str, zip: bool = False, seed: int = 0, **steering: Any) -> list[str]:
        steering |= {"hydra": {"sweeper": {"zip": zip, "seed": seed}}}
        plan = Plan(id="sweep", typed=[], keys=[])
        home = Home(SWEEPER, scratch, list(typed), plan, False, {}, OmegaConf.create(steering))
        return [" ".join(point) for point in points.expand(home)[0]]

    return lines


def test_all_combinations(expand: Callable[..., list[str]]) -> None:
    assert len(expand(*GRID)) == 6
    assert expand(*GRID, "n_trials=2", "search=grid") == expand(*GRID)  # what steers is no part of a point


def test_a_draw_from_a_grid_is_repeatable_and_grows(expand: Callable[..., list[str]]) -> None:
    few, more = expand(*GRID, n_trials=2), expand(*GRID, n_trials=4)
    assert len(set(few)) == 2
    assert set(few) < set(more) < set(expand(*GRID))
    assert expand(*GRID, n_trials=2, seed=3) != few
    assert expand(*GRID, n_trials=99) == expand(*GRID)
    with pytest.raises(ConfigError, match="n_trials must be at least 1"):
        expand(*GRID, n_trials=0)


def test_pairs(expand: Callable[..., list[str]]) -> None:
    assert expand("hidden=8,16", "epochs=3", "lr=0.1,0.2", zip=True) == [
        "hidden=8 epochs=3 lr=0.1",
        "hidden=16 epochs=3 lr=0.2",
    ]
    with pytest.raises(ConfigError, match="hidden has 3, lr has 2"):
        expand(*GRID, zip=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", 'hidden, lr\n8, 0.1\n"[16,8]", 0.2\n'),
        ("p.yaml", "- {hidden: 8, lr: 0.1}\n- {hidden: [16, 8], lr: 0.2}\n"),
        ("q.yaml", "hidden: [8, [16, 8]]\nlr: [0.1, 0.2]\n"),
    ],
)
def test_the_rows_of_a_file(expand: Callable[..., list[str]], scratch: Path, name: str, text: str) -> None:
    (scratch / name).write_text(text)
    assert expand("seed=0,1", points=name) == [
        "hidden=8 lr=0.1 seed=0",
        "hidden=8 lr=0.1 seed=1",
        "hidden=[16,8] lr=0.2 seed=0",
        "hidden=[16,8] lr=0.2 seed=1",
    ]


def test_an_empty_cell_sets_nothing(scratch: Path) -> None:
    (scratch / "p.csv").write_text("hidden,lr\n8,\n,0.2\n")
    assert points.read(scratch / "p.csv") == [["hidden=8"], ["lr=0.2"]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hidden,lr\n8\n", "line 2 has more or fewer cells"),
        ("hidden,lr\n", "has no points"),
        ("", "has no points"),
        (None, "cannot be read"),
    ],
)
def test_a_file_without_points(scratch: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (scratch / "p.csv").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        points.read(scratch / "p.csv")


def test_lists_of_a_file_pair_up(scratch: Path) -> None:
    (scratch / "p.yaml").write_text("hidden: [8, 16]\nlr: [0.1]\n")
    with pytest.raises(ConfigError, match="its lists differ in length: hidden has 2, lr has 1"):
        points.read(scratch / "p.yaml")


def test_an_interval_belongs_to_a_search(expand: Callable[..., list[str]]) -> None:
    with pytest.raises(ConfigError) as caught:
        expand("lr=interval(0,1)")
    assert "search=tpe" in caught.value.help


def test_the_usual_number_of_trials_is_the_documented_one() -> None:
    assert f"({trials.DEFAULT_TRIALS} unless given)" in (REPO / "docs" / "search.md").read_text(encoding="utf-8")
