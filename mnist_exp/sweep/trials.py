"""The Optuna sweeper: asks the study, launches, reports the states of the ledgers to it, sums up.

Under the local launcher a worker that is free gets the next suggestion at once. Other launchers take batches, and
each batch waits for its slowest run.
"""

import itertools
import math
import shlex
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, final

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mnist_exp import config
from mnist_exp.console.terminal import say, shown
from mnist_exp.disk import ledger
from mnist_exp.disk.layout import State, SweepFolder
from mnist_exp.errors import ConfigError, Interrupted, SweepError
from mnist_exp.report import board
from mnist_exp.run.resume import changed
from mnist_exp.search import space as spaces
from mnist_exp.search import study as studies
from mnist_exp.search.space import Space
from mnist_exp.search.study import GRID, Search
from mnist_exp.sweep import finish, points
from mnist_exp.sweep.home import Home
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.shell import StreamingLauncher

DEFAULT_TRIALS = 50


def sweep(home: Home) -> None:
    """Searches until `n_trials` runs have finished or were pruned."""
    search = search_options(home)
    space = search_space(home, search)
    first = points.check(home.composer, space.corners())[0].config
    assert first
    if search.sampler.get("_target_") == GRID:
        size = math.prod(len(values) for values in studies.listed(space.varied).values())
        search.n_trials = min(size, home.steering.get("n_trials") or size)
    study = studies.lead(home.folder, search, space.varied, again=home.resumed)
    trials = Trials(home, study, search, space)
    trials.catch_up()
    search.write(home.folder)
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
    if home.resumed:
        before = studies.read(home.folder)
        search.study, search.storage = before.study, before.storage
        studies.check_foreign(search, home.folder)
    studies.check(search)
    return search


def search_space(home: Home, search: Search) -> Space:
    """The space that was typed, or where nothing was, the usual one, which then counts as typed."""
    parser = OverridesParser.create(config_loader=home.loader)
    parsed = parser.parse_overrides(home.varying)
    fixed = [override for override in parsed if not override.is_sweep_override()]
    defaults = home.composer.own([str(override.input_line) for override in fixed])
    if len(fixed) == len(parsed) and not search.space and search.sampler.get("_target_") != GRID:
        if usual := spaces.usual(defaults, {override.key_or_group for override in fixed}):
            say(f"Nothing was given to search, so the usual is: {shlex.join(usual)}")
        home.typed += usual
        parsed += parser.parse_overrides(usual)
    return spaces.space(parsed, defaults, search.space)


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

    def __post_init__(self) -> None:
        self.plan, self.folder, self.composer = self.home.plan, self.home.folder, self.home.composer

    @property
    def done(self) -> int:
        """Trials that have finished or were pruned."""
        return sum(state != "FAIL" for state in self.ended.values())

    @property
    def wanted(self) -> int:
        """Trials still to begin. A failed one is replaced; in a grid there is nothing to replace it by."""
        if self.failures > self.search.max_failures:
            return 0
        counted = len(self.ended) if self.search.sampler.get("_target_") == GRID else self.done
        return max(0, self.search.n_trials - counted - len(self.running) - len(self.waiting))

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
        for number in range(len(self.plan.points), studies.asked(self.study)):
            self.plan.points.append([])  # asked, and killed before it was written down
            self.plan.configs.append("")
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
            if state == "RUNNING":
                forced = ["force=true"] if force else []
                self.waiting.append(Job(number, [*overrides, *forced], self.folder, parsed))
            else:
                self.ended[number] = state
        points.refuse(changes, self.folder)

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
        """Lets the study suggest one more run; one that cannot be made fails at once.

        Raises:
            ConfigError: the function of the space failed, or the sampler's keywords are of no use.
        """
        trial = self.study.ask()
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
            self.waiting.append(Job(trial.number, overrides, self.folder, parsed))
            self.follow(self.folder / str(trial.number))
        self.plan.keys = list(dict.fromkeys([*self.plan.keys, *trial.params]))
        self.plan.write(self.folder)

    def end(self, number: int) -> None:
        """The job of trial *number* is over; its ledger has how it ended. Without an entry it has failed."""
        self.running.discard(number)
        state = studies.settle(self.study, number, self.search, ledger.find(self.folder / str(number)))
        if state == "RUNNING":
            studies.fail(self.study, number)
            state = "FAIL"
        self.failures += state == "FAIL"
        self.ended[number] = state


def launch(trials: Trials) -> None:
    """Runs trials until there are enough.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; what was running goes on with `resume=`.
    """
    search, plan, launcher = trials.search, trials.plan, trials.home.sweeper.launcher
    already = f", {trials.done} of them done already" if trials.done else ""
    nodes = [node for node in (search.sampler, search.pruner) if node]
    how = " with ".join(str(node.get("_target_", "")).rsplit(".", 1)[-1] for node in nodes)
    say(f"Search {plan.id}: {search.n_trials} trials{already}; {how}; folder {shown(trials.folder)}")
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
    """Says what pruning saved. Raises SweepError if some runs of *table* failed."""
    if pruned := int((table["state"] == State.PRUNED).sum()):
        full, trained = (int(pd.to_numeric(table[column]).sum()) for column in ("epochs", "epoch"))
        say(f"{pruned} of {len(table)} runs were pruned: {trained} of {full} epochs were trained.")
    failed = table["number"].isin([number for number, state in trials.ended.items() if state == "FAIL"])
    failures = board.failures(table[failed], {*table["state"]})
    for run in failures:
        run["reason"] = trials.reasons.get(run["number"], run["reason"])
    if failures:
        missing = trials.search.n_trials - trials.done
        raise SweepError(
            f"{len(failures)} of {len(table)} runs failed; {trials.done} finished or were pruned:\n"
            f"  {finish.listed(failures, trials.plan)}",
            f"{missing} are missing: {trials.home.again}" if missing > 0 else "",
        )
