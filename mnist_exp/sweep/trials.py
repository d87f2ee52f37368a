"""The Optuna sweeper: asks the study, launches, reports the states of the ledgers to it, sums up.

Under the local launcher a worker that is free gets the next suggestion at once; or, with `batch`, as many as may train
faster together. Other launchers take batches, and each batch waits for its slowest run.

A trial has a run for each of several seeds or folds, and its value is their mean. Those that can share batches train as
one pack; the others begin one after the other, so that a trial which fails or is pruned costs no more of them.
"""

import contextlib
import itertools
import math
import shlex
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, final

import pandas as pd
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from mnist_exp import config
from mnist_exp.config import sweeps
from mnist_exp.config.overrides import key_of
from mnist_exp.console.formats import plural
from mnist_exp.console.terminal import offer, say, shown
from mnist_exp.deprecated import SEARCHED_SEED
from mnist_exp.disk import lanes, ledger, trust
from mnist_exp.disk.layout import State, SweepFolder
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ConfigError, ExperimentError, Interrupted, SweepError
from mnist_exp.report import board
from mnist_exp.results import names
from mnist_exp.results.ranking import REPLICATES
from mnist_exp.run.resume import changed
from mnist_exp.search import space as spaces
from mnist_exp.search import study as studies
from mnist_exp.search.space import Space
from mnist_exp.search.study import GRID, TPE, Search
from mnist_exp.sweep import finish, forecast, points
from mnist_exp.sweep.home import Home
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.local import launch
from mnist_exp.sweep.shell import StreamingLauncher

DEFAULT_TRIALS = 50
BATCH = 4  # trials for launchers that return when all of their jobs have ended


def sweep(home: Home) -> None:
    """Searches until `n_trials` runs have finished or were pruned."""
    search = search_options(home)
    space = search_space(home, search)
    corners = points.check(home.composer, [[*c, *each] for c in space.corners() for each in search.replicates or [[]]])
    points.check_images(corners)
    first = corners[0].config
    assert first
    if search.sampler.get("_target_") == GRID:
        size = math.prod(len(values) for values in studies.listed(space.varied).values())
        search.n_trials = min(size, home.steering.get("n_trials") or size)
    if home.options["dry_run"]:
        forecast.search(home, space, search, method(search))
        return
    study = studies.lead(home.folder, search, space.varied, again=home.resumed)
    trials = Trials(home, study, search, space)
    trials.catch_up()
    search.write(home.folder)
    for point in known_points(home, space):
        study.enqueue_trial(point)
    with home.reporter([*space.varied], first.tracking) as reporter:
        trials.follow = reporter.follow
        run(trials)
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
        search.study, search.storage, search.replicates = before.study, before.storage, before.replicates
        studies.check_foreign(search, home.folder)
    studies.check(search)
    return search


def search_space(home: Home, search: Search) -> Space:
    """The space that was typed, or where nothing was, the usual one, which then counts as typed.

    Seeds and folds that were listed are none of it, but become the runs of each trial.
    """
    parsed = sweeps.parsed(home.varying, home.loader)
    fixed = [override for override in parsed if not override.is_sweep_override()]
    defaults = home.composer.own([str(override.input_line) for override in fixed])
    parsed = replicated(home, search, parsed)
    if all(override in fixed for override in parsed) and not search.space and search.sampler.get("_target_") != GRID:
        if usual := spaces.usual(defaults, {override.key_or_group for override in fixed}):
            say(f"Nothing was given to search, so the usual is: {shlex.join(usual)}")
        home.typed += usual
        parsed += sweeps.parsed(usual)
    return spaces.space(parsed, defaults, search.space, search.sampler.get("_target_") == GRID)


