"""In the run: reports each epoch to the study, and ends the run when the pruner gives it up.

Works under any launcher: the run finds the study by the folder that it lives in.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from mnist_exp.config import Config
from mnist_exp.disk import journal, trust
from mnist_exp.disk.layout import SweepFolder
from mnist_exp.engine.events import Control, EpochEnd, LaneEnd, Observer
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
        trial = _running(studies.join(sweep, search), int(folder.name))
        if trial is None:
            return []
        metric = search.watched or ("val/accuracy" if config.data.validating else "train/accuracy")
        reporter = Reporter(trial, metric, config.epochs, control)
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
    """

    def __init__(self, trial: "optuna.Trial", metric: str, epochs: int, control: Control) -> None:
        self.trial, self.metric, self.epochs, self.control = trial, metric, epochs, control

    def on_epoch(self, event: EpochEnd) -> None:
        try:
            self.report(event.epoch, event.metrics)
            if event.epoch < self.epochs and self.trial.should_prune():
                self.control.pruned[event.lane] = f"Pruned after epoch {event.epoch} of {self.epochs}."
        except Exception as error:  # the storage's: training does not depend on it
            log.warning("Epoch %d was not reported to the study: %s", event.epoch, error)

    def report(self, epoch: int, metrics: dict[str, float]) -> None:
        """Reports one epoch; the study keeps the first report of each."""
        if epoch not in self.trial.storage.get_trial(self.trial._trial_id).intermediate_values:
            self.trial.report(metrics[self.metric], epoch)

    def on_end(self, event: LaneEnd) -> None:
        """The search reads it from the ledger."""


def _running(study: "optuna.Study", number: int) -> Any:
    """Trial *number* as its run's handle, or None if it has ended."""
    import optuna

    trials = study.get_trials(deepcopy=False)
    if number >= len(trials) or trials[number].state.is_finished():
        return None
    return optuna.trial.Trial(study, trials[number]._trial_id)
