"""In the run: reports each epoch to the study, and ends the run when the pruner gives it up.

Works under any launcher: the run finds the study by the folder that it lives in.

Where a trial has several runs, seeds say, it is their mean that is reported, over those that have come so far. The
pruner counts the epochs that all of them have trained, divided by their number. So where they train together, it sees
the mean of all after each epoch; where one begins after the other, it sees the first ones early, and a trial may end
before its other seeds begin. That is how sequential tests of algorithms save runs: Birattari and others, "A racing
algorithm for configuring metaheuristics", GECCO 2002; Hutter and others, ParamILS, JAIR 2009.
"""

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, final

from mnist_exp.config import Config
from mnist_exp.disk import journal, lanes, trust
from mnist_exp.disk.layout import SweepFolder
from mnist_exp.engine.events import Control, EpochEnd, Observer
from mnist_exp.search import study as studies

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)


def watch(folder: Path, config: Config, epoch: int, control: Control) -> Sequence[Observer]:
    """An observer that reports the run in *folder* to its study, if it has one that prunes and waits for it.

    Args:
        epoch: How far an earlier attempt came.
        control: Ends the run.
    """
    sweep = folder.parent
    if not SweepFolder(sweep).study.is_file() or not folder.name.isdecimal():
        return []
    if config.resume and not trust.own(sweep):  # a run that came with its study from elsewhere
        return []
    try:
        search = studies.read(sweep)
        if search.watched is None:
            return []
        first = int(folder.name) // search.runs * search.runs
        trial = studies.handle(studies.join(sweep, search), first // search.runs)
        if trial is None:
            return []
        metric = search.watched or ("val/accuracy" if config.data.validating else "train/accuracy")
        runs = [SweepFolder(sweep).run(number).path for number in range(first, first + search.runs)]
        reporter = Reporter(trial, metric, config.epochs, control, folder, runs)
        for row in journal.read(folder)[:epoch]:
            reporter.report(row["epoch"], row["metrics"])  # what a killed attempt had no time to report
    except Exception as error:  # the storage's, or no Optuna here: training does not depend on it
        log.warning("The run does not reach its study, so nothing ends it early: %s", error)
        return []
    return [reporter]


@final
class Reporter(Observer):
    """Reports one run.

    Args:
        metric: Key of `EpochEnd.metrics`.
        epochs: After the last one there is nothing to prune.
        folder: That of the run.
        runs: The folders of all runs of its trial.
    """

    def __init__(
        self, trial: "optuna.Trial", metric: str, epochs: int, control: Control, folder: Path, runs: Sequence[Path]
    ) -> None:
        self.trial, self.metric, self.epochs, self.control = trial, metric, epochs, control
        self.folder, self.runs = folder, runs

    def on_epoch(self, event: EpochEnd) -> None:
        with self._trying(event.epoch):
            if self.report(event.epoch, event.metrics) and event.epoch < self.epochs:
                self.control.undecided[self.trial.number] = functools.partial(self.decide, event)

    def decide(self, event: EpochEnd) -> None:
        """Ends the run, and those of its trial that train with it, if the pruner gives them up."""
        with self._trying(event.epoch):
            if self.trial.should_prune():
                reason = f"Pruned after epoch {event.epoch} of {self.epochs}."
                self.control.pruned |= dict.fromkeys([event.lane, *self._lanes(event.epoch).values()], reason)

    @contextlib.contextmanager
    def _trying(self, epoch: int) -> Iterator[None]:
        """Makes a warning of the storage's exceptions: training does not depend on it."""
        try:
            yield
        except Exception as error:
            log.warning("Epoch %d was not reported to the study: %s", epoch, error)

    def report(self, epoch: int, metrics: dict[str, float]) -> bool:
        """Reports one *epoch* once all runs that train together have finished it; the first report of a step stays.

        Returns:
            Whether they have, and the pruner may look at it.
        """
        others, together = {run: journal.read(run) for run in self.runs if run != self.folder}, self._lanes(epoch)
        trained = {run: min(len(rows), epoch) if run in together else len(rows) for run, rows in others.items()}
        step, part = divmod(epoch + sum(trained.values()), len(self.runs))
        if part or any(trained[run] < epoch for run in together):
            return False
        if step not in self.trial.storage.get_trial(self.trial._trial_id).intermediate_values:
            reached = [rows[epoch - 1]["metrics"] for rows in others.values() if len(rows) >= epoch]
            self.trial.report(fmean(each[self.metric] for each in [metrics, *reached]), step)
        return True

    def _lanes(self, epoch: int) -> dict[Path, int]:
        """The other runs of the trial that are in the same pack, with the lanes that they had in that *epoch*."""
        records = {run: record for run in self.runs if (record := lanes.read(run))} if len(self.runs) > 1 else {}
        own = records.pop(self.folder, None)
        return {run: each.position(epoch - 1) for run, each in records.items() if own and each.together == own.together}