def replicated(home: Home, search: Search, parsed: list[Override]) -> list[Override]:
    """*parsed* without the lists of `REPLICATES`, which become the runs of each trial of *search*.

    Raises:
        ConfigError: such a key has an interval, or other values than those of the trials so far.
    """
    lists = [o for o in parsed if o.key_or_group in REPLICATES and o.is_sweep_override()]
    if home.resumed and {str(o.key_or_group) for o in lists} & set(home.plan.keys):
        say(str(SEARCHED_SEED))
        return parsed
    if interval := next((o for o in lists if not o.is_discrete_sweep()), None):
        raise ConfigError(
            f"{interval.input_line}: a search does not look for a lucky seed or fold.",
            f"List some, {interval.key_or_group}=0,1,2: each trial has a run of each, and its value is their mean.",
        )
    replicates = points.product(lists) if lists else []
    if home.resumed and replicates != search.replicates:
        was = " ".join(itertools.chain(*search.replicates)) or "one run each"
        raise ConfigError(
            f"The trials of this search have {was}; with other seeds they could not be compared.",
            f"Begin a new search that tries the best of this one first: enqueue={home.folder.name}",
        )
    search.replicates = replicates
    return [o for o in parsed if o not in lists]


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
    waiting: deque[list[Job]] = field(default_factory=deque)
    """Packs that may begin."""
    later: dict[int, deque[list[Job]]] = field(default_factory=dict)
    """Trial → the packs that begin after the one at hand, if that one finishes."""
    running: set[int] = field(default_factory=set)
    """Trials with a run under way, or that wait for the one that they repeat."""
    training: set[int] = field(default_factory=set)
    """Runs under way."""
    over: set[int] = field(default_factory=set)
    """Runs that have ended."""
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
        begun = self.running | {self.trial(job.number) for job in itertools.chain(*self.waiting)}
        return max(0, self.search.n_trials - counted - len(begun))

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
        return len(self.over) + len(self.training) + self.coming

    @property
    def coming(self) -> int:
        """Runs that `next` will still give, if no more fail."""
        known = [*self.waiting, *itertools.chain(*self.later.values())]
        return sum(map(len, known)) + self.wanted * self.search.runs

    @property
    def fixed(self) -> set[str]:
        """The overrides that all runs share."""
        return set(self.space.fixed.values())

    def trial(self, number: int) -> int:
        """The trial of run *number*."""
        return number // self.search.runs

    def runs(self, trial: int) -> range:
        """The numbers of the runs of *trial*."""
        return range(trial * self.search.runs, (trial + 1) * self.search.runs)

    def catch_up(self) -> None:
        """Brings study and plan to what the runs' ledgers say; what was running goes on where it stopped.

        Raises:
            ConfigError: a run was made with other config, code or data, and `force` is not set.
            DataError: its images are missing or damaged.
        """
        planned = self.trial(len(self.plan.points))
        for trial in range(planned):
            own = {override for each in self.search.replicates for override in each}
            overrides = [override for override in self.plan.points[self.runs(trial)[0]] if override not in own]
            if again := studies.recall(self.study, trial, self.space.again(overrides)):
                self.space.point(again)
                if not overrides:  # it was not written down
                    studies.fail(self.study, trial)
        changes: list[str] = []
        for trial in range(planned):
            changes += self._catch_up(trial)
        points.refuse(changes, self.folder)
        for trial in range(planned, studies.asked(self.study)):  # it is in the study only
            if suggested := studies.running(self.study, trial):
                self.record(suggested)
            else:
                self.plan.points += [[] for _ in self.runs(trial)]
                self.plan.configs += ["" for _ in self.runs(trial)]
                self.ended[trial] = "FAIL"
        if self.packing:
            self.join()

    def _catch_up(self, trial: int) -> list[str]:
        """Brings *trial* to what the ledgers of its runs say; returns what has changed since they ran."""
        entries: dict[int, Ledger | None] = {}
        for number in self.runs(trial):
            ledger.reap(self.folder / str(number))
            entries[number] = ledger.find(self.folder / str(number))
        state = studies.settle(self.study, trial, self.search, list(entries.values()))
        self.over |= {number for number, entry in entries.items() if entry and (entry.state.done or state != "RUNNING")}
        if state == "FAIL":
            self._end(trial, state)
            return []
        changes, jobs, force = [], [], self.home.control["force"]
        for number, entry in entries.items():
            overrides = self.plan.points[number]
            parsed = self.composer.config_of(overrides)
            if entry and not force and (difference := changed(self.folder / str(number), entry, parsed)):
                changes.append(f"#{number} {' '.join(overrides)}: {difference}")
            forced = ["force=true"] if force else []
            jobs.append(Job(number, [*overrides, *forced], self.folder, parsed))
        if state != "RUNNING":
            self._end(trial, state)
        elif any(entries.values()) or not self.repeat(trial):
            self.queue([job for job in jobs if job.number not in self.over])
        return changes

    def next(self) -> list[Job]:
        """The next runs, which train together; none while there are none. When others end, there may be again."""
        while not self.waiting and self.wanted:
            self.ask()
            self.fill()
        if not self.waiting:
            return []
        pack = self.waiting.popleft()
        self.running |= {self.trial(job.number) for job in pack}
        self.training |= {job.number for job in pack}
        return pack

    def queue(self, jobs: list[Job]) -> None:
        """The runs *jobs* of one trial may begin: the first of them, or all that train together; then the others."""
        first, *others = self.packs(jobs)
        self.waiting.append(first)
        self.later[self.trial(first[0].number)] = deque(others)

    @property
    def packing(self) -> bool:
        """Whether trials train together: not if each has seeds that may, or if its time counts, which lanes share."""
        launcher, alone = self.home.sweeper.launcher, "time/total" in self.search.objectives
        return isinstance(launcher, StreamingLauncher) and self.search.runs == 1 and not alone

    def fill(self) -> None:
        """Asks for the rest of a batch, if the trial that waits can train with others."""
        if self.waiting and self.packing and self.search.batch:
            (job,) = self.waiting[0]
            left = 1 + self.wanted + len(self.running)
            share = launch.share(self.home.sweeper.launcher, job, self.composer, left)
            for _ in range(1, min(self.search.batch, share)):
                if self.wanted:
                    self.ask()
            self.join()

    def join(self) -> None:
        """Puts the trials that wait into packs."""
        self.waiting = deque(self.packs([*itertools.chain(*self.waiting)]))

    def packs(self, jobs: list[Job]) -> list[list[Job]]:
        """The runs *jobs* by pack, where the launcher trains packs as they come."""
        if len(jobs) < 2 or not isinstance(self.home.sweeper.launcher, StreamingLauncher):
            return [[job] for job in jobs]
        for job in jobs:
            with contextlib.suppress(ExperimentError):
                record = lanes.read(job.folder)
                job.pack = record.pack if record else ""
        return launch.in_turn(self.home.sweeper.launcher, jobs, self.composer)

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
        numbers = self.runs(trial.number)
        each = [[*overrides, *own] for own in self.search.replicates or [[]]]
        self.plan.points += each
        try:
            parsed = [self.composer.config_of(overrides) for overrides in each]
        except ConfigError as error:
            self.plan.configs += ["" for _ in numbers]
            self.plan.repeats += numbers[1:]  # the first one is shown as failed
            self.reasons[trial.number], self.ended[trial.number] = error.message, "FAIL"
            self.failures += 1
            studies.fail(self.study, trial.number)
        else:
            self.plan.configs += map(config.fingerprint, parsed)
            if not self.repeat(trial.number):
                self.queue([Job(n, o, self.folder, c) for n, o, c in zip(numbers, each, parsed, strict=True)])
                for number in numbers:
                    self.follow(self.folder / str(number))
        self.plan.keys = list(dict.fromkeys([*self.plan.keys, *trial.params]))
        self.plan.write(self.folder)

    def repeat(self, number: int) -> bool:
        """Whether an earlier trial has the config of trial *number*, and so its result, to the last bit.

        Its values are told to the study, now or when that one ends, and the trial has no run.
        """
        first_runs = self.plan.configs[:: self.search.runs]
        fingerprint, earlier = first_runs[number], first_runs[:number]
        same = (i for i, other in enumerate(earlier) if other == fingerprint and i not in self.repeats)
        first = next((i for i in same if self.ended.get(i) != "FAIL"), None)
        if first is None:
            return False
        self.repeats[number] = first
        self._leave_out(self.runs(number))
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
        """The job of run *number* is over; its ledger has how it ended. Without an entry it has failed."""
        if number in self.over:
            return
        self.training.discard(number)
        self.over.add(number)
        trial = self.trial(number)
        if self.training.intersection(self.runs(trial)):
            return
        entries = {run: ledger.find(self.folder / str(run)) for run in self.runs(trial)}
        state = studies.settle(self.study, trial, self.search, list(entries.values()))
        lost = any(entry is None or not entry.state.done for run, entry in entries.items() if run in self.over)
        if state == "RUNNING" and not lost:
            self.running.discard(trial)
            self.waiting.appendleft(self.later[trial].popleft())
            return
        if state == "RUNNING":
            studies.fail(self.study, trial)
            state = "FAIL"
        self.failures += state == "FAIL"
        if self.search.patience and state != "FAIL":
            best = state == "COMPLETE" and self.study.best_trial.number == trial
            self.stale = 0 if best else self.stale + 1
        self._end(trial, state)
        for repeat in [each for each, first in self.repeats.items() if first == trial and each in self.running]:
            self._answer(repeat)

    def _end(self, trial: int, state: str) -> None:
        """*trial* has ended so; those of its runs that did not begin never will."""
        self.running.discard(trial)
        self.later.pop(trial, None)
        self.ended[trial] = state
        never = [number for number in self.runs(trial) if number not in self.over]
        self._leave_out(never[1:] if len(never) == self.search.runs else never)  # one shows that it failed

    def _leave_out(self, numbers: Sequence[int]) -> None:
        """The runs *numbers* never begin."""
        if new := [number for number in numbers if number not in self.plan.repeats]:
            self.plan.repeats += new
            self.plan.write(self.folder)


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
    if Path(typed).suffix in points.TABLES:
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


