"""The source of a search's jobs: asks the study for trials, makes runs of them, and reports how these ended.

Under our launchers the next suggestion is made as soon as a run may begin. The local one gives a free worker, with
`batch`, as many as may train faster together. Foreign launchers take batches, and each waits for its slowest run.

A trial has a run for each of several seeds or folds, and its value is their mean. Those that can share batches train as
one pack; the others begin one after the other, so that a trial which fails or is pruned costs no more of them.
"""

import contextlib
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from mnist_exp import config
from mnist_exp.config import rules
from mnist_exp.console.formats import plural
from mnist_exp.disk import lanes, ledger
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ConfigError, ExperimentError
from mnist_exp.run.resume import changed
from mnist_exp.search import study as studies
from mnist_exp.search.space import Space
from mnist_exp.search.study import Search
from mnist_exp.sweep import points
from mnist_exp.sweep.home import Home
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.local import launch
from mnist_exp.sweep.local.pool import Capacity


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
    repeats: dict[int, int] = field(default_factory=dict)
    """Trial → an earlier one with the same config, which answers for it."""

    def __post_init__(self) -> None:
        self.plan, self.folder, self.composer = self.home.plan, self.home.folder, self.home.composer
        typed = self.home.steering.get("time_budget")
        self.deadline = time.monotonic() + (rules.seconds(typed) if typed else math.inf)

    @property
    def done(self) -> int:
        """Trials that have finished or were pruned."""
        return sum(state != "FAIL" for state in self.ended.values())

    @property
    def tried(self) -> int:
        """Points that have begun, each once; a failed one may be drawn again."""
        first_runs = enumerate(self.plan.configs[:: self.search.runs])
        return len({made for trial, made in first_runs if made and self.ended.get(trial) != "FAIL"})

    @property
    def wanted(self) -> int:
        """Trials still to begin. A failed one is replaced; in a grid there is nothing to replace it by."""
        if self.failures > self.search.max_failures or self.ended_by:
            return 0
        counted = len(self.ended) if self.search.grid else self.done
        begun = self.running | {self.trial(job.number) for job in itertools.chain(*self.waiting)}
        return max(0, self.search.n_trials - counted - len(begun))

    @property
    def ended_by(self) -> str:
        """What ends the search before `n_trials` have ended, as a sentence begins; empty if nothing does."""
        if time.monotonic() > self.deadline:
            return f"time_budget={self.home.steering.time_budget}"
        if self.search.patience and self.stale >= self.search.patience:
            return f"hydra.sweeper.patience={self.search.patience}"
        return f"A space of {plural(int(self.space.size), 'point')}" if self.tried >= self.space.size else ""

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
        return number // self.search.runs

    def runs(self, trial: int) -> range:
        return range(trial * self.search.runs, (trial + 1) * self.search.runs)

    def catch_up(self) -> None:
        """Brings study and plan to what the runs' ledgers say; what was running goes on where it stopped.

        Raises:
            ConfigError: a run was made with other config, code or data, and `force` is not set.
            DataError: its images are missing or damaged.
        """
        planned, own = self.trial(len(self.plan.points)), set(itertools.chain(*self.search.replicates))
        for trial in range(planned):
            overrides = [override for override in self.plan.points[self.runs(trial)[0]] if override not in own]
            if again := studies.recall(self.study, trial, self.space.again(overrides)):
                self.space.point(again)
                if not overrides:  # it was not written down
                    studies.fail(self.study, trial)
        points.refuse([change for trial in range(planned) for change in self._catch_up(trial)], self.folder)
        begun = studies.asked(self.study)
        if begun > planned + self.search.n_trials:
            way_out = studies.anew(self.search, self.folder)
            raise ConfigError(f"The study has {begun} trials, and sweep.json {planned}.", way_out)
        for trial in range(planned, begun):  # it is in the study only
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
            ledger.reap(self.home.run(number))
            entries[number] = ledger.find(self.home.run(number))
        state = studies.settle(self.study, trial, self.search, list(entries.values()))
        self.over |= {number for number, entry in entries.items() if entry and (entry.state.done or state != "RUNNING")}
        if state == "FAIL":
            self._end(trial, state)
            return []
        changes, jobs, force = [], [], self.home.control["force"]
        for number, entry in entries.items():
            overrides = self.plan.points[number]
            parsed = self.composer.config_of(overrides)
            if entry and not force and (difference := changed(self.home.run(number), entry, parsed)):
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
            self.record(self.study.ask())
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
    def batch(self) -> int | None:
        """See `search.batch`."""
        return self.search.batch

    @property
    def packs_runs(self) -> bool:
        """Whether the launcher trains several runs together."""
        return getattr(self.home.sweeper.launcher, "packs", False)

    @property
    def packing(self) -> bool:
        """Whether trials train together: not if each has seeds that may, or if its time counts, which lanes share."""
        return self.packs_runs and self.search.runs == 1 and "time/total" not in self.search.objectives

    def capacity(self, jobs: list[Job]) -> Capacity:
        """What the local launcher has for *jobs*."""
        return launch.capacity_for(jobs, self.composer, self.home.sweeper.launcher.options)

    def fill(self) -> None:
        """Asks for the rest of a batch, if the trial that waits can train with others."""
        if self.waiting and self.packing and self.search.batch:
            (job,) = self.waiting[0]
            left = 1 + self.wanted + len(self.running)
            share = launch.share(job, left, self.capacity([job]))
            for _ in range(1, min(self.search.batch, share)):
                if self.wanted:
                    self.record(self.study.ask())
            self.join()

    def join(self) -> None:
        """Puts the trials that wait into packs."""
        self.waiting = deque(self.packs([*itertools.chain(*self.waiting)]))

    def packs(self, jobs: list[Job]) -> list[list[Job]]:
        """The runs *jobs* by pack, where the launcher trains packs as they come."""
        if len(jobs) < 2 or not self.packs_runs:
            return [[job] for job in jobs]
        for job in jobs:
            with contextlib.suppress(ExperimentError):
                record = lanes.read(job.folder)
                job.pack = record.pack if record else ""
        return launch.divided(jobs, 1, self.capacity(jobs))

    def record(self, trial: Any) -> None:
        """Writes the run that *trial* suggests into the plan; one that cannot be made fails at once.

        Raises:
            ConfigError: the function of the space failed, or the sampler's keywords are of no use.
        """
        try:
            overrides = self.space.point(trial)
        except (TypeError, ConfigError) as error:
            studies.fail(self.study, trial.number)
            if isinstance(error, ConfigError):
                raise
            reason = f"hydra.sweeper.sampler ({self.search.sampler.get('_target_')}) cannot suggest anything: {error}"
            raise ConfigError(reason, "Look at its keywords.") from error
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
                    self.follow(self.home.run(number))
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
        entries = {run: ledger.find(self.home.run(run)) for run in self.runs(trial)}
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
