"""Begins a sweep: takes its folder, then runs it as a grid or as a search."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn

from mnist_exp.search import study
from mnist_exp.sweep import home as homes
from mnist_exp.sweep.shell import OurSweeper


def sweep(sweeper: OurSweeper, arguments: list[str]) -> Sequence[JobReturn]:
    """Runs the sweep that *arguments* describe, or with `resume=` what is missing of an earlier one.

    Raises:
        ConfigError: something cannot run, or has changed since; nothing was started.
        BusyError: another process runs that sweep.
        SweepError: some runs failed; the others are finished.
        Interrupted: Ctrl-C or SIGTERM.
    """
    if "sampler" in sweeper.options:
        study.need()
    with homes.opened(sweeper, arguments) as home:
        if "sampler" in home.options:
            from mnist_exp.sweep import trials

            trials.sweep(home)
            return []  # what became of each run is in its ledger
        from mnist_exp.sweep import grid

        return grid.sweep(home)
