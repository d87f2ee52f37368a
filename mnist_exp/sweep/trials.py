"""The Optuna sweeper: asks the study, launches, reports the states of the ledgers to it, sums up.

Under the local launcher a worker that is free gets the next suggestion at once. Other launchers take batches, and
each batch waits for its slowest run.
"""

import itertools
import math
import shlex
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, final

import pandas as pd
from omegaconf import OmegaConf

from mnist_exp import config
from mnist_exp.config import sweeps
from mnist_exp.config.overrides import key_of
from mnist_exp.console.formats import plural
from mnist_exp.console.terminal import offer, say, shown
from mnist_exp.disk import ledger, trust
from mnist_exp.disk.layout import State, SweepFolder
from mnist_exp.errors import ConfigError, Interrupted, SweepError
from mnist_exp.report import board
from mnist_exp.results import names
from mnist_exp.run.resume import changed
from mnist_exp.search import space as spaces
from mnist_exp.search import study as studies
from mnist_exp.search.space import Space
from mnist_exp.search.study import GRID, TPE, Search
from mnist_exp.sweep import finish, forecast, points
from mnist_exp.sweep.home import Home
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.shell import StreamingLauncher

DEFAULT_TRIALS = 50


def sweep(home: Home) -> None:
    """Searches until `n_trials` runs have finished or were pruned."""
    search = search_options(home)
    space = search_space(home, search)
    corners = points.check(home.composer, space.corners())
    points.check_images(corners)
    first = corners[0].config
    assert first
    if search.sampler.get("_target_") == GRID:
        size = math.prod(len(values) for values in studies.listed(space.varied).values())
        search.n_trials = min(size, home.steering.get("n_trials") or size)
    if home.options["dry_run"]:
        forecast.search(home, space, search.n_trials, method(search))
        return
    study = studies.lead(home.folder, search, space.varied, again=home.resumed)
    trials = Trials(home, study, search, space)
    trials.catch_up()
    search.write(home.folder)
    for point in known_points(home, space):
        study.enqueue_trial(point)
    with home.reporter([*space.varied], first.tracking) as reporter:
        trials.follow = reporter.follow
        launch(trials)
        conclude(trials, finish.present(home, reporter))


def search_options(home: Home) -> Search:
    """How to search.

    Raises:
        ConfigError: an option breaks its rule, or the sweep was begun as a grid.
    """
    if home.resumed and not SweepFolder(home.folder).study.is_file():
        raise ConfigError(f"{shown(home.folder)} is a grid, and no search.", "Go on with it without search=…")
    options = {key: value for key, value in home.options.items() if key in {f.name for f in fields(Search)}}
    n_trials = home.steering.get("n_trials")
    config.settings()["n_trials"].check(n_trials := DEFAULT_TRIALS if n_trials is None else n_trials)
    # Two sweeps may share a storage, and a folder's name, but not a study.
    search = Search(study=f"{home.folder.name}-{config.unique()}", n_trials=n_trials, **options)
    # As typed: a password that comes from ${oc.env:…} is written nowhere.
    typed: Any = OmegaConf.to_container(home.steering.hydra.sweeper, resolve=False)
    search.storage = typed["storage"]
    search.sampler = search.sampler or {"_target_": TPE}
    if home.resumed:
        before = studies.read(home.folder)
        search.study, search.storage = before.study, before.storage
        studies.check_foreign(search, home.folder)
    studies.check(search)
    return search


def search_space(home: Home, search: Search) -> Space:
    """The space that was typed, or where nothing was, the usual one, which then counts as typed."""
    parsed = sweeps.parsed(home.varying, home.loader)
    fixed = [override for override in parsed if not override.is_sweep_override()]
    defaults = home.composer.own([str(override.input_line) for override in fixed])
    if len(fixed) == len(parsed) and not search.space and search.sampler.get("_target_") != GRID:
        if usual := spaces.usual(defaults, {override.key_or_group for override in fixed}):
            say(f"Nothing was given to search, so the usual is: {shlex.join(usual)}")
        home.typed += usual
        parsed += sweeps.parsed(usual)
    return spaces.space(parsed, defaults, search.space, search.sampler.get("_target_") == GRID)


