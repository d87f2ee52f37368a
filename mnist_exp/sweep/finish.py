"""The end of a sweep: the best model, the leaderboard, the page, and what did not finish."""

import contextlib
import functools
import logging
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mnist_exp.config import Config
from mnist_exp.console import formats
from mnist_exp.console.terminal import offer, shown
from mnist_exp.disk import ledger
from mnist_exp.disk.files import tidy
from mnist_exp.disk.layout import RunFolder, State, SweepFolder
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import ExperimentError, Interrupted, SweepError
from mnist_exp.report import board, text
from mnist_exp.results import names
from mnist_exp.sweep.home import Home
from mnist_exp.sweep.job import shared
from mnist_exp.sweep.reporter import SweepReporter

log = logging.getLogger(__name__)


def prepare(configs: Sequence[Config]) -> None:
    """Loads ahead what the end of a sweep of *configs* needs, unless there is a template for each of their networks."""
    from mnist_exp.run import template  # torch

    kinds = {repr((config.model, config.data)): config for config in configs}
    if not all(map(template.kept, kinds.values())):
        load_ahead()


@functools.cache
def load_ahead() -> threading.Thread:
    """Loads torch's exporter and what draws the page beside the runs: 1.7 s, a tenth of a small sweep.

    A process that ends earlier waits for the thread: torch aborts one that leaves amid an export.
    """
    from torch import nn

    from mnist_exp import models

    def load() -> None:
        # Python refuses some imports when it ends; any other failure is raised again where it matters.
        with contextlib.suppress(Exception):
            import mnist_exp.report.page  # noqa: F401  # matplotlib

            models.export(models.Classifier(nn.Flatten(), mean=0.0, std=1.0))

    thread = threading.Thread(target=load)
    thread.start()
    return thread


def present_best(folder: Path, config_of: Callable[[int], Config]) -> None:
    """Exports the best run's network and has its figures drawn: in a sweep only that one is worth the time.

    Where not all can be compared, that is the best of each comparison. *config_of* gives the planned config of the run
    of that number: the one in its folder may come from elsewhere.
    """
    for ranked in names.rankings(names.resolve(folder)):
        if best := ranked.best:
            export_run(best.at, config_of(int(best.at.name)))


def export_run(folder: Path, config: Config) -> None:
    """Exports the network of the run in *folder* and has its figures drawn, as far as *config* wants them."""
    tidy(folder, RunFolder.model, RunFolder.ledger)
    entry = ledger.read(folder)
    from mnist_exp.run import export  # torch

    if config.checkpoint.model and not RunFolder(folder).model.exists():
        export.export_model(config, folder)
    if config.tracking.figures and not entry.figures:
        if config.augment:
            export.show_augmented(config, folder)
        entry.figures = True
        entry.write(folder)


def present(home: Home, reporter: SweepReporter) -> pd.DataFrame:
    """Exports the best, shows the leaderboard and writes it, with a page if wanted; returns the table of runs.

    Pictures are drawn while the last runs are reported to MLflow, links to the runs are written after that.
    """
    with warned("The best network", f"Make room, then: {home.again}"):
        present_best(home.folder, lambda number: home.composer.config_of(home.plan.points[number]))
    reporter.finish()
    comparisons = board.compare(names.resolve(home.folder))
    text.show(comparisons, lost=False)  # an error names them
    with warned("The report", f"Make room, then: python -m mnist_exp.report {shlex.quote(shown(home.folder))}"):
        if home.options["report"]:
            from mnist_exp.report import page  # matplotlib: not for --help

            offer("Report:", shown(page.write(comparisons, None, reporter.wait)))
        else:
            reporter.wait()
            board.save([board.tracked(comparison) for comparison in comparisons])
    return pd.concat([comparison.table for comparison in comparisons]).sort_index()


@contextlib.contextmanager
def warned(what: str, way_out: str) -> Iterator[None]:
    """Makes a warning of a disk that does not take *what*: the runs have ended, and the exit code is theirs."""
    try:
        yield
    except OSError as error:
        log.warning("%s cannot be written: %s: %s. %s", what, error.filename, error.strerror, way_out)


def conclude(home: Home, reporter: SweepReporter) -> None:
    """Presents a sweep whose points have run.

    Raises:
        SweepError: some did not finish.
        ExperimentError: its folder is gone.
    """
    if not SweepFolder(home.folder).plan.exists():
        raise ExperimentError(
            f"{home.folder} is gone: it was deleted or moved while the sweep ran.",
            "If it was moved, go on where it is now: python -m mnist_exp.train -m resume=FOLDER",
        )
    table, plan = present(home, reporter), home.plan
    if failures := board.failures(table, {*table["state"]} - {State.FINISHED, State.PRUNED}):
        reason = f"{len(failures)} of {len(plan.points)} runs did not finish:\n  {listed(failures, plan)}"
        raise SweepError(reason, f"All of them again:\n{home.again} retry_failed=true")


@contextlib.contextmanager
def stoppable(home: Home, done: Callable[[], str] | None = None) -> Iterator[None]:
    """While a sweep runs: Interrupted then says how much is *done*, else how many runs are, and how to go on."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        much = done() if done else f"{home.count(State.FINISHED)} of {len(home.plan.points)} runs are finished."
        raise interrupted(stop, much, home) from None


def listed(failures: list[dict[str, Any]], plan: Plan) -> str:
    """Runs of `board.failures` as lines, each with the overrides that not all runs share."""
    common, lines = shared(plan.points), []
    for run in failures:
        own = formats.settings(override for override in plan.points[run["number"]] if override not in common)
        log = [f"  log: {run['log']}"] if run["log"] else []
        lines += [f"#{run['number']} {own}: {run['reason']}", *log, f"  again: {run['rerun']}"]
    return "\n  ".join(lines)


def interrupted(stop: Interrupted | KeyboardInterrupt, done: str, home: Home) -> Interrupted:
    """The error of a sweep that the user has stopped: how much was *done*, which jobs go on, and how to resume it."""
    error = stop if isinstance(stop, Interrupted) else Interrupted("The sweep was stopped.")
    more = f"{error.help}\n" if error.help else ""
    return Interrupted(f"{error.message} {done}".strip(), f"{more}Go on with:\n{home.again}", error.signal)
