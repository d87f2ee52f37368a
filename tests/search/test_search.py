"""Searching with Optuna: trials end as their runs did, and a search goes on where it stopped."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pandas as pd
import pytest
from kit import processes, wait_for
from samples import TINY
from trainings import run

from mnist_exp import config as configs
from mnist_exp.charts import search as searching
from mnist_exp.charts.style import svg
from mnist_exp.config import Config, settings
from mnist_exp.disk import journal, lanes, ledger, plan
from mnist_exp.disk.files import read_json
from mnist_exp.disk.ledger import Ledger
from mnist_exp.disk.plan import Plan
from mnist_exp.engine.events import Control, Observer
from mnist_exp.errors import ConfigError
from mnist_exp.results import load, names
from mnist_exp.run.session import Result, Run, Task, run_many
from mnist_exp.search import reporter
from mnist_exp.search import study as studies
from mnist_exp.search.analysis import Analysis, analyse
from mnist_exp.search.study import Search
from mnist_exp.sweep import setup

Command = Callable[..., tuple[int, str, str]]
HALVING = {"_target_": "optuna.pruners.SuccessiveHalvingPruner", "min_resource": 1, "reduction_factor": 2}
RANDOM = {"_target_": "optuna.samplers.RandomSampler"}
# In this process, one after the other: what the launcher does to a search is tried below, in processes of its own.
HERE = ("-m", *TINY, "hydra/launcher=basic", "hydra.sweeper.report=false", "hydra.sweeper.batch=2")
SPACE = ("hidden=int(interval(2,40))", "lr=tag(log,interval(1e-4,1e-1))")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Optuna is as it was before; storages are opened anew."""
    yield
    studies.storage.cache_clear()
    optuna.logging.enable_default_handler()
    optuna.logging.disable_propagation()
    optuna.logging.set_verbosity(optuna.logging.INFO)


def begun(folder: Path, **options: Any) -> tuple[Search, optuna.Study]:
    search = Search(**{"study": "s", "n_trials": 9, "sampler": RANDOM, "pruner": HALVING, **options})
    search.write(folder)
    return search, studies.lead(folder, search, {})


def watch(about: Run, control: Control) -> Sequence[Observer]:
    return reporter.watch(about.folder, about.config, about.ledger.epoch, control)


def home() -> Path:
    (folder,) = (path.parent for path in Path("outputs/sweeps").glob("*/*/study.json"))
    return folder


def states(folder: Path) -> list[str]:
    studies.storage.cache_clear()
    return [trial.state.name for trial in studies.join(folder).trials]


@pytest.mark.parametrize(
    ("state", "summary", "becomes"),
    [
        ("finished", {"final/val_accuracy": 0.5}, "COMPLETE"),
        ("pruned", {"final/val_accuracy": 0.5}, "PRUNED"),
        ("failed", {}, "FAIL"),
        ("killed", {}, "RUNNING"),
        ("running", {}, "RUNNING"),
    ],
)
def test_a_trial_ends_as_its_run_did(scratch: Path, state: str, summary: dict[str, float], becomes: str) -> None:
    search, study = begun(scratch)
    study.ask()
    assert studies.settle(study, 0, search, [Ledger(state=state, summary=summary)]) == becomes
    assert study.trials[0].state.name == becomes
    assert study.trials[0].value == (0.5 if becomes == "COMPLETE" else None)
    if becomes != "RUNNING":  # what has ended stays so
        assert studies.settle(study, 0, search, [Ledger(state="failed")]) == becomes


@pytest.mark.parametrize("summary", [{"final/val_loss": float("nan")}, {"final/val_accuracy": 0.5}])
def test_a_trial_fails_whose_run_has_no_objective(scratch: Path, summary: dict[str, float]) -> None:
    search, study = begun(scratch, objectives=["final/val_loss"])
    study.ask()
    assert studies.settle(study, 0, search, [Ledger(state="finished", summary=summary)]) == "FAIL"