@final
@dataclass(eq=False)
class Trials:
    """The source of a search's jobs, which notes how they end."""

    home: Home
    study: Any
    search: Search
    space: Space
    follow: Callable[[Path], None] = lambda folder: None
    """Called with the folder of each new run."""
    waiting: deque[Job] = field(default_factory=deque)
    """What an earlier attempt has left unfinished."""
    running: set[int] = field(default_factory=set)
    ended: dict[int, str] = field(default_factory=dict)
    """Trial → COMPLETE, PRUNED or FAIL."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why a trial failed that came to no run."""
    failures: int = 0
    """Trials that have failed since this process began."""
    stale: int = 0
    """Trials that have ended without being the best, since the last one that was, or since this process began."""
    began: float = field(default_factory=time.monotonic)
    budget: float | None = None
    """Seconds after which no more trials begin."""
    repeats: dict[int, int] = field(default_factory=dict)
    """Trial → an earlier one with the same config, which answers for it."""

    def __post_init__(self) -> None:
        self.plan, self.folder, self.composer = self.home.plan, self.home.folder, self.home.composer
        typed = self.home.steering.get("time_budget")
        config.settings()["time_budget"].check(typed)
        self.budget = seconds(typed) if typed else None

    @property
    def done(self) -> int:
        """Trials that have finished or were pruned."""
        return sum(state != "FAIL" for state in self.ended.values())

    @property
    def wanted(self) -> int:
        """Trials still to begin. A failed one is replaced; in a grid there is nothing to replace it by."""
        if self.failures > self.search.max_failures or self.ended_by:
            return 0
        counted = len(self.ended) if self.search.sampler.get("_target_") == GRID else self.done
        return max(0, self.search.n_trials - counted - len(self.running) - len(self.waiting))

    @property
    def ended_by(self) -> str:
        """What ends the search before `n_trials` have ended, as it was typed; empty if nothing does."""
        if self.budget is not None and time.monotonic() - self.began > self.budget:
            return f"time_budget={self.home.steering.time_budget}"
        if self.search.patience and self.stale >= self.search.patience:
            return f"hydra.sweeper.patience={self.search.patience}"
        return ""

    @property
    def total(self) -> int:
        """Runs that there will be, if no more of them fail."""
        return len(self.ended) + len(self.running) + self.coming

    @property
    def coming(self) -> int:
        """Runs that `next` will still give, if no more fail."""
        return len(self.waiting) + self.wanted

    @property
    def fixed(self) -> set[str]:
        """The overrides that all runs share."""
        return set(self.space.fixed.values())

    def catch_up(self) -> None:
        """Brings study and plan to what the runs' ledgers say; what was running goes on where it stopped.

        Raises:
            ConfigError: a run was made with other config, code or data, and `force` is not set.
            DataError: its images are missing or damaged.
        """
        for number, overrides in enumerate(self.plan.points):
            if trial := studies.recall(self.study, number, self.space.again(overrides)):
                self.space.point(trial)
                if not overrides:  # it was not written down
                    studies.fail(self.study, number)
        changes, force = [], self.home.control["force"]
        for number, overrides in enumerate(self.plan.points):
            folder = self.folder / str(number)
            ledger.reap(folder)
            state = studies.settle(self.study, number, self.search, entry := ledger.find(folder))
            if state == "FAIL":
                self.ended[number] = state
                continue
            parsed = self.composer.config_of(overrides)
            if entry and not force and (difference := changed(folder, entry, parsed)):
                changes.append(f"#{number} {' '.join(overrides)}: {difference}")
            if state == "RUNNING" and (entry or not self.repeat(number)):
                forced = ["force=true"] if force else []
                self.waiting.append(Job(number, [*overrides, *forced], self.folder, parsed))
            elif state != "RUNNING":
                self.ended[number] = state
        points.refuse(changes, self.folder)
        for number in range(len(self.plan.points), studies.asked(self.study)):  # it is in the study only
            if trial := studies.running(self.study, number):
                self.record(trial)
            else:
                self.plan.points.append([])
                self.plan.configs.append("")
                self.ended[number] = "FAIL"

    def next(self) -> Job | None:
        """The next run; None while there is none. When others end, there may be again."""
        while not self.waiting and self.wanted:
            self.ask()
        if not self.waiting:
            return None
        job = self.waiting.popleft()
        self.running.add(job.number)
        return job

    def ask(self) -> None:
        """Lets the study suggest one more run."""
        self.record(self.study.ask())

    def record(self, trial: Any) -> None:
        """Writes the run that *trial* suggests into the plan; one that cannot be made fails at once.

        Raises:
            ConfigError: the function of the space failed, or the sampler's keywords are of no use.
        """
        try:
            overrides = self.space.point(trial)
        except TypeError as error:
            studies.fail(self.study, trial.number)
            raise ConfigError(
                f"hydra.sweeper.sampler ({self.search.sampler.get('_target_')}) cannot suggest anything: {error}",
                "Look at its keywords.",
            ) from error
        except ConfigError:
            studies.fail(self.study, trial.number)
            raise
        self.plan.points.append(overrides)
        try:
            parsed = self.composer.config_of(overrides)
        except ConfigError as error:
            self.plan.configs.append("")
            self.reasons[trial.number], self.ended[trial.number] = error.message, "FAIL"
            self.failures += 1
            studies.fail(self.study, trial.number)
        else:
            self.plan.configs.append(config.fingerprint(parsed))
            if not self.repeat(trial.number):
                self.waiting.append(Job(trial.number, overrides, self.folder, parsed))
                self.follow(self.folder / str(trial.number))
        self.plan.keys = list(dict.fromkeys([*self.plan.keys, *trial.params]))
        self.plan.write(self.folder)

    def repeat(self, number: int) -> bool:
        """Whether an earlier trial has the config of trial *number*, and so its result, to the last bit.

        Its values are told to the study, now or when that one ends, and the trial has no run.
        """
        fingerprint, earlier = self.plan.configs[number], self.plan.configs[:number]
        same = (i for i, other in enumerate(earlier) if other == fingerprint and i not in self.repeats)
        first = next((i for i in same if self.ended.get(i) != "FAIL"), None)
        if first is None:
            return False
        self.repeats[number] = first
        if number not in self.plan.repeats:
            self.plan.repeats.append(number)
        self.running.add(number)
        if first in self.ended:
            self._answer(number)
        return True

    def _answer(self, number: int) -> None:
        """Trial *number* ends as the one that it repeats."""
        self.running.discard(number)
        self.ended[number] = studies.repeat(self.study, number, self.repeats[number])
        self.stale += self.ended[number] != "FAIL"

    def end(self, number: int) -> None:
        """The job of trial *number* is over; its ledger has how it ended. Without an entry it has failed."""
        self.running.discard(number)
        state = studies.settle(self.study, number, self.search, ledger.find(self.folder / str(number)))
        if state == "RUNNING":
            studies.fail(self.study, number)
            state = "FAIL"
        self.failures += state == "FAIL"
        self.ended[number] = state
        if self.search.patience and state != "FAIL":
            best = state == "COMPLETE" and self.study.best_trial.number == number
            self.stale = 0 if best else self.stale + 1
        for repeat in [each for each, first in self.repeats.items() if first == number and each in self.running]:
            self._answer(repeat)


