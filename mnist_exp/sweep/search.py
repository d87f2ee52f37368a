"""A search from its beginning to its end: asks the study, launches, and says what came of it."""

import itertools
import math

import pandas as pd

from mnist_exp.console.formats import plural
from mnist_exp.console.terminal import offer, say, shown
from mnist_exp.disk.layout import State
from mnist_exp.errors import Interrupted, SweepError
from mnist_exp.report import board
from mnist_exp.search import study as studies
from mnist_exp.sweep import finish, forecast, points, setup
from mnist_exp.sweep.home import Home
from mnist_exp.sweep.launching import BATCH
from mnist_exp.sweep.shell import OurLauncher
from mnist_exp.sweep.trials import Trials


def sweep(home: Home) -> None:
    """Searches until `n_trials` runs have finished or were pruned."""
    search = setup.options(home)
    space = setup.space(home, search)
    corners = points.check(home.composer, [[*c, *each] for c in space.corners() for each in search.replicates or [[]]])
    points.check_images(corners)
    if search.grid:
        size = math.prod(len(values) for values in studies.listed(space.varied).values())
        search.n_trials = min(size, home.steering.get("n_trials") or size)
    known = setup.known_points(home, space)
    if home.options["dry_run"]:
        forecast.search(home, space, search)
        return
    study = studies.lead(home.folder, search, space.varied, again=home.resumed)
    trials = Trials(home, study, search, space)
    trials.catch_up()
    search.write(home.folder)
    for point in known:
        study.enqueue_trial(point)
    with home.reporter([*space.varied], corners[0].config.tracking) as reporter:
        trials.follow = reporter.follow
        run(trials)
        conclude(trials, finish.present(home, reporter))


def run(trials: Trials) -> None:
    """Runs trials until there are enough. Raises Interrupted after Ctrl-C or SIGTERM; what was running can go on."""
    search, plan, launcher = trials.search, trials.plan, trials.home.sweeper.launcher
    already = f", {trials.done} of them done already" if trials.done else ""
    several = f"{plural(search.n_trials, 'trial')}{f' of {search.runs} runs each' if search.replicates else ''}"
    offer(f"Search {plan.id}: {several}{already}; {search.method}, in", shown(trials.folder))
    with finish.stoppable(trials.home, lambda: f"{trials.done} of {search.n_trials} trials are finished or pruned."):
        if not isinstance(launcher, OurLauncher):
            in_batches(trials)
        elif first := trials.next():
            launcher.run_jobs(first, source=trials)


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
        say(f"{plural(len(trials.repeats), 'trial')} repeated an earlier one and took its result.")
    if trials.ended_by and trials.done < trials.search.n_trials:
        say(f"{trials.ended_by} ended the search after {trials.done} of {trials.search.n_trials} trials.")
        if trials.tried < trials.space.size:
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
