"""A dry run says what a sweep would run, and writes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from report_fixtures import make_run
from samples import TINY

from mnist_exp.config import Config
from mnist_exp.sweep import forecast

Command = Callable[..., tuple[int, str, str]]
HERE = Path("outputs/runs/2026-01-31")


@pytest.fixture(autouse=True)
def forgotten() -> None:
    forecast.earlier.cache_clear()


def trained(name: str, parameters: int, seconds: float, **more: object) -> None:
    """A run of two epochs in *seconds* of processor time."""
    batch = more.pop("batch_size", 16)
    folder = make_run(HERE / name, ["data=synthetic"], 0.9, parameters=parameters, **more)  # type: ignore[arg-type]
    ledger = folder / "ledger.json"
    text = ledger.read_text().replace('"time/total_cpu": 9.0', f'"time/total_cpu": {1.5 * seconds}')
    ledger.write_text(text.replace('"model": "mlp"', f'"model": "mlp", "batch_size": {batch}'))


def test_the_time_follows_the_size_of_earlier_runs_alike(tiny: Callable[..., Config]) -> None:
    config = tiny(epochs=2)  # 12,730 parameters
    assert forecast.estimate(config) is None
    trained("a", 10_000, 2.0)
    forecast.earlier.cache_clear()
    assert forecast.estimate(config) == pytest.approx(2.0)
    trained("b", 20_000, 4.0)
    trained("failed", 12_730, 90.0, state="failed")
    trained("elsewhere", 12_730, 90.0, host="another")
    trained("other", 12_730, 90.0, batch_size=64)
    forecast.earlier.cache_clear()
    assert forecast.estimate(config) == pytest.approx(2.546)
    assert forecast.time([config] * 4, workers=2) == "About 5 s on 2 workers, by 3 earlier runs here."
    assert forecast.time([config], workers=2) == "About 3 s on 2 workers, by 3 earlier runs here."
    assert forecast.time([], workers=2) == "Nothing is left to train."


@pytest.mark.integration
def test_points_repeats_sizes_packs_and_what_is_done(command: Command) -> None:
    grid = [
        *(word for word in TINY if "hidden" not in word),
        "lr=1e-3,3e-3",
        "hydra.launcher.workers=1",
        "hydra.sweeper.report=false",
    ]
    code, out, err = command("-m", *grid, "hidden=16,17,16", "--dry-run")
    assert code == 0, err
    assert "2 of 6 points are the same as others; each runs once." in out
    assert "Dry run: 4 runs. Nothing is written, nothing is trained." in out
    assert "#3  lr=0.003 hidden=17  13,525 parameters  pack 1" in out
    assert "No time is known" in out
    assert not list(Path().iterdir())
    quick = [word for word in grid if "workers" not in word]
    assert command("-m", *quick, "hidden=16", "hydra/launcher=basic")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    forecast.earlier.cache_clear()
    code, out, err = command("-m", "resume=last", "hidden=16,17", "--dry-run")
    assert code == 0, err
    assert "Dry run: 4 runs, 2 of them done already." in out
    assert out.count("parameters  done") == 2
    assert "by 2 earlier runs here." in out
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


@pytest.mark.integration
def test_jobs_that_would_notice_each_other_are_not_forecast_as_packs(command: Command) -> None:
    grid = ("-m", *TINY, "lr=1e-3,3e-3", "hydra.launcher.workers=1", "--dry-run")
    for further, packs in (("hydra.job.chdir=false", 2), ("hydra.job.chdir=true", 0)):
        code, out, err = command(*grid, further)
        assert code == 0, err
        assert out.count("pack 1") == packs


@pytest.mark.integration
def test_the_space_of_a_search(command: Command) -> None:
    code, out, err = command(
        "-m",
        *(word for word in TINY if "hidden" not in word),
        "search=tpe",
        "n_trials=7",
        "hidden=interval(16,64)",
        "--dry-run",
    )
    assert code == 0, err
    assert "Dry run: 7 trials; TPESampler with SuccessiveHalvingPruner." in out
    assert "Searched: hidden=interval(16,64)" in out
    assert "12,730 to 50,890 parameters" in out
    assert not list(Path().iterdir())


def test_a_point_that_cannot_run_is_found(command: Command) -> None:
    code, _, err = command("-m", *TINY, "lr=0.1,-1", "--dry-run")
    assert code == 2
    assert "1 of 2 points cannot run" in err


def test_a_single_run_has_no_dry_run(command: Command) -> None:
    code, _, err = command("--dry-run", "hidden=8")
    assert code == 2
    assert "Add -m" in err