def seconds(typed: str) -> float:
    """A duration as one types it: `90`, `90s`, `10m`, `2h` or `1d`."""
    number, unit = (typed[:-1], typed[-1]) if typed[-1] in "smhd" else (typed, "s")
    return float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


def known_points(home: Home, space: Space) -> list[dict[str, Any]]:
    """The values that `enqueue` names, by key: of a table, of points as typed, or of the best run of a sweep.

    None where that was typed before: a search that goes on has them already.

    Raises:
        ConfigError: it names nothing of the kind, or a value is not in *space*.
    """
    typed = home.steering.get("enqueue")
    before = home.plan.typed if home.resumed else []
    if not typed or any(key_of(override) == "enqueue" and override in before for override in home.typed):
        return []
    if Path(typed).suffix in (".csv", ".yaml", ".yml"):
        rows = points.read(Path(typed))
    elif "=" in typed:
        rows = [point.split() for point in typed.split(";") if point.strip()]
    else:
        folder = names.best(names.resolve(typed))
        settings = config.flatten(config.to_dict(trust.load(folder)))
        best = {key: f"{key}={config.as_typed(value)}" for key, value in settings.items()}
        best |= {key_of(override): override for override in ledger.read(folder).overrides}
        rows = [[best[key] for key in space.varied if key in best]]
    return [spaces.known(row, space) for row in rows]


