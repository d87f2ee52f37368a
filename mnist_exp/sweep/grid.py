"""The grid sweeper: expand, check everything, launch what is missing, sum up."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn

from mnist_exp.console.terminal import say, shown
from mnist_exp.disk import ledger
from mnist_exp.disk.layout import State
from mnist_exp.errors import Interrupted
from mnist_exp.sweep import finish, points
from mnist_exp.sweep.home import Home
from mnist_exp.sweep.job import Job


def sweep(home: Home) -> Sequence[JobReturn]:
    """Runs every combination of the values that were typed, each once, or what is missing of them.

    Returns:
        One JobReturn for each job that ran, in order.

    Raises:
        ExperimentError: see `start.sweep`.
    """
    combinations, keys = points.expand(home)
    jobs = points.planned(home, combinations)
    missing = points.missing(jobs, home.control)
    assert jobs[0].config
    home.write(keys, jobs[0].config.tracking)
    with home.reporter(jobs[0].config.tracking) as reporter:
        returns = run(home, missing, len(jobs))
        finish.present_best(home.folder, lambda number: home.composer.config_of(home.plan.points[number]))
        reporter.finish()
        finish.conclude(home.plan, home.folder, home.options["report"], reporter.wait)
    return returns


def run(home: Home, missing: list[Job], total: int) -> Sequence[JobReturn]:
    """Launches the jobs that are *missing* of a sweep of *total*.

    Raises:
        Interrupted: see `start.sweep`.
    """
    plan, skipped = home.plan, total - len(missing)
    already = f", {skipped} of them done already" if skipped else ""
    say(f"Sweep {plan.id}: {total} runs{already}; folder {shown(home.folder)}")
    try:
        return home.launch(missing, home.control["force"], total)
    except (Interrupted, KeyboardInterrupt) as stop:
        entries = [ledger.find(home.folder / str(number)) for number in range(len(plan.points))]
        done = sum(entry is not None and entry.state == State.FINISHED for entry in entries)
        raise finish.interrupted(stop, f"{done} of {len(plan.points)} runs are finished.", plan) from None
