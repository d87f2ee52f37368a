"""The race: every setting of a grid gets a few seeds, then only those that may still be the best get more.

Settings leave by the test that a report uses (`statistics.contenders`: Gupta's subset, on the images and seeds that
they share), corrected for how often it looked. Sources: Maron and Moore, "Hoeffding races", NIPS 1993; Moore and Lee,
"Efficient algorithms for minimizing cross validation error", ICML 1994, for comparisons in pairs; Birattari and others,
"A racing algorithm for configuring metaheuristics", GECCO 2002, which irace has made of it.

Which runs there are follows from the results of those before. So a race that goes on repeats its decisions, and no run.
A round has half as many seeds again as there were: few looks leave each of them a larger share of the 5 %.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from mnist_exp import config
from mnist_exp.config import sweeps
from mnist_exp.config.rules import at_least, check_options
from mnist_exp.console.formats import plural
from mnist_exp.console.terminal import offer, say, shown
from mnist_exp.errors import ConfigError
from mnist_exp.results import certainty, ranking
from mnist_exp.sweep import finish, forecast, points
from mnist_exp.sweep.home import Home
from mnist_exp.sweep.job import Job, shared

SEEDS = 5
"""For each setting, as many runs may be made in all unless `n_trials` says otherwise."""
NAMED = 3  # settings in a sentence
LAST = 1000  # seed, where none are typed
RULES = {"first": at_least(2), "patience": at_least(1)}


def sweep(home: Home) -> None:
    """Runs a race until one setting is left, or its runs, its patience or its seeds are used up.

    Raises:
        ConfigError: its settings cannot be compared, or an option breaks its rule; nothing was started.
        SweepError: some runs failed; their settings have left the race.
        Interrupted: Ctrl-C or SIGTERM.
    """
    settings, keys = points.expand(home, without=["seed"])
    config.settings()["n_trials"].check(n_trials := home.steering.get("n_trials"))
    most = n_trials or SEEDS * len(settings)
    race = Race(home, settings, seeds(home), home.options["first"], home.options["patience"], most)
    first = race.checked()
    if home.options["dry_run"]:
        forecast.grid(home, race.runs(range(len(settings)), race.first))
        say(f"Then more seeds for those that may still be the best, up to {plural(race.limit, 'run')} in all.")
        return
    followed = len(home.plan.points)
    with home.reporter(keys, first.tracking) as reporter:
        runs = f"{plural(len(settings), 'setting')}, {race.first} seeds each, up to {plural(race.limit, 'run')}"
        offer(f"Race {home.plan.id}: {runs}, in", shown(home.folder))
        with finish.stoppable(home):
            for jobs in race.rounds():
                home.plan.write(home.folder)
                for number in range(followed, len(home.plan.points)):
                    reporter.follow(home.run(number))
                followed = len(home.plan.points)
                home.launch(points.missing(jobs, home.control), race.limit)
        finish.conclude(home, reporter)


def seeds(home: Home) -> list[str]:
    """The seeds of a race, in order: as typed, or 0, 1, 2 … Raises ConfigError if only one is typed, or an interval."""
    typed = next((o for o in sweeps.parsed(home.varying, home.loader) if o.key_or_group == "seed"), None)
    if typed is None:
        return [f"seed={seed}" for seed in range(LAST)]
    if not typed.is_discrete_sweep():
        raise ConfigError(f"A race adds seeds, and {typed.input_line} has none to add.", "List them, or leave it out.")
    return [override for (override,) in points.product([typed])]


@final
@dataclass
class Race:
    """A race, and its rule."""

    home: Home
    settings: list[list[str]]
    seeds: list[str]
    first: int
    """Seeds that each setting has before the first decision."""
    patience: int | None
    """Rounds in a row in which no setting leaves, after which it ends."""
    limit: int
    """The most runs."""

    def checked(self) -> config.Config:
        """The config of the first run. Raises ConfigError if the race cannot be run."""
        check_options("hydra.sweeper", vars(self), RULES)
        points.refuse_searching(self.home)
        if len(self.seeds) < self.first:
            reason = f"A race begins with {self.first} seeds for each setting, and got {len(self.seeds)}."
            raise ConfigError(reason, "List more, leave seed out, or set hydra.sweeper.first=2.")
        if (begin := len(self.settings) * self.first) > self.limit:
            raise ConfigError(
                f"{len(self.settings)} settings begin a race with {begin} runs, and n_trials={self.limit} are fewer.",
                f"Try n_trials={len(self.settings) * SEEDS}.",
            )
        jobs = points.check(self.home.composer, self.runs(range(len(self.settings)), self.first))
        if len(jobs) < begin:
            raise ConfigError("Some settings of this race are the same as others.", "Name each once.")
        configs = [job.config for job in jobs]
        splits = {(c.data.val_size, c.data.split_seed, c.data.stratify, c.data.folds, c.data.fold) for c in configs}
        bases = {(c.data.name, c.training.patience is None) for c in configs}
        if len(splits) * len(bases) > 1 or not configs[0].data.validating:
            raise ConfigError(
                "A race compares settings on the same validation images.",
                "Take one data, data.val_size (not 0) and data.split_seed, and training.patience for all or none.",
            )
        points.check_images(jobs)
        return configs[0]

    def runs(self, settings: Sequence[int], n: int) -> list[list[str]]:
        """The overrides of the runs of *settings* with the first *n* seeds."""
        return [[*self.settings[i], seed] for seed in self.seeds[:n] for i in settings]

    def rounds(self) -> Iterator[list[Job]]:
        """The runs of each round, which have to end before the next one; those of earlier rounds are among them."""
        left, n, spent, waited, look = list(range(len(self.settings))), 0, 0, 0, 0
        while new := self.more(n, len(left), spent):
            n, spent, look = n + new, spent + new * len(left), look + 1
            yield (jobs := points.numbered(self.home, points.check(self.home.composer, self.runs(left, n))))
            before, left = left, self.decided(left, look, jobs)
            say(f"After {n} seeds each: {len(left)} of {len(self.settings)} settings may be the best.")
            waited = waited + 1 if left == before else 0
            if len(left) < 2:
                return self.ended("it is decided", left, spent)
            if waited == self.patience:
                return self.ended(f"no setting has left it (hydra.sweeper.patience={self.patience})", left, spent)
        return self.ended(
            "there are no more seeds" if n == len(self.seeds) else f"n_trials={self.limit} are used up", left, spent
        )

    def more(self, n: int, left: int, spent: int) -> int:
        """How many seeds each of the settings *left* gets, that has *n*: half as many again, as far as runs allow."""
        return min(max(1, n // 2) if n else self.first, len(self.seeds) - n, (self.limit - spent) // left)

    def decided(self, left: list[int], look: int, jobs: Sequence[Job]) -> list[int]:
        """Those of the settings *left* that may be the best, by *jobs*, all their runs, which have ended."""
        runs = [ranking.read(job.folder, self.home.plan.points[job.number]) for job in jobs]
        replicates = [ranking.replicates(runs[i :: len(left)]) for i in range(len(left))]
        return [left[i] for i in certainty.contenders(replicates, look)]

    def ended(self, why: str, left: Sequence[int], spent: int) -> None:
        """Says why the race is over, and who has won."""
        common = shared(self.settings)
        names = [" ".join(o for o in self.settings[i] if o not in common) for i in left]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        best = f"May be the best: {'; '.join(names[:NAMED])}{more}." if names else "None has finished."
        say(f"The race ended after {plural(spent, 'run')}: {why}. {best}")
        if len(left) > 1:
            offer("Go on with:", f"{self.home.again} n_trials={2 * spent}")