def test_a_run_reports_each_epoch_and_ends_where_the_pruner_says(scratch: Path, tiny: Callable[..., Config]) -> None:
    _, study = begun(scratch)
    for _ in range(2):
        rival = study.ask()
        rival.report(1.0, 1)
        rival.should_prune()
    study.ask()
    folder = scratch / "2"
    result = run(tiny(epochs=6), folder, watch=watch)
    assert (result.state, result.reason) == ("pruned", "Pruned after epoch 1 of 6.")
    entry = ledger.read(folder)
    assert (entry.state, entry.epoch) == ("pruned", 1)
    assert not (folder / "weights.safetensors").exists()
    assert study.trials[2].intermediate_values == {1: result.summary["final/val_accuracy"]}


def validated(folder: Path) -> list[float]:
    return [row["metrics"]["val/accuracy"] for row in journal.read(folder)]


def test_seeds_one_after_the_other_report_their_mean_so_far(scratch: Path, tiny: Callable[..., Config]) -> None:
    """A step of the study is an epoch of each: here two of the first, then two of the second."""
    _, study = begun(scratch, replicates=[["seed=0"], ["seed=1"]], pruner={"_target_": "optuna.pruners.NopPruner"})
    study.ask()
    for seed in (0, 1):
        run(tiny(epochs=4, seed=seed), scratch / str(seed), watch=watch)
    first, second = validated(scratch / "0"), validated(scratch / "1")
    means = [fmean([first[1], second[1]]), fmean([first[3], second[3]])]
    assert study.trials[0].intermediate_values == pytest.approx(dict(enumerate([*first[1::2], *means], start=1)))


def test_seeds_that_train_together_report_the_mean_of_all_and_end_together(
    scratch: Path, tiny: Callable[..., Config]
) -> None:
    _, study = begun(scratch, replicates=[["seed=0"], ["seed=1"], ["seed=2"]])
    for _ in range(2):
        rival = study.ask()
        rival.report(1.0, 1)
        rival.should_prune()
    study.ask()
    each = [tiny(epochs=6, seed=seed) for seed in range(3)]
    for one in each:
        one.data.order_seed = 0
    folders = [scratch / str(number) for number in (6, 7, 8)]
    results = run_many([Task(*pair) for pair in zip(each, folders, strict=True)], watch=watch)
    assert {result.reason for result in results if isinstance(result, Result)} == {"Pruned after epoch 1 of 6."}
    assert [len(validated(folder)) for folder in folders] == [1, 1, 1]
    mean = fmean(validated(folder)[0] for folder in folders)
    assert study.trials[2].intermediate_values == {1: pytest.approx(mean)}


