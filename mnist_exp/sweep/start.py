"""A sweep from its beginning to its end: takes the folder, then runs a grid here, or what `race` or `trials` do."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn

from mnist_exp.console.formats import plural
from mnist_exp.console.terminal import offer, shown
from mnist_exp.disk.layout import SweepFolder
from mnist_exp.errors import ExperimentError
from mnist_exp.search import study
from mnist_exp.sweep import finish, forecast, points, race, search
from mnist_exp.sweep.home import Home, opened
from mnist_exp.sweep.shell import OurSweeper


def sweep(sweeper: OurSweeper, arguments: list[str]) -> Sequence[JobReturn]:
    """Runs the sweep that *arguments* describe, or with `resume=` what is missing of an earlier one.

    Returns:
        One JobReturn for each job of a grid that ran, in order; for the runs of a search there are their ledgers.

    Raises:
        ConfigError: something cannot run, or has changed since; nothing was started.
        BusyError: another process runs that sweep.
        SweepError: some runs failed; the others are finished.
        ExperimentError: the disk does not take the sweep's record any more.
        Interrupted: Ctrl-C or SIGTERM.
    """
    if "sampler" in sweeper.options:
        study.need()
    with opened(sweeper, arguments) as home:
        home.composer.check_swept(home.varying)
        try:
            if "first" in home.options:
                race.sweep(home)
            elif "sampler" in home.options:
                search.sweep(home)
            else:
                return grid(home)
            return []
        except (KeyboardInterrupt, OSError) as error:
            if not SweepFolder(home.folder).plan.exists():
                raise  # nothing was started
            if isinstance(error, KeyboardInterrupt):
                raise finish.interrupted(error, "", home) from None
            reason = f"The sweep cannot go on: {error.filename or shown(home.folder)}: {error.strerror}."
            raise ExperimentError(reason, f"Make room, or mend its rights. Go on with:\n{home.again}") from error


def grid(home: Home) -> Sequence[JobReturn]:
    """Runs every combination of the values that were typed, each once, or what is missing of them."""
    combinations, keys = points.expand(home)
    chosen = points.drawn(home, combinations)
    combinations = points.folded(home, chosen)
    keys += [points.FOLD] if len(combinations) > len(chosen) else []
    points.refuse_searching(home)
    if home.options["dry_run"]:
        forecast.grid(home, combinations)
        return []
    jobs = points.planned(home, combinations)
    missing, plan, total = points.missing(jobs, home.control), home.plan, len(jobs)
    points.check_images(missing)
    with home.reporter(keys, jobs[0].config.tracking) as reporter:
        already = f", {total - len(missing)} of them done already" if len(missing) < total else ""
        offer(f"Sweep {plan.id}: {plural(total, 'run')}{already}, in", shown(home.folder))
        with finish.stoppable(home):
            returns = home.launch(missing, total)
        finish.conclude(home, reporter)
    return returns
