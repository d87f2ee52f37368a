"""A search's runs: how many there will be, what becomes of those that end, and what goes on after a stop."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest
from omegaconf import OmegaConf
from report_fixtures import make_run

from mnist_exp.disk import lanes
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import ConfigError, Interrupted, SweepError
from mnist_exp.search import study as studies
from mnist_exp.search.study import GRID, Search
from mnist_exp.sweep import search as searches
from mnist_exp.sweep.shell import OurLauncher
from mnist_exp.sweep.trials import Trials

RANDOM = {"_target_": "optuna.samplers.RandomSampler"}
FOLDER = Path("outputs/sweeps/2026-01-31/10-00-00-abcdef")


@pytest.fixture
def made(tiny: Callable[..., Any]) -> Iterator[Callable[..., Trials]]:
    """`made(n_trials=3)`: a search of that many trials, of one width each; `followed` are the folders it has named."""

    def make(again: bool = False, **options: Any) -> Trials:
        FOLDER.mkdir(parents=True, exist_ok=True)
        search = Search(**{"study": "s", "n_trials": 3, "sampler": RANDOM, "max_failures": 10, **options})
        study = studies.lead(FOLDER, search, {}, again)
        plan = Plan(id=FOLDER.name, typed=[], keys=[], points=[], configs=[])
        composer = SimpleNamespace(config_of=lambda overrides: tiny(**dict(map(_setting, overrides))))
        parts = {"control": {"force": False}, "steering": {}, "again": "python -m mnist_exp.train -m resume=day"}
        parts["sweeper"] = SimpleNamespace(launcher=None)
        parts["run"] = lambda number: FOLDER / str(number)
        home: Any = SimpleNamespace(plan=plan, folder=FOLDER, composer=composer, **parts)
        fixed = {"lr": "lr=0.1"}
        space: Any = SimpleNamespace(
            point=lambda trial: [f"hidden={8 + trial.number}"], fixed=fixed, again=lambda o: {}, size=math.inf
        )
        followed: list[Path] = []
        source = Trials(home, study, search, space, followed.append)
        source.followed = followed  # type: ignore[attr-defined]
        return source

    yield make
    studies.storage.cache_clear()
    optuna.logging.enable_default_handler()
    optuna.logging.disable_propagation()
    optuna.logging.set_verbosity(optuna.logging.INFO)


def _setting(override: str) -> tuple[str, int]:
    key, _, value = override.partition("=")
    return key, int(value)


def ends(source: Trials, number: int, state: str, accuracy: float = 0.9) -> None:
    """The run of that *number* has ended so; `lost`: it left no ledger."""
    if state != "lost":
        make_run(FOLDER / str(number), source.plan.points[number], accuracy, state=state)
    source.end(number)


def test_there_are_as_many_as_were_asked_for(made: Callable[..., Trials]) -> None:
    source = made()
    assert (source.wanted, source.coming, source.total, source.fixed) == (3, 3, 3, {"lr=0.1"})
    jobs = [source.next(), source.next()]
    assert [(job.number, job.overrides) for job in itertools.chain(*jobs)] == [(0, ["hidden=8"]), (1, ["hidden=9"])]
    assert (source.wanted, source.coming, source.total, source.done) == (1, 1, 3, 0)
    ends(source, 0, "finished")
    ends(source, 1, "pruned")
    assert (source.done, source.failures, source.ended) == (2, 0, {0: "COMPLETE", 1: "PRUNED"})
    assert source.next()
    assert not source.next()
    assert source.followed == [FOLDER / "0", FOLDER / "1", FOLDER / "2"]  # type: ignore[attr-defined]
    assert source.plan.points == [["hidden=8"], ["hidden=9"], ["hidden=10"]]
    assert all(source.plan.configs)


class Packing(OurLauncher):
    """A local launcher that runs nothing."""

    packs = True

    def run_jobs(self, jobs: Any, total: int = 0, source: Any = None) -> list[Any]:
        return []


@pytest.fixture
def streamed(made: Callable[..., Trials]) -> Callable[..., Trials]:
    """As `made`, under the local launcher with two workers."""

    def make(pack: str = "auto", **options: Any) -> Trials:
        source = made(**options)
        launcher = Packing(workers=2, per_gpu=1, pack=pack)
        source.home.sweeper.launcher = launcher
        source.composer.master = OmegaConf.create({"hydra": {"callbacks": {}, "job": {"env_set": {}, "chdir": None}}})
        return source

    return make


def given(source: Trials) -> list[list[int]]:
    """The numbers of the runs of all packs that it has now."""
    return [[job.number for job in pack] for pack in iter(source.next, [])]


@pytest.mark.integration
def test_small_networks_are_given_out_in_batches_and_the_last_of_them_are_shared(
    streamed: Callable[..., Trials],
) -> None:
    source = streamed(n_trials=11, batch=4)
    assert given(source) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert (source.wanted, source.running) == (0, set(range(11)))
    ends(source, 5, "pruned")
    source.end(5)  # said when it left its pack, and when that has ended
    ends(source, 6, "failed")
    assert (source.done, source.failures, source.wanted) == (1, 1, 1)
    assert given(source) == [[11]]


def test_trials_that_gain_nothing_from_others_are_given_out_one_by_one(streamed: Callable[..., Trials]) -> None:
    assert given(streamed(n_trials=3, batch=4, pack="off")) == [[0], [1], [2]]
    assert given(streamed(n_trials=3, batch=1, study="t")) == [[0], [1], [2]]
    assert given(streamed(n_trials=3, batch=4, study="u", objectives=["time/total"])) == [[0], [1], [2]]
    wide = streamed(n_trials=3, batch=4, study="v")
    wide.space.point = lambda trial: [f"hidden={512 + trial.number}"]  # type: ignore[method-assign]
    assert len(wide.next()) == 1
    assert not wide.waiting, "the next is asked for when a worker is free"


def test_a_trial_that_cannot_join_a_batch_waits_for_the_next_worker(streamed: Callable[..., Trials]) -> None:
    source = streamed(n_trials=8, batch=4)
    source.space.point = lambda trial: [f"hidden={8 + trial.number + 400 * (trial.number == 1)}"]  # type: ignore[method-assign]
    assert sorted(given(source)[:2]) == [[0, 2, 3], [1]]


@pytest.mark.integration
def test_packs_of_trials_that_were_stopped_go_on_together(streamed: Callable[..., Trials]) -> None:
    source = streamed(n_trials=4, batch=2)
    assert given(source) == [[0, 1], [2, 3]]
    for number in range(4):
        state = "pruned" if number == 1 else "killed"
        make_run(FOLDER / str(number), source.plan.points[number], 0.9, state=state)
    for numbers in ((0, 1), (2, 3)):
        lanes.begin(
            [source.composer.config_of(source.plan.points[i]) for i in numbers], [FOLDER / str(i) for i in numbers]
        )
    again = streamed(again=True, n_trials=4)
    again.home.plan.points, again.home.plan.configs = source.plan.points, source.plan.configs
    again.home.control["force"] = True
    again.catch_up()
    assert sorted(given(again)) == [[0], [2, 3]]


def test_a_failed_run_is_replaced_but_not_in_a_grid(made: Callable[..., Trials]) -> None:
    source = made(n_trials=1)
    source.next()
    ends(source, 0, "failed")
    assert (source.failures, source.wanted, source.total) == (1, 1, 2)
    source.next()
    ends(source, 1, "lost")
    assert source.ended == {0: "FAIL", 1: "FAIL"}
    source.search.sampler = {"_target_": GRID}
    assert source.wanted == 0


def test_a_search_ends_after_so_many_failures(made: Callable[..., Trials]) -> None:
    source = made(n_trials=5, max_failures=1)
    for number in (0, 1):
        source.next()
        ends(source, number, "failed")
        assert source.wanted == (5 if number == 0 else 0)
    assert not source.next()


def test_a_suggestion_that_cannot_be_is_replaced_and_its_reason_kept(made: Callable[..., Trials]) -> None:
    source = made(n_trials=1)
    works = source.composer.config_of

    def config_of(overrides: list[str]) -> Any:
        if overrides == ["hidden=8"]:
            raise ConfigError("It does not fit.")
        return works(overrides)

    source.composer.config_of = config_of  # type: ignore[method-assign]
    (job,) = source.next()
    assert job.number == 1
    assert (source.reasons, source.ended, source.failures) == ({0: "It does not fit."}, {0: "FAIL"}, 1)
    assert source.plan.configs[0] == ""
    assert source.followed == [FOLDER / "1"]  # type: ignore[attr-defined]
    assert source.study.trials[0].state.name == "FAIL"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TypeError("no such keyword"), r"sampler \(optuna.samplers.RandomSampler\) cannot suggest anything: no such"),
        (ConfigError("Of ours."), r"Of ours\."),
    ],
)
def test_a_space_or_sampler_of_no_use_ends_the_search(error: Exception, said: str, made: Callable[..., Trials]) -> None:
    source = made()

    def point(trial: Any) -> list[str]:
        raise error

    source.space.point = point  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=said):
        source.next()
    assert [trial.state.name for trial in source.study.trials] == ["FAIL"]


def test_after_a_stop_finished_runs_count_and_others_go_on(made: Callable[..., Trials]) -> None:
    source = made(n_trials=4)
    for _ in range(3):
        source.next()
    make_run(FOLDER / "0", ["hidden=8"], 0.9)
    make_run(FOLDER / "1", ["hidden=9"], 0.5, state="killed")
    source.study.ask()  # killed before it was written down
    again = made(again=True, n_trials=4)
    again.home.plan.points, again.home.plan.configs = source.plan.points, source.plan.configs
    again.home.control["force"] = True
    again.catch_up()
    assert again.ended == {0: "COMPLETE"}
    assert [(job.number, job.overrides) for job in itertools.chain(*again.waiting)] == [
        (1, ["hidden=9", "force=true"]),
        (2, ["hidden=10", "force=true"]),
        (3, ["hidden=11"]),
    ]
    assert again.plan.points[3:] == [["hidden=11"]]
    assert (again.coming, again.wanted, again.failures) == (3, 0, 0)


def test_launchers_that_return_get_batches(made: Callable[..., Trials]) -> None:
    source = made(n_trials=3, batch=2)
    batches: list[list[int]] = []

    def launch(jobs: list[Any]) -> list[Any]:
        batches.append([job.number for job in jobs])
        for job in jobs:
            make_run(FOLDER / str(job.number), job.overrides, 0.9)
        return [SimpleNamespace(_return_value=0.9) for _ in jobs]

    source.home.launch = launch  # type: ignore[method-assign, assignment]
    searches.in_batches(source)
    assert batches == [[0, 1], [2]]
    assert source.done == 3
    source.search.n_trials = 4
    source.home.launch = lambda jobs: [SimpleNamespace(_return_value=Interrupted("Stopped."))]  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(Interrupted):
        searches.in_batches(source)


def test_launchers_of_ours_get_the_first_run_and_the_source_of_the_others(streamed: Callable[..., Trials]) -> None:
    source = streamed(n_trials=2, batch=1)
    taken: list[Any] = []
    source.home.sweeper.launcher.run_jobs = lambda jobs, source: taken.append(([job.number for job in jobs], source))
    searches.run(source)
    assert taken == [([0], source)]
    assert source.batch == 1


def test_what_pruning_saved_and_what_failed_is_said(
    made: Callable[..., Trials], capsys: pytest.CaptureFixture[str]
) -> None:
    source = made(n_trials=3)
    for number, state in enumerate(("finished", "pruned", "failed")):
        source.next()
        ends(source, number, state)
    columns = {"folder": None, "name": "x", "reason": "", "overrides": None, "epochs": 10}
    rows = [
        {"number": number, "state": state, "epoch": epoch, **columns, "overrides": [f"hidden={8 + number}"]}
        for number, (state, epoch) in enumerate((("finished", 10), ("pruned", 3), ("failed", 2)))
    ]
    source.reasons[2] = "It does not fit."
    with pytest.raises(SweepError) as failed:
        searches.conclude(source, pd.DataFrame(rows))
    assert "1 of 3 runs were pruned: 15 of 30 epochs were trained." in capsys.readouterr().out
    assert failed.value.message.startswith("1 of 3 runs failed; 2 finished or were pruned:\n")
    assert "It does not fit." in failed.value.message
    assert failed.value.help.startswith("1 are missing:\npython -m mnist_exp.train -m resume=")
    searches.conclude(source, pd.DataFrame(rows[:1]))
    assert capsys.readouterr().out == ""


SEEDS = [["seed=0"], ["seed=1"]]


def test_the_seeds_of_a_trial_begin_in_turn_and_its_value_is_their_mean(
    made: Callable[..., Trials],
) -> None:
    source = made(n_trials=2, replicates=SEEDS)
    assert (source.wanted, source.coming, source.total) == (2, 4, 4)
    assert [job.overrides for job in source.next()] == [["hidden=8", "seed=0"]]
    assert [job.overrides for job in source.next()] == [["hidden=9", "seed=0"]]
    assert not source.next()
    assert (source.wanted, source.coming, source.total) == (0, 2, 4)
    ends(source, 0, "finished", accuracy=0.8)
    assert source.study.trials[0].state.name == "RUNNING"
    assert [job.number for job in source.next()] == [1]
    ends(source, 1, "finished", accuracy=0.6)
    assert source.ended == {0: "COMPLETE"}
    assert source.study.trials[0].value == pytest.approx(0.7)
    assert (source.wanted, source.coming, source.total) == (0, 1, 4)
    assert source.plan.points[2:] == [["hidden=9", "seed=0"], ["hidden=9", "seed=1"]]


@pytest.mark.parametrize(("state", "becomes"), [("pruned", "PRUNED"), ("failed", "FAIL"), ("lost", "FAIL")])
def test_a_seed_that_does_not_finish_ends_its_trial(state: str, becomes: str, made: Callable[..., Trials]) -> None:
    source = made(n_trials=1, replicates=SEEDS)
    source.next()
    ends(source, 0, state)
    assert source.ended == {0: becomes}
    assert source.study.trials[0].state.name == becomes
    assert source.plan.repeats == [1]  # it never begins
    assert source.wanted == (becomes == "FAIL")
    assert source.total == 1 + 2 * source.wanted


def test_a_trial_goes_on_with_the_seeds_that_it_lacks(made: Callable[..., Trials]) -> None:
    """Of the first trial a seed is missing; of the second one was killed; the third has all, but was not settled."""
    source = made(n_trials=3, replicates=SEEDS)
    for _ in range(3):
        source.next()
    for number, state in ((0, "finished"), (2, "killed"), (4, "finished"), (5, "finished")):
        make_run(FOLDER / str(number), source.plan.points[number], 0.9, state=state)
    again = made(again=True, n_trials=3, replicates=SEEDS)
    again.home.plan.points, again.home.plan.configs = source.plan.points, source.plan.configs
    again.home.control["force"] = True
    again.catch_up()
    assert again.ended == {2: "COMPLETE"}
    assert [job.number for job in itertools.chain(*again.waiting)] == [1, 2]
    assert (again.wanted, again.coming, again.total, again.over) == (0, 3, 6, {0, 4, 5})
    assert [job.number for job in again.next()] == [1]
    ends(again, 1, "finished")
    assert again.ended == {0: "COMPLETE", 2: "COMPLETE"}


def test_a_trial_of_several_seeds_that_repeats_another_has_its_result(made: Callable[..., Trials]) -> None:
    source = made(n_trials=2, replicates=SEEDS)
    source.space.point = lambda trial: ["hidden=8"]  # type: ignore[method-assign]
    source.next()
    assert not source.next()
    ends(source, 0, "finished", accuracy=0.8)
    source.next()
    ends(source, 1, "finished", accuracy=0.6)
    assert [trial.value for trial in source.study.trials] == [pytest.approx(0.7)] * 2
    assert source.plan.repeats == [2, 3]
    assert not source.next()


def test_a_trial_that_repeats_a_pruned_one_has_its_last_value(made: Callable[..., Trials]) -> None:
    """TPE takes a pruned trial without one for the worst of all."""
    source = made(n_trials=2)
    source.space.point = lambda trial: ["hidden=8"]  # type: ignore[method-assign]
    (job,) = source.next()
    trial = studies.handle(source.study, job.number)
    assert trial
    trial.report(0.25, 1)
    trial.report(0.5, 3)
    ends(source, 0, "pruned")
    source.next()
    assert source.ended == {0: "PRUNED", 1: "PRUNED"}
    assert [trial.value for trial in source.study.trials] == [0.5, 0.5]


def test_a_clock_that_is_set_ends_no_search(made: Callable[..., Trials], monkeypatch: pytest.MonkeyPatch) -> None:
    source, now = made(), time.monotonic()
    source.deadline, source.home.steering = now + 60, OmegaConf.create({"time_budget": "1m"})
    for wrong in (0, 4 * 10**18):
        monkeypatch.setattr(time, "time_ns", lambda wrong=wrong: wrong)
        monkeypatch.setattr(time, "time", lambda wrong=wrong: wrong / 1e9)
        assert not source.ended_by
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert source.ended_by == "time_budget=1m"


@pytest.mark.parametrize(("storage", "way_out"), [(None, "Delete optuna.journal"), ("sqlite:///s.db", "Begin a new")])
def test_a_study_with_more_trials_than_the_search_has_begun_is_refused(
    storage: str | None, way_out: str, made: Callable[..., Trials]
) -> None:
    """It came from elsewhere: none of them is trained. Only the journal in the folder can be done without."""
    begun = made(storage=storage)
    for _ in range(4):
        begun.study.ask()
    with pytest.raises(ConfigError, match=r"The study has 4 trials, and sweep\.json 0") as refused:
        made(again=True, storage=storage).catch_up()
    assert refused.value.help.startswith(way_out)