def run(trials: Trials) -> None:
    """Runs trials until there are enough.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; what was running goes on with `resume=`.
    """
    search, plan, launcher = trials.search, trials.plan, trials.home.sweeper.launcher
    already = f", {trials.done} of them done already" if trials.done else ""
    several = f"{plural(search.n_trials, 'trial')}{f' of {search.runs} runs each' if search.replicates else ''}"
    offer(f"Search {plan.id}: {several}{already}; {method(search)}, in", shown(trials.folder))
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
    most = min(trials.search.batch or BATCH, trials.search.n_trials)
    while batch := list(itertools.chain(*itertools.islice(iter(trials.next, []), most))):
        batch.sort(key=lambda job: job.number)
        for returned in trials.home.launch(batch):
            if isinstance(returned._return_value, Interrupted):
                raise returned._return_value
        for job in batch:
            trials.end(job.number)


def conclude(trials: Trials, table: pd.DataFrame) -> None:
    """Says what pruning and repeats saved. Raises SweepError if some runs of *table* failed."""
    runs = trials.search.runs
    trial = table["number"] // runs
    if pruned := trial[table["state"] == State.PRUNED].nunique():
        full = runs * int(pd.to_numeric(table["epochs"]).groupby(trial).max().sum())
        trained, what = int(pd.to_numeric(table["epoch"]).sum()), "trials" if runs > 1 else "runs"
        say(f"{pruned} of {trial.nunique()} {what} were pruned: {trained} of {full} epochs were trained.")
    if trials.repeats:
        say(f"{plural(len(trials.repeats), 'trial')} repeated an earlier one, and has its result.")
    if trials.ended_by and trials.done < trials.search.n_trials:
        say(f"{trials.ended_by} ended the search after {trials.done} of {trials.search.n_trials} trials.")
        offer("Go on with:", trials.home.again)
    failed = trial.isin([number for number, state in trials.ended.items() if state == "FAIL"])
    failed &= table["number"].map(lambda number: bool(trials.plan.points[number]))  # else it was never written down
    if runs > 1:
        failed &= ~table["state"].isin([State.FINISHED, State.PRUNED])  # another seed of the trial failed
    failures = board.failures(table[failed], {*table["state"]})
    for run in failures:
        run["reason"] = trials.reasons.get(run["number"] // runs, run["reason"])
    if failures:
        missing = trials.search.n_trials - trials.done
        raise SweepError(
            f"{len(failures)} of {len(table)} runs failed; {trials.done} finished or were pruned:\n"
            f"  {finish.listed(failures, trials.plan)}",
            f"{missing} are missing:\n{trials.home.again}" if missing > 0 else "",
        )