def method(search: Search) -> str:
    """Sampler and pruner: `TPESampler with SuccessiveHalvingPruner`."""
    nodes = [node for node in (search.sampler, search.pruner) if node]
    return " with ".join(str(node.get("_target_", "")).rsplit(".", 1)[-1] for node in nodes)


def launch(trials: Trials) -> None:
    """Runs trials until there are enough.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; what was running goes on with `resume=`.
    """
    search, plan, launcher = trials.search, trials.plan, trials.home.sweeper.launcher
    already = f", {trials.done} of them done already" if trials.done else ""
    trials_ = plural(search.n_trials, "trial")
    offer(f"Search {plan.id}: {trials_}{already}; {method(search)}, in", shown(trials.folder))
    try:
        if isinstance(launcher, StreamingLauncher):
            launcher.run_source(trials)
        else:
            in_batches(trials)
    except (Interrupted, KeyboardInterrupt) as stop:
        done = f"{trials.done} of {search.n_trials} trials are finished or pruned."
        raise finish.interrupted(stop, done, trials.home) from None


def in_batches(trials: Trials) -> None:
    """For launchers that return when all of their jobs have ended."""
    while batch := list(itertools.islice(iter(trials.next, None), min(trials.search.batch, trials.search.n_trials))):
        batch.sort(key=lambda job: job.number)
        for returned in trials.home.launch(batch):
            if isinstance(returned._return_value, Interrupted):
                raise returned._return_value
        for job in batch:
            trials.end(job.number)


def conclude(trials: Trials, table: pd.DataFrame) -> None:
    """Says what pruning and repeats saved. Raises SweepError if some runs of *table* failed."""
    if pruned := int((table["state"] == State.PRUNED).sum()):
        full, trained = (int(pd.to_numeric(table[column]).sum()) for column in ("epochs", "epoch"))
        say(f"{pruned} of {len(table)} runs were pruned: {trained} of {full} epochs were trained.")
    if trials.repeats:
        say(f"{plural(len(trials.repeats), 'trial')} repeated an earlier one, and has its result.")
    if trials.ended_by and trials.done < trials.search.n_trials:
        say(f"{trials.ended_by} ended the search after {trials.done} of {trials.search.n_trials} trials.")
        offer("Go on with:", trials.home.again)
    begun = {number: state for number, state in trials.ended.items() if trials.plan.points[number]}
    failed = table["number"].isin([number for number, state in begun.items() if state == "FAIL"])
    failures = board.failures(table[failed], {*table["state"]})
    for run in failures:
        run["reason"] = trials.reasons.get(run["number"], run["reason"])
    if failures:
        missing = trials.search.n_trials - trials.done
        raise SweepError(
            f"{len(failures)} of {len(table)} runs failed; {trials.done} finished or were pruned:\n"
            f"  {finish.listed(failures, trials.plan)}",
            f"{missing} are missing:\n{trials.home.again}" if missing > 0 else "",
        )
