"""Which points a grid has: all combinations, pairs, a draw, or the rows of a file."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from samples import REPO, TINY

from mnist_exp.config import sweeps
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import ConfigError
from mnist_exp.sweep import points, setup
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
        return [" ".join(point) for point in points.drawn(home, points.expand(home)[0])]

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


def test_a_cell_may_hold_any_text_and_a_mapping_its_keys(scratch: Path) -> None:
    (scratch / "p.csv").write_text('name,tags.why\nlr=0.1,"it\'s a (test)"\n"a, b",x\n')
    assert points.read(scratch / "p.csv") == [
        ["name='lr=0.1'", r"+tags.why='it\'s a (test)'"],
        ["name='a, b'", "+tags.why=x"],
    ]
    (scratch / "p.yaml").write_text("- {optimizer: sgd, model: {norm: layer, dropout: 0.5}, tags: {why: 'a=b'}}\n")
    assert points.read(scratch / "p.yaml") == [
        ["optimizer=sgd", "model.norm=layer", "model.dropout=0.5", "+tags.why='a=b'"],
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hidden,lr\n8\n", "line 2 has more or fewer cells"),
        ("hidden,lr\n", "has no points"),
        ("", "has no points"),
        ("hidden,lr, hidden\n8,1,16\n", "line 1 has hidden twice"),
        (None, "cannot be read"),
    ],
)
def test_a_file_without_points(scratch: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (scratch / "p.csv").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        points.read(scratch / "p.csv")


@pytest.mark.parametrize("text", ["5\n", "- {lr: '${'}\n"])
def test_a_yaml_file_that_is_no_table_is_named(scratch: Path, text: str) -> None:
    (scratch / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"points=p\.yaml cannot be read: "):
        points.read(Path("p.yaml"))


def test_a_key_twice_is_refused_in_a_file_and_beside_it(expand: Callable[..., list[str]], scratch: Path) -> None:
    (scratch / "p.yaml").write_text("- {hidden: 8, hidden: 16}\n")
    with pytest.raises(ConfigError, match="duplicate key hidden"):
        expand(points="p.yaml")
    (scratch / "p.csv").write_text("hidden,lr\n8,0.1\n16,\n")
    with pytest.raises(ConfigError, match=r"points=p\.csv sets lr=0\.1, and lr=0\.2 was typed"):
        expand("epochs=1", "lr=0.2", points="p.csv")
    with pytest.raises(ConfigError, match=r"points=p\.csv sets lr=0\.1, and lr=0\.1,0\.2 was typed"):
        expand("epochs=1", "lr=0.1,0.2", points="p.csv")
    assert expand("epochs=1", "lr=1e-1", points="p.csv") == ["hidden=8 epochs=1 lr=0.1", "hidden=16 epochs=1 lr=0.1"]


def test_lists_of_a_file_pair_up(scratch: Path) -> None:
    (scratch / "p.yaml").write_text("hidden: [8, 16]\nlr: [0.1]\n")
    with pytest.raises(ConfigError, match="its lists differ in length: hidden has 2, lr has 1"):
        points.read(scratch / "p.yaml")


def test_an_interval_belongs_to_a_search(expand: Callable[..., list[str]]) -> None:
    with pytest.raises(ConfigError) as caught:
        expand("lr=interval(0,1)")
    assert "search=tpe" in caught.value.help


@pytest.mark.integration
def test_a_large_grid_is_counted_first_and_checking_it_says_how_far_it_is(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(points, "MANY", 100)
    composer: Any = SimpleNamespace(config_of=lambda overrides: tiny(hidden=int(overrides[0].partition("=")[2])))
    jobs = points.check(composer, [[f"hidden={n}"] for n in range(1, 202)])
    assert len(jobs) == 201
    screen = capsys.readouterr()
    assert screen.out == "201 points: each is checked before the first one starts.\n"
    assert screen.err.startswith("99 of 201 points are checked")


def test_a_large_grid_that_cannot_run_is_refused_as_soon_as_that_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "MANY", 100)
    asked: list[list[str]] = []

    def refuse(overrides: list[str]) -> None:
        asked.append(overrides)
        raise ConfigError("it is odd")

    composer: Any = SimpleNamespace(config_of=refuse)
    with pytest.raises(ConfigError, match="10 of the first 10 points cannot run; nothing was started"):
        points.check(composer, [[f"seed={n}"] for n in range(1000)])
    assert len(asked) == 10


def test_a_grid_that_no_memory_holds_is_refused(expand: Callable[..., list[str]]) -> None:
    with pytest.raises(ConfigError, match="has 100,000,000 points; 10,000,000 are the most"):
        expand("hidden=range(0,10000)", "seed=range(0,10000)")


@pytest.mark.parametrize("values", ["range(1,{})", "sort(range(1,{}))", "shuffle(range(1,{}))", "range(0.0,{},0.5)"])
def test_a_range_that_no_memory_holds_is_counted_before_it_is_listed(values: str) -> None:
    with pytest.raises(ConfigError, match=r"has [\d,]+ values; 10,000,000 are the most"):
        sweeps.parsed([f"hidden={values.format(10**12)}"])


def test_the_usual_number_of_trials_is_the_documented_one() -> None:
    assert f"({setup.DEFAULT_TRIALS} unless given)" in (REPO / "docs" / "search.md").read_text(encoding="utf-8")


def test_folds_have_a_point_each_unless_one_is_named() -> None:
    both = [["data.folds=2", "lr=1"], ["data.folds=3", "lr=1"], ["lr=2"]]
    assert [point[-1] for point in points.by_fold(both, None)] == [
        *("data.fold=0", "data.fold=1", "data.fold=0", "data.fold=1", "data.fold=2", "lr=2"),
    ]
    assert len(points.by_fold([["lr=1"], ["lr=2", "data.folds=null"]], 4)) == 5


@pytest.mark.integration
def test_a_sweep_has_a_run_for_each_fold_whoever_asks_for_them(command: Any) -> None:
    quick = ("hydra/launcher=basic", "hydra.sweeper.report=false")
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/cv.yaml").write_text("# @package _global_\ndata:\n  folds: 3\n")
    code, out, err = command("-m", *TINY, "--config-dir", "mine", "experiment=cv", "seed=0,1", "epochs=1", *quick)
    assert code == 0, err
    assert "(n=6, " in out
    code, out, err = command("-m", *TINY, "data.folds=3", "data.fold=0,2", "--dry-run")
    assert code == 0, err
    assert "Dry run: 2 runs" in out
    code, _, err = command("-m", *TINY, "data.folds=1", "hidden=8,16")
    assert code == 2
    assert "data.folds must be at least 2" in err
    code, _, err = command("-m", *TINY, "data.folds=3", "search=random", "hidden=choice(8,16)", "n_trials=2")
    assert code == 2
    assert "data.fold has no value" in err


def test_a_row_with_several_values_is_a_grid(expand: Callable[..., list[str]], scratch: Path) -> None:
    text = "- {lr: '0.1,0.2', hidden: 'range(8,17,8)', tags.why: 'slow, but sure'}\n- {lr: 0.3, hidden: [8, 8]}\n"
    (scratch / "grids.yaml").write_text(text)
    assert expand("seed=0,1", points="grids.yaml")[::2] == [
        "lr=0.1 hidden=8 +tags.why='slow, but sure' seed=0",
        "lr=0.1 hidden=16 +tags.why='slow, but sure' seed=0",
        "lr=0.2 hidden=8 +tags.why='slow, but sure' seed=0",
        "lr=0.2 hidden=16 +tags.why='slow, but sure' seed=0",
        "lr=0.3 hidden=[8,8] seed=0",
    ]
    (scratch / "grids.yaml").write_text("- {lr: 'interval(0.1,0.2)'}\n")
    with pytest.raises(ConfigError, match=r"A grid cannot try all of lr=interval\(0.1,0.2\)"):
        expand(points="grids.yaml")


@pytest.mark.parametrize("name", ["nosuch", "outputs"])
def test_what_is_neither_a_table_nor_a_sweep(name: str, expand: Callable[..., list[str]]) -> None:
    with pytest.raises(ConfigError):
        expand(points=name)