def test_trials_that_train_together_are_judged_in_their_order_when_all_have_reported(
    scratch: Path, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes are ordered by width, and a halving lets the first that it is asked about go on."""
    _, study = begun(scratch)
    asked: list[tuple[int, list[int]]] = []
    monkeypatch.setattr(
        optuna.Trial, "should_prune", lambda trial: asked.append((trial.number, reported(study))) or trial.number > 0
    )
    each = [tiny(epochs=2, hidden=hidden) for hidden in (30, 8, 20)]
    for _ in each:
        study.ask()
    results = run_many([Task(config, scratch / str(i)) for i, config in enumerate(each)], watch=watch)
    assert asked == [(i, [1, 1, 1]) for i in range(3)]
    assert [result.state for result in results if isinstance(result, Result)] == ["finished", "pruned", "pruned"]


def reported(study: optuna.Study) -> list[int]:
    return [len(trial.intermediate_values) for trial in study.trials]


def test_a_seed_that_goes_on_reports_what_was_not(scratch: Path, tiny: Callable[..., Config]) -> None:
    _, study = begun(scratch, replicates=[["seed=0"], ["seed=1"]])
    run(tiny(epochs=2), scratch / "0", watch=watch)
    study.ask()
    watch(Run(tiny(epochs=4), scratch / "0", Ledger(epoch=2), *[None] * 3), Control())  # type: ignore[arg-type]
    assert list(study.trials[0].intermediate_values) == [1]


def test_a_run_without_a_study_or_with_a_finished_trial_is_left_alone(
    scratch: Path, tiny: Callable[..., Config]
) -> None:
    observers = []

    def look(about: Run, control: Control) -> list[Any]:
        observers.append(watch(about, control))
        return []

    run(tiny(epochs=1), scratch / "0", watch=look)
    _, study = begun(scratch)
    study.ask()
    study.tell(0, 0.5)
    run(tiny(epochs=1), scratch / "1", watch=look)
    assert observers == [[], []]


def test_a_lost_storage_does_not_stop_a_run(
    scratch: Path, tiny: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    _, study = begun(scratch)
    study.ask()
    (scratch / "optuna.journal").write_text("")
    studies.storage.cache_clear()
    assert run(tiny(epochs=2), scratch / "0", watch=watch).state == "finished"
    assert "does not reach its study" in caplog.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"objectives": ["final/test_accuracy"]}, "the test set is reported, it chooses nothing"),
        ({"objectives": ["val/loss"]}, "val/loss cannot be an objective"),
        ({"objectives": ["time/total"]}, "nothing can be pruned by it"),
        ({"objectives": ["final/val_loss", "time/total"]}, "one objective only"),
        ({"batch": 0}, "hydra.sweeper.batch must be at least 1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        studies.check(Search(**{"study": "s", "n_trials": 9, "sampler": RANDOM, "pruner": HALVING, **options}))
    assert sentence in caught.value.message


def test_a_sampler_that_takes_no_such_keyword(scratch: Path) -> None:
    with pytest.raises(ConfigError, match=r"hydra.sweeper.sampler \(optuna.samplers.RandomSampler\)"):
        begun(scratch, sampler={**RANDOM, "colour": 1})


def test_a_password_stays_in_the_environment(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(study="s", n_trials=1, sampler=RANDOM, storage="${oc.env:STUDIES}")
    with pytest.raises(ConfigError, match="STUDIES"):
        studies.address(search, scratch)
    monkeypatch.setenv("STUDIES", "postgresql://me:secret@host/db")
    assert studies.address(search, scratch) == "postgresql://me:secret@host/db"
    search.write(scratch)
    assert "secret" not in (scratch / "study.json").read_text()


@pytest.mark.integration
def test_a_storage_that_the_environment_names(command: Command, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have a password; where it is leaves no trace, neither at first nor by resuming."""
    database = f"{scratch}/kept.db"
    monkeypatch.setenv("STUDIES", f"sqlite:///{database}")
    storage = "hydra.sweeper.storage=${oc.env:STUDIES}"
    assert command(*HERE, "search=random", "n_trials=1", storage, *SPACE)[0] == 0
    assert command("-m", "resume=last", "n_trials=2", "hydra/launcher=basic")[0] == 0
    assert states(home()) == ["COMPLETE"] * 2
    files = [path for path in Path("outputs").rglob("*") if path.is_file()]
    assert not [path for path in files if database.encode() in path.read_bytes()]
    monkeypatch.setenv("STUDIES", "postgresql://me:correct-horse@127.0.0.1:1/none")
    code, out, err = command(*HERE, "search=random", storage, *SPACE)
    assert code == 2
    assert "error: The storage of the study cannot be opened" in err
    assert "correct-horse" not in out + err


@pytest.mark.integration
def test_a_search_and_going_on_with_it(command: Command) -> None:
    code, out, err = command(*HERE, "search=tpe", "n_trials=3", "hydra.sweeper.seed=5", *SPACE)
    assert code == 0, err
    folder = home()
    assert "Search " in out
    assert "3 trials; TPESampler with SuccessiveHalvingPruner" in out
    assert set(states(folder)) <= {"COMPLETE", "PRUNED"}
    before = [trial.params for trial in studies.join(folder).trials]
    # As a kill leaves it: one trial was asked and not written down, another counts as running.
    study = studies.lead(folder, studies.read(folder), {}, again=True)
    study.ask()
    entry = ledger.read(folder / "1")
    code, out, err = command("-m", "resume=last", "n_trials=5", "hydra/launcher=basic")
    assert code == 0, err
    ends = states(folder)
    assert len(ends) == 5
    assert set(ends) <= {"COMPLETE", "PRUNED"}  # the one that was asked is run
    after = [trial.params for trial in studies.join(folder).trials]
    assert after[:3] == before
    assert len({tuple(params.items()) for params in after if params}) == 5  # none twice
    assert len(plan.read(folder).points) == 5
    assert entry == ledger.read(folder / "1")
    assert read_json(folder / "study.json")["seed"] == 5
    assert "search=tpe" not in ledger.read(folder / "4").overrides
    assert "n_trials=5" not in ledger.read(folder / "4").overrides
    code, out, err = command("-m", "resume=last", "hydra/launcher=basic")
    assert len(states(folder)) == 5
    assert "5 of them done already" in out


@pytest.mark.slow
def test_several_objectives(command: Command) -> None:
    code, out, err = command(*HERE, "search=nsgaii", "n_trials=5", *SPACE)
    assert code == 0, out + err
    analysis = analyse(home())
    assert analysis
    assert analysis.front
    assert set(analysis.importance) == {"hidden", "lr"}
    assert analysis.search.directions == ["maximize", "minimize"]


@pytest.mark.integration
@pytest.mark.parametrize("objectives", [[], ["final/val_accuracy", "model/parameters"]], ids=len)
def test_what_a_report_draws_of_a_search(objectives: list[str]) -> None:
    rows = [
        {
            "number": i,
            "state": "pruned" if i % 2 else "finished",
            "hidden": 8 * i + 8,
            "optimizer": "adam",
            "lr": 0.1**i,
        }
        | {"final/val_accuracy": 0.9 + 0.01 * i, "model/parameters": 100.0 * i + 1}
        for i in range(6)
    ]
    rows.append(rows[0] | {"number": 6, "state": "failed", "final/val_accuracy": float("nan")})
    analysis = Analysis(
        Search(study="s", n_trials=7, sampler=RANDOM, objectives=objectives), {"lr": 0.9, "hidden": 0.1}, [4]
    )
    overview, each = searching.pictures(pd.DataFrame(rows), ["hidden", "lr", "optimizer"], analysis, "val")
    drawn = overview + each
    names = [picture.name for picture in drawn]
    expected = ["search_history", "search_importance", "search_front", "search_lr", "search_hidden"]
    assert names == [name for name in expected if objectives or name != "search_front"]
    assert drawn[0].alt == "validation accuracy, % of 6 runs in order, 3 of them pruned; the best has 94."
    assert drawn[1].alt == "Importance: lr 90 %, hidden 10 %."
    assert all("<svg" in svg(picture) for picture in drawn)


@pytest.mark.integration
def test_a_search_ends_when_all_points_of_its_space_were_tried(command: Command) -> None:
    space = ("hidden=8,12", "model.dropout=0,0.5")
    code, out, err = command(*HERE[:-2], "hydra.sweeper.report=false", "search=random", *space, "n_trials=4")
    assert code == 0, err
    assert "repeated an earlier one" in out, "a repeat counts no more when the search goes on"
    code, out, err = command("-m", "resume=last", "n_trials=200", "hydra/launcher=basic")
    assert code == 0, err
    assert "A space of 4 points ended the search after" in out
    assert len(list(home().glob("*/ledger.json"))) == 4
    assert len(states(home())) < 200


@pytest.mark.integration
@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_trial_that_repeats_another_has_its_result(launcher: str, command: Command) -> None:
    """With a function of the space: nobody knows when all points of that were tried."""
    Path("any_space.py").write_text("def nothing(trial): return {}\n")
    quick = [*HERE[:-2], "hydra.sweeper.batch=4", "hydra.sweeper.report=false", "search=random"]
    here = [word.replace("basic", launcher) for word in quick if not word.startswith("hidden")]
    code, out, err = command(*here, "hidden=8,12", "hydra.sweeper.space=any_space.nothing", "n_trials=8")
    assert code == 0, err
    assert "6 trials repeated an earlier one and took its result." in out
    assert len(list(home().glob("*/ledger.json"))) == 2
    assert states(home()) == ["COMPLETE"] * 8
    values = {(trial.params["hidden"], trial.value) for trial in studies.join(home()).trials}
    assert len(values) == 2
    assert len(plan.read(home()).repeats) == 6
    code, _, err = command("-m", "resume=last", "n_trials=10", "hydra.launcher.workers=0")
    assert code == 2, "also where no job is left for a worker"
    assert "hydra.launcher.workers must be at least 1, but got 0." in err
    code, out, err = command(*here[:1], "resume=last", "n_trials=10", "hydra/launcher=basic")
    assert code == 0, err
    assert "8 of them done already" in out
    assert "2 trials repeated an earlier one and took its result." in out
    assert len(list(home().glob("*/ledger.json"))) == 2


@pytest.mark.integration
def test_seeds_are_averaged_in_each_trial(command: Command) -> None:
    code, out, err = command(*HERE, "search=random", "n_trials=2", "seed=0,1", *SPACE)
    assert code == 0, err
    assert "2 trials of 2 runs each; RandomSampler" in out
    seeds = [point[-1] for point in plan.read(home()).points]
    assert seeds == ["seed=0", "seed=1"] * 2
    for trial in studies.join(home()).trials:
        assert set(trial.params) == {"hidden", "lr"}
        runs = [ledger.read(home() / str(2 * trial.number + i)) for i in range(2)]
        assert trial.value == pytest.approx(fmean(entry.objective for entry in runs))
    assert searching.trials(load(home()), ["final/val_accuracy"], 2)["number"].tolist() == [0, 1]
    code, _, err = command("-m", "resume=last", "seed=0,1,2", "hydra/launcher=basic")
    assert code == 2
    assert "The trials of this search have seed=0 seed=1; with other seeds they could not be compared." in err
    code, out, err = command("-m", "resume=last", "n_trials=3", "hydra/launcher=basic")
    assert code == 0, err
    assert len(list(home().glob("*/ledger.json"))) == 6


@pytest.mark.integration
def test_folds_are_averaged_in_each_trial(command: Command) -> None:
    code, out, err = command(*HERE, "search=random", "n_trials=2", "data.folds=3", "data.fold=0,1,2", SPACE[1])
    assert code == 0, out + err
    for trial in studies.join(home()).trials:
        assert set(trial.params) == {"lr"}
        runs = [ledger.read(home() / str(3 * trial.number + i)) for i in range(3)]
        assert trial.value == pytest.approx(fmean(entry.objective for entry in runs))


@pytest.mark.integration
def test_a_lucky_seed_is_not_searched_for(command: Command) -> None:
    code, _, err = command(*HERE, "search=random", "seed=interval(0,9)", *SPACE)
    assert code == 2
    assert "seed=interval(0,9): a search does not look for a lucky seed or fold." in err


@pytest.mark.integration
def test_a_search_of_an_earlier_version_goes_on_with_the_seed_as_a_choice(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(setup, "REPLICATES", ())
        assert command(*HERE, "search=random", "n_trials=1", "seed=0,1", *SPACE)[0] == 0
    code, out, err = command("-m", "resume=last", "n_trials=3", "hydra/launcher=basic")
    assert code == 0, out + err
    assert "ends with version 2.0.0. Instead: a new search, seed=0,1,2 gives" in " ".join(out.split())
    assert len(plan.read(home()).points) == 3
    assert all(trial.params["seed"] in (0, 1) for trial in studies.join(home()).trials)


@pytest.mark.integration
def test_the_seeds_of_a_trial_train_together(command: Command) -> None:
    here = [word for word in HERE if "launcher" not in word]
    typed = ("search=random", "n_trials=2", "seed=0,1,2", "data.order_seed=0", "lr=interval(0.01,0.1)")
    code, out, err = command(*here, *typed, "hydra.launcher.workers=2")
    assert code == 0, out + err
    records = [lanes.read(home() / str(number)) for number in range(6)]
    assert [record and record.lane for record in records] == [0, 1, 2, 0, 1, 2]
    assert len({record.pack for record in records if record}) == 2
    assert states(home()) == ["COMPLETE"] * 2


@pytest.mark.integration
def test_trials_train_together_until_they_are_pruned(command: Command) -> None:
    here = [word for word in HERE if not word.startswith(("hydra/launcher", "hydra.sweeper.batch"))]
    typed = ("search=asha", "n_trials=9", "epochs=4", "hydra.sweeper.batch=4", *SPACE)
    code, out, err = command(*here, *typed, "hydra.launcher.workers=1")
    assert code == 0, out + err
    ends = states(home())
    assert set(ends) == {"COMPLETE", "PRUNED"}
    records = [lanes.read(home() / str(number)) for number in range(9)]
    assert sorted(Counter(record.pack if record else "" for record in records).values()) == [1, 4, 4]
    for number, record in enumerate(records):
        rows = journal.read(home() / str(number))
        assert sorted(studies.join(home()).trials[number].intermediate_values) == [row["epoch"] for row in rows]
        assert (len(rows) == 4) == (ends[number] == "COMPLETE")
        if record and ends[number] == "COMPLETE":
            assert len(record.left) == sum(ends[i] == "PRUNED" for i in range(9) if alike(records[i], record))


def alike(one: lanes.PackRecord | None, other: lanes.PackRecord) -> bool:
    return one is not None and one.pack == other.pack


@pytest.mark.parametrize("typed", ["soon", "-3m", "10 m", ""])
def test_what_is_no_duration(typed: str) -> None:
    with pytest.raises(ConfigError, match="time_budget must be a number with s, m, h or d"):
        settings()["time_budget"].check(typed)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("ends", "done"), [("time_budget=0.001s", 0), ("hydra.sweeper.patience=3", 4)], ids=["time", "patience"]
)
def test_a_search_ends_early_says_why_and_goes_on(ends: str, done: int, command: Command) -> None:
    here = [word for word in HERE if "hidden" not in word]
    first = "enqueue='hidden=40 lr=0.05'"  # the best there is
    space = ["hidden=2,40", "lr=1e-9,0.05", "batch_size=range(12,21)"]
    code, out, err = command(*here, "search=random", "n_trials=30", *space, ends, first)
    assert code in (0, 2), err
    if done:
        assert f"{ends} ended the search after " in out
        assert "Go on with:\n  python -m mnist_exp.train -m resume=" in out
        assert studies.join(home()).trials[0].params["hidden"] == 40
        before = len(states(home()))
        assert done <= before < 30
        code, out, err = command("-m", "resume=last", "hydra/launcher=basic")
        assert code == 0, err
        assert before < len(states(home()))


@pytest.mark.integration
def test_what_is_for_a_search_is_refused_in_a_grid(command: Command) -> None:
    for typed in ("time_budget=10m", "enqueue=last"):
        code, _, err = command("-m", *TINY, "lr=1,2", typed)
        assert code == 2
        assert "is for a search, and this is a grid." in err


@pytest.mark.integration
def test_known_points_come_first(command: Command) -> None:
    here = [word for word in HERE if "hidden" not in word]
    Path("known.csv").write_text("hidden,lr\n5,0.01\n7,0.02\n")
    code, _, err = command(*here, "search=random", "n_trials=3", *SPACE, "enqueue=known.csv")
    assert code == 0, err
    params = [trial.params for trial in studies.join(home()).trials]
    assert params[:2] == [{"hidden": 5, "lr": 0.01}, {"hidden": 7, "lr": 0.02}]
    for n_trials in (4, 5):  # typed with resume= it is tried next, and not once more by the same command
        more = (f"n_trials={n_trials}", "enqueue='hidden=9 lr=0.03'")
        code, _, err = command("-m", "resume=last", "hydra/launcher=basic", *more)
        assert code == 0, err
        studies.storage.cache_clear()
        params = [trial.params for trial in studies.join(home()).trials]
        assert [i for i, each in enumerate(params) if each == {"hidden": 9, "lr": 0.03}] == [3]
    best = configs.load(names.best(names.resolve("last")).at / "config.yaml")
    second = "hydra.sweep.dir=outputs/sweeps/b/c"
    code, _, err = command(*here, "search=random", "n_trials=1", *SPACE, "enqueue=last", second)
    assert code == 0, err
    studies.storage.cache_clear()
    (trial,) = studies.join(Path("outputs/sweeps/b/c")).trials
    assert trial.params == {"hidden": best.hidden, "lr": pytest.approx(best.lr)}


@pytest.mark.integration
def test_every_combination_with_pruning(command: Command) -> None:
    code, out, err = command(*HERE, "search=halving_grid", "hidden=4,8", "lr=1e-3,1e-2")
    assert code == 0, out + err
    points = plan.read(home()).points
    assert len({tuple(point) for point in points}) == len(points) == 4


@pytest.mark.integration
def test_bad_ends_are_reported_before_anything_starts(command: Command) -> None:
    code, _, err = command(*HERE, "search=random", "lr=interval(-1,1)")
    assert code == 2
    assert "lr must be a finite number > 0 in float32, but got -1" in err
    assert not list(Path("outputs").glob("sweeps/*/*/0"))


def test_without_optuna_one_sentence_says_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = command(*HERE, "search=tpe", *SPACE)
    assert code == 2
    assert err.splitlines() == [
        "error: Searching needs Optuna.",
        "  help: Install it: pip install 'mnist_exp[search]'",
    ]


@pytest.mark.parametrize("name", ["random", "asha", "tpe", "hyperband", "gp", "cmaes"])
def test_each_preset_can_be_begun(name: str, scratch: Path) -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from mnist_exp import config

    with initialize_config_dir(config.conf_dir(), version_base="1.3"):
        cfg = compose("train", [f"search={name}"], return_hydra_config=True)
    options: Any = OmegaConf.to_container(cfg.hydra.sweeper, resolve=True)
    search, study = begun(scratch, sampler=options["sampler"], pruner=options["pruner"])
    assert study.ask().suggest_float("lr", 0.0, 1.0) >= 0
    assert type(study.sampler).__name__ == search.sampler["_target_"].split(".")[-1]


@pytest.mark.integration
@pytest.mark.parametrize("search", ["random", "grid"])
def test_a_trial_asked_for_before_a_kill_and_not_written_down_is_run(
    command: Command, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    """One that has ended, and that the plan does not know, is no failure of the sweep."""
    varied = ("lr=1e-3,3e-3", "hidden=8,12") if search == "grid" else SPACE
    typed = (*HERE, "search=halving_grid" if search == "grid" else "search=random", *varied, "n_trials=2")
    with monkeypatch.context() as patch:
        write = Plan.write

        def killed(self: Plan, folder: Path) -> None:
            if self.points:
                raise KeyboardInterrupt
            write(self, folder)

        patch.setattr(Plan, "write", killed)
        assert command(*typed)[0] == 130
    assert states(home()) == ["RUNNING"]
    if search == "random":
        studies.join(home()).ask()
        studies.fail(studies.join(home()), 1)
    code, out, err = command("-m", "resume=last", "hydra/launcher=basic", "hydra.sweeper.report=false")
    assert code == 0, out + err
    failed = [state == "FAIL" for state in states(home())]
    assert failed == ([False, False] if search == "grid" else [False, True, False])
    assert [not point for point in plan.read(home()).points] == failed


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hydra.launcher.pack=off", "hydra.sweeper.batch=3"])
def test_driver_and_worker_killed_and_nothing_is_lost_or_repeated(how: str) -> None:
    """At last exactly n_trials runs have finished or were pruned; the killed one went on where it was."""
    common = [
        "data=synthetic",
        "data.train_images=8000",
        "epochs=9",
        "tracking=off",
        "threads=1",
        "checkpoint.model=false",
    ]
    typed = ["search=asha", "n_trials=12", *SPACE, *common, "hydra.launcher.workers=2", how]
    started = [sys.executable, "-m", "mnist_exp.train", "-m"]
    driver = subprocess.Popen([*started, *typed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(Path("outputs").glob("sweeps/*/*/2/metrics.jsonl")))
    os.kill(wait_for(_at_work), signal.SIGKILL)
    wait_for(lambda: len(list(home().glob("*/metrics.jsonl"))) >= 5)
    driver.kill()
    driver.wait()
    wait_for(lambda: not processes())
    done = list(home().glob("*/metrics.jsonl"))
    ended = subprocess.run([*started, "resume=last"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert sorted(set(states(home()))) in (["COMPLETE", "PRUNED"], ["COMPLETE"])
    assert len(states(home())) == 12
    entries = [ledger.read(home() / str(i)) for i in range(12)]
    assert all(entry.state in ("finished", "pruned") for entry in entries)
    for number, entry in enumerate(entries):
        rows = (home() / str(number) / "metrics.jsonl").read_text().splitlines()
        assert len(rows) == entry.epoch  # each epoch once
        trial = studies.join(home()).trials[number]
        assert sorted(trial.intermediate_values) == list(range(1, entry.epoch + 1))
    assert len(done) < 12
    points = plan.read(home()).points
    assert len({tuple(point) for point in points}) == 12


def _at_work() -> int | None:
    """A process that trains, if any."""
    entries = (ledger.read(path.parent) for path in home().glob("*/ledger.json"))
    return next((entry.pid for entry in entries if entry.state == "running" and entry.epoch), None)


def test_a_sampler_has_a_seed_after_any_number_of_trials(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "asked", lambda study: 5_000)
    _, study = begun(scratch)
    assert 0 <= study.ask().suggest_float("x", 0, 1) <= 1


@pytest.mark.integration
def test_two_searches_in_folders_of_one_name_share_a_storage_but_no_study(command: Command) -> None:
    storage = f"hydra.sweeper.storage=sqlite:///{Path.cwd()}/trials.db"
    for parent in ("a", "b"):
        typed = (*HERE, *SPACE, "search=random", "n_trials=1", storage, f"hydra.sweep.dir=outputs/sweeps/{parent}/s")
        code, _, err = command(*typed)
        assert code == 0, err
    ends = {states(Path(f"outputs/sweeps/{parent}/s"))[0] for parent in ("a", "b")}
    assert ends == {"COMPLETE"}
    names = optuna.get_all_study_names(f"sqlite:///{Path.cwd()}/trials.db")
    assert len(names) == 2
    assert all(name.startswith("s-") for name in names)


@pytest.mark.faults(38)
@pytest.mark.parametrize("left", [-40, 0.5, 0], ids=["last line torn", "half of it", "nothing"])
def test_a_journal_that_has_lost_its_end_does_not_end_the_search(
    left: float, command: Command, injected: Callable[[], None]
) -> None:
    """As a power cut leaves it. What it has lost is in the plan and the ledgers: no trial is trained or asked twice."""
    assert command(*HERE, "search=random", "n_trials=3", *SPACE)[0] == 0
    folder = home()
    before = [(trial.params, trial.values) for trial in studies.join(folder).trials]
    journal = folder / "optuna.journal"
    size = journal.stat().st_size
    os.truncate(journal, int(size + left if left < 0 else size * left))
    studies.storage.cache_clear()
    code, out, err = command("-m", "resume=last", "n_trials=4", "hydra/launcher=basic")
    assert code == 0, err
    assert "4 trials, 3 of them done already" in out
    after = [(trial.params, trial.values) for trial in studies.join(folder).trials]
    assert after[:3] == before
    assert len(after) == 4
    injected()


@pytest.mark.parametrize("journal", ["", None], ids=["empty", "gone"])
def test_a_study_whose_journal_is_lost_is_named_in_the_report(scratch: Path, journal: str | None) -> None:
    begun(scratch)
    (scratch / "optuna.journal").unlink()
    if journal is not None:
        (scratch / "optuna.journal").write_text(journal)
    studies.storage.cache_clear()
    analysis = analyse(scratch)
    assert analysis is not None
    assert "has no study 's': it was lost or emptied" in analysis.problem


@pytest.mark.integration
@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (["search=tpe"], {"hidden", "lr"}),
        (["search=asha", "hidden=8"], {"lr"}),
        (["search=random", "model=small_cnn"], {"lr"}),
    ],
)
def test_a_preset_alone_searches_the_usual(command: Command, typed: list[str], keys: set[str]) -> None:
    own = [override for override in TINY if not override.startswith(("hidden", "epochs"))]
    more = ("epochs=1", "n_trials=1", "hydra/launcher=basic", "hydra.sweeper.report=false")
    code, out, err = command("-m", *own, *typed, *more)
    assert code == 0, err
    assert "Nothing was given to search, so the usual is:\n  " in out
    (trial,) = studies.join(home()).trials
    assert set(trial.params) == keys
    assert command("-m", "resume=last", "hydra/launcher=basic")[0] == 0  # the same again


@pytest.mark.integration
def test_where_all_is_given_there_is_nothing_to_search(command: Command) -> None:
    code, _, err = command(*HERE, "search=tpe", "lr=0.1")  # hidden is in HERE
    assert code == 2
    assert "There is nothing to search" in err
