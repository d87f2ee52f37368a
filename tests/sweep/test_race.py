"""The race: seeds go to the settings that may still be the best, and going on with it repeats no run."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from report_fixtures import make_run
from samples import TINY

from benchmarks.race import raced
from mnist_exp.disk import ledger, plan
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.race import Race

Command = Callable[..., tuple[int, str, str]]
FOLDER = Path("outputs/sweeps/2026-01-31/10-00-00-abcdef")
HERE = ("-m", *[word for word in TINY if "hidden" not in word], "hydra/launcher=basic", "hydra.sweeper.report=false")
WIDTHS = {8: 0.90, 9: 0.97, 10: 0.971, 11: 0.80}
"""The accuracy of each width; seeds add up to 0.004."""


@pytest.fixture
def race(tiny: Callable[..., Any]) -> Callable[..., Race]:
    """A race of `WIDTHS`, whose settings and seeds are overrides of what tiny makes."""

    def make(seeds: int = 30, limit: int = 40, first: int = 3, patience: int | None = None) -> Race:
        FOLDER.mkdir(parents=True, exist_ok=True)

        def config_of(overrides: list[str]) -> Any:
            values = dict(override.split("=") for override in overrides)
            return tiny(hidden=int(values["hidden"]), seed=int(values["seed"]))

        parts = {"composer": SimpleNamespace(config_of=config_of), "steering": {}, "again": "python … -m resume=day"}
        home: Any = SimpleNamespace(plan=Plan(id="x", typed=[], keys=[]), folder=FOLDER, **parts)
        settings = [[f"hidden={width}", "val_size=5000"] for width in WIDTHS]
        return Race(home, settings, [f"seed={seed}" for seed in range(seeds)], first, patience, limit)

    return make


def run(job: Job, state: str = "finished") -> None:
    values = dict(override.split("=") for override in job.overrides)
    noise = 0.002 * ((int(values["seed"]) + int(values["hidden"])) % 3)
    make_run(job.folder, job.overrides, WIDTHS[int(values["hidden"])] + noise, state=state)


def rounds(of: Race) -> list[list[str]]:
    """The new runs of each round, which all finish."""
    each = []
    for jobs in of.rounds():
        new = [job for job in jobs if not ledger.find(job.folder)]
        for job in new:
            run(job)
        each.append([" ".join(o for o in job.overrides if "val" not in o) for job in new])
    return each


@pytest.mark.integration
def test_seeds_go_to_the_settings_that_may_be_the_best(
    race: Callable[..., Race], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *others = rounds(race())
    assert first == [f"hidden={width} seed={seed}" for seed in range(3) for width in WIDTHS]
    assert second == ["hidden=9 seed=3", "hidden=10 seed=3"]
    assert sum(map(len, [first, second, *others])) <= 40
    out = capsys.readouterr().out
    assert "After 3 seeds each: 2 of 4 settings may be the best." in out
    assert "The race ended after 40 runs: n_trials=40 are used up. May be the best: hidden=9; hidden=10." in out
    assert "Go on with:\n  python … -m resume=day n_trials=80" in out


@pytest.mark.integration
def test_a_race_that_goes_on_repeats_its_decisions_and_no_run(race: Callable[..., Race]) -> None:
    begun = race(limit=16)
    first = rounds(begun)
    again = race(limit=24)
    again.home.plan = begun.home.plan
    then = rounds(again)
    assert then[:2] == [[], []]
    assert (sum(map(len, first)), sum(map(len, then))) == (16, 8)
    assert len(again.home.plan.points) == 24


@pytest.mark.integration
def test_a_race_ends_when_it_is_decided_or_waits_in_vain_or_has_no_more_seeds(
    race: Callable[..., Race], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds(race(patience=1))
    assert "no setting has left it (hydra.sweeper.patience=1)" in capsys.readouterr().out
    rounds(race(seeds=4))
    assert "there are no more seeds" in capsys.readouterr().out
    monkeypatch.setitem(WIDTHS, 10, 0.7)
    for old in FOLDER.glob("*/ledger.json"):
        old.unlink()
        old.parent.rename(old.parent.with_name(f"old-{old.parent.name}"))
    assert len(rounds(race())) == 1
    assert "ended after 12 runs: it is decided. May be the best: hidden=9." in capsys.readouterr().out


@pytest.mark.integration
def test_a_setting_with_a_failed_seed_leaves_the_race(race: Callable[..., Race]) -> None:
    going = race().rounds()
    for job in next(going):
        run(job, "failed" if job.overrides[0] == "hidden=10" and job.overrides[-1] == "seed=1" else "finished")
    with pytest.raises(StopIteration):
        next(going)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"limit": 11}, "4 settings begin a race with 12 runs, and n_trials=11 are fewer."),
        ({"seeds": 2}, "A race begins with 3 seeds for each setting, and got 2."),
        ({"first": 1}, "hydra.sweeper.first must be at least 2"),
        ({"patience": 0}, "hydra.sweeper.patience must be at least 1"),
    ],
)
def test_a_race_that_cannot_be_run(options: dict[str, Any], sentence: str, race: Callable[..., Race]) -> None:
    with pytest.raises(ConfigError) as refused:
        race(**options).checked()
    assert sentence in refused.value.message


def test_settings_on_other_images_do_not_race(race: Callable[..., Race]) -> None:
    one = race()
    works = one.home.composer.config_of

    def config_of(overrides: list[str]) -> Any:
        config = works(overrides)
        config.data.split_seed = int(config.hidden)
        return config

    one.home.composer.config_of = config_of  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="A race compares settings on the same validation images"):
        one.checked()


@pytest.mark.integration
def test_a_race_from_a_table_of_grids_and_going_on(command: Command) -> None:
    grids = '- {name: a, hidden: "8,12", lr: 1e-2}\n- {name: a, hidden: 16, lr: 1e-9}\n'
    Path("grids.yaml").write_text(grids)
    code, out, err = command(*HERE, "search=race", "points=grids.yaml", "n_trials=9", "seed=range(5,20)")
    assert code == 0, out + err
    assert "3 settings, 3 seeds each, up to 9 runs" in out
    assert "The race ended after 9 runs" in out
    (folder,) = (path.parent for path in Path("outputs/sweeps").glob("*/*/sweep.json"))
    assert plan.read(folder).keys == ["hidden", "lr"]
    assert {point[-1] for point in plan.read(folder).points} == {"seed=5", "seed=6", "seed=7"}
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/ledger.json")}
    code, out, err = command("-m", "resume=last", "n_trials=11", "hydra/launcher=basic")
    assert code == 0, out + err
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    for typed, said in (("seed=3", "has none to add"), ("seed=interval(0,9)", "has none to add")):
        code, _, err = command(*HERE, "search=race", "hidden=8,12", typed)
        assert code == 2
        assert said in err


@pytest.mark.integration
def test_the_best_settings_of_a_search_race_with_other_seeds(command: Command) -> None:
    code, out, err = command(*HERE, "search=random", "n_trials=3", "lr=interval(0.01,0.02)", "epochs=1")
    assert code == 0, out + err
    assert "To tell them apart:\n  python -m mnist_exp.train -m search=race points=" in out
    again = out.partition("search=race ")[2].split("\n")[0].replace("'", "").split()
    code, out, err = command("-m", "search=race", *again, "--dry-run")
    assert code == 0, err
    assert "Dry run: 9 runs." in out
    assert "seed=1 " in out
    assert "seed=0 " not in out


@pytest.mark.integration
def test_settings_of_a_cross_validated_sweep_race_on_one_fold(command: Command) -> None:
    """The median runs of the four have two folds: each setting had raced on its own."""
    code, out, err = command(*HERE, "hidden=4,6,8,12", "lr=1e-9", "epochs=1", "data.folds=2")
    assert code == 0, out + err
    code, out, err = command("-m", "search=race", "points=last", "seed=5,6,7", "--dry-run")
    assert code == 0, err
    assert "Dry run: 12 runs." in out
    assert len(set(re.findall(r"data\.fold=\d", out))) == 1


def drawn(rng: np.random.Generator, effects: Sequence[float], seeds: int, images: int = 2000) -> np.ndarray:
    """Which images each setting gets right with each seed (setting, seed, image): images are hard, and seeds lucky."""
    size = len(effects), seeds, images
    hard, own = rng.normal(2.2, 1.0, images), rng.normal(0, 0.1, (size[0], 1, images))
    lucky, noise = rng.normal(0, 0.08, (*size[:2], 1)), rng.normal(0, 0.4, size)
    right: np.ndarray = np.asarray(effects)[:, None, None] + own + lucky + noise + hard > 0
    return right


@pytest.mark.slow
def test_a_race_keeps_the_best_and_finds_it_more_often_than_equal_seeds() -> None:
    """Three good settings of twelve, 72 runs; of 600 smaller races: 433 against 400, and none lost."""
    rng, effects = np.random.default_rng(0), [0, -0.04, -0.06, *[-0.4] * 9]
    right, equal, kept = 0, 0, 0
    for _ in range(200):
        hits = drawn(rng, effects, seeds=40)
        left = raced(hits, limit=72)
        right, kept = right + (left[0] == 0), kept + (0 in left)
        equal += int(hits[:, :6].mean((1, 2)).argmax()) == 0
    assert kept >= 0.95 * 200
    assert right > equal


@pytest.mark.slow
def test_looking_often_at_equal_settings_keeps_the_promise() -> None:
    """Any of them counts as the best: it stays to the end in 95 of 100 races, but for chance (99 %)."""
    rng = np.random.default_rng(1)
    kept = sum(0 in raced(drawn(rng, [0.0] * 6, seeds=16, images=1000), limit=96) for _ in range(200))
    assert kept >= 0.95 * 200 - 2.33 * (200 * 0.05 * 0.95) ** 0.5
