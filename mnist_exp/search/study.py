"""The study of a sweep: how it searches, and how its trials ended.

`study.json` in the sweep's folder says how, so that any process which sees the folder can take part: run N of the
sweep is trial N of the study, or where a trial has K runs, one of trial N // K. The trials are in `optuna.journal`
beside it, or in any storage that Optuna knows.
"""

import dataclasses
import functools
import json
import logging
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, final

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import system
from mnist_exp.config.rules import at_least, check_options
from mnist_exp.config.secrets import without_login
from mnist_exp.disk import records, trust
from mnist_exp.disk.files import write_json
from mnist_exp.disk.layout import State, SweepFolder
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ConfigError, first_line
from mnist_exp.search.space import Distribution, extremes

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

OBJECTIVES = (
    *("final/val_accuracy", "final/val_loss", "final/train_accuracy", "final/train_loss", "best/val_accuracy"),
    *("model/parameters", "time/total"),
)
"""What can be searched for: accuracies are maximised, all else is minimised. The test set chooses nothing."""
GRID, TPE = "optuna.samplers.GridSampler", "optuna.samplers.TPESampler"
ANEW = f"Delete {SweepFolder.trials}: sweep.json and the ledgers of the runs have its trials, too."
RULES = {"batch": at_least(1), "max_failures": at_least(0), "patience": at_least(1)}
MOST = 200  # characters of values in an error
PLAIN = re.compile(r"optuna\.samplers\.(?!CmaEs)\w+")
"""Samplers that keep plain data in a study. CMA-ES keeps a pickle, and nobody knows what others do."""


@final
@dataclass(kw_only=True)
class Search:
    """What `study.json` holds."""

    study: str
    """Its name in the storage."""
    n_trials: int
    """How many are to finish or to be pruned."""
    replicates: list[list[str]] = field(default_factory=list)
    """The overrides, such as its seed, of each run of a trial, whose value is their mean; empty: it has one run."""
    sampler: dict[str, Any]
    """A `_target_` node."""
    pruner: dict[str, Any] = field(default_factory=dict)
    """A `_target_` node; empty: none."""
    objectives: list[str] = field(default_factory=list)
    """Metrics of a run's summary, of `OBJECTIVES`; empty: `Ledger.objective`."""
    space: str | None = None
    """`module.function` of a conditional space."""
    seed: int = 0
    storage: str | None = None
    """As typed: `${oc.env:NAME}` keeps a password out of this file. None: the journal in the folder."""
    batch: int | None = None
    """How many are suggested at once; None: one under a launcher that gives out single runs as they come, else 4."""
    patience: int | None = None
    """Trials without a better one, after which no more begin; None: it goes on."""
    max_failures: int = 10
    format: int = 1

    @property
    def runs(self) -> int:
        """How many a trial has."""
        return len(self.replicates) or 1

    @property
    def grid(self) -> bool:
        """Whether its sampler tries all combinations."""
        return self.sampler.get("_target_") == GRID

    @property
    def method(self) -> str:
        """Sampler and pruner: `TPESampler with SuccessiveHalvingPruner`."""
        nodes = [node for node in (self.sampler, self.pruner) if node]
        return " with ".join(str(node.get("_target_", "")).rsplit(".", 1)[-1] for node in nodes)

    @property
    def directions(self) -> list[str]:
        """One for each objective."""
        return ["maximize" if "accuracy" in key else "minimize" for key in self.objectives] or ["maximize"]

    @property
    def watched(self) -> str | None:
        """The metric of each epoch that a pruner looks at; None: there is none, or no pruner. Empty: accuracy."""
        if not self.pruner or len(self.objectives) > 1:
            return None
        if not self.objectives:
            return ""
        (objective,) = self.objectives
        kind, _, metric = objective.partition("/")
        return metric.replace("_", "/", 1) if kind in ("final", "best") else None

    def values(self, entries: Sequence[Ledger]) -> list[float]:
        """The objectives of the finished runs of a trial, each their mean; NaN where one lacks it."""
        if not self.objectives:
            return [fmean(entry.objective for entry in entries)]
        return [fmean(entry.summary.get(key, math.nan) for entry in entries) for key in self.objectives]

    def write(self, folder: Path) -> None:
        """Publishes it, atomically."""
        write_json(SweepFolder(folder).study, dataclasses.asdict(self))


def read(folder: Path) -> Search:
    """How the sweep in *folder* searches.

    Raises:
        ConfigError: it does not, or the file is damaged, of a newer format, or has what `check` refuses.
    """
    search = records.read(Search, SweepFolder(folder).study, "search", ConfigError)
    check(search)
    return search


def check(search: Search) -> None:
    """Raises ConfigError if one of its options breaks a rule."""
    check_options("hydra.sweeper", vars(search), RULES)
    if search.patience is not None and len(search.objectives) > 1:
        raise ConfigError("hydra.sweeper.patience waits for one objective, and there are several.", "Drop it.")
    for what, node in (("sampler", search.sampler), ("pruner", search.pruner)):
        for key, value in node.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"hydra.sweeper.{what}.{key} must be a finite number, but got {value}.")
    for metric in search.objectives:
        if "test" in metric:
            reason = f"{metric} cannot be an objective: the test set is reported, it chooses nothing."
            raise ConfigError(reason, f"Search by {metric.replace('test', 'val')}.")
        if metric not in OBJECTIVES:
            raise ConfigError(f"{metric} cannot be an objective.", f"There are: {', '.join(OBJECTIVES)}")
    if len(search.objectives) > 1 and search.pruner:
        raise ConfigError("Optuna prunes for one objective only, and there are several.", "Add pruner=none.")
    if search.watched is None and search.pruner:
        (metric,) = search.objectives
        raise ConfigError(f"{metric} is known at the end only, so nothing can be pruned by it.", "Add pruner=none.")


def need() -> Any:
    """Optuna, whose warnings go where others go. Raises ConfigError if it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError("Searching needs Optuna.", "Install it: pip install 'mnist_exp[search]'") from error
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


@functools.cache
def storage(address: str) -> Any:
    """The storage at *address*, a URL or a journal's path; opened once. Raises ConfigError if it cannot be opened."""
    need()
    from optuna import storages
    from optuna.storages.journal import JournalFileBackend

    try:
        if "://" in address:
            return storages.get_storage(address)
        return storages.JournalStorage(JournalFileBackend(address))
    except Exception as error:  # any driver's
        reason = f"The storage of the study cannot be opened, {without_login(address)}: {first_line(error)}"
        raise ConfigError(reason, "" if "://" in address else ANEW) from error


def anew(search: Search, folder: Path) -> str:
    """The help where the trials of the study in *folder* are of no use; those in a storage are not ours to delete."""
    return afresh(folder) if search.storage else ANEW


def afresh(folder: Path) -> str:
    """The help where the search in *folder* cannot be gone on with."""
    return f"Begin a new search that tries the best of this one first: enqueue={folder.name}"


def address(search: Search, folder: Path) -> str:
    """Where the trials of the study in *folder* are: a URL, or the path of its journal.

    Raises ConfigError if the storage names a variable that is not set.
    """
    try:
        typed = OmegaConf.create({"storage": search.storage})["storage"]
    except OmegaConfBaseException as error:
        raise ConfigError(f"hydra.sweeper.storage: {first_line(error)}") from error
    return str(typed or SweepFolder(folder).trials.resolve())


def mend(folder: Path, search: Search) -> None:
    """Cuts the journal in *folder* off at its first damaged line, as Optuna does not open it with one.

    A power cut tears the last line. What is lost is in the plan and the runs' ledgers, too; see `Space.again`. So
    a foreign journal is not read at all where its sampler could unpickle what is in it.
    """
    kept, path = 0, SweepFolder(folder).trials
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    if lines and not trust.own(folder) and not all(map(PLAIN.fullmatch, trust.targets(search.sampler))):
        log.warning(
            "%s is not below outputs/sweeps, and its sampler could run what is in it: the runs' ledgers replace it. "
            "If it is yours, move the sweep there first; what it was is in %s.old.",
            *(path, path.name),
        )
        system.replace(path, path.with_name(f"{path.name}.old"))
        return
    for line in lines:
        try:
            whole = line.endswith(b"\n") and isinstance(json.loads(line), dict)
        except (ValueError, RecursionError):
            whole = False
        if not whole:
            log.warning("%s was damaged, and is cut off after %d bytes.", path, kept)
            os.truncate(path, kept)
            return
        kept += len(line)


def check_foreign(search: Search, folder: Path) -> None:
    """Raises ConfigError if a study of a foreign *folder* names code or a storage of its own; see `trust`."""
    trust.check({"sampler": search.sampler, "pruner": search.pruner}, folder)
    if search.storage and not trust.own(folder):
        reason = f"{folder} comes from elsewhere and keeps its trials in {search.storage}, which is not opened for it."
        raise ConfigError(reason, "If it is yours, keep it below outputs/sweeps.")


def read_only(folder: Path, search: Search) -> "optuna.Study":
    """As `join`, for reading: it suggests nothing, and prunes nothing."""
    check_foreign(dataclasses.replace(search, sampler={}, pruner={}), folder)
    return _opened(folder, search, need().pruners.NopPruner())


def join(folder: Path, search: Search | None = None) -> "optuna.Study":
    """The study in *folder* for one of its runs: it suggests nothing.

    Raises:
        ConfigError: there is none, it would call what is not allowed, or Optuna is missing.
    """
    search = search or read(folder)
    check_foreign(dataclasses.replace(search, sampler={}), folder)
    return _opened(folder, search, construct("pruner", search.pruner))


def lead(folder: Path, search: Search, space: Mapping[str, Distribution], again: bool = False) -> "optuna.Study":
    """The study in *folder* for the process that asks it.

    Its sampler is seeded by what was asked so far, too: one that goes on does not suggest the same again.

    Args:
        again: It was begun before.

    Raises:
        ConfigError: sampler or pruner do not take their keywords, the storage cannot be opened, or no Optuna.
    """
    kit, pruner = need(), construct("pruner", search.pruner)
    if again and search.storage:
        study = _opened(folder, search, pruner)
    else:
        mend(folder, search)
        how: Any = {"study_name": search.study, "directions": search.directions, "pruner": pruner}
        try:
            study = kit.create_study(storage=storage(address(search, folder)), load_if_exists=again, **how)
        except (kit.exceptions.OptunaError, OSError) as error:
            raise ConfigError(f"The study cannot be begun: {first_line(error)}") from error
    if again:
        if (was := [direction.name.lower() for direction in study.directions]) != search.directions:
            now = search.objectives or "accuracy"
            reason = f"The study was begun to {' and to '.join(was)}, and {now} is another aim."
            raise ConfigError(reason, "Leave hydra.sweeper.objectives as they were, or begin a new search.")
        check_space(study, space, anew(search, folder))
    more: dict[str, Any] = {"seed": (search.seed + 1_000_003 * asked(study)) % 2**32}
    if search.grid:
        more = {"seed": search.seed, "search_space": listed(space)}
        study.stop = lambda: None  # type: ignore[method-assign]  # the sampler would end a loop of Optuna's
    study.sampler = construct("sampler", search.sampler, **more)
    return study


def check_space(study: "optuna.Study", space: Mapping[str, Distribution], way_out: str) -> None:
    """Raises ConfigError if what may vary does not fit the trials so far, or what a trial is to be given."""
    for trial in study.get_trials(deepcopy=False):
        for key in trial.distributions.keys() & space.keys():
            was, now = trial.distributions[key], space[key]
            if was != now:
                reason = f"{key} was {_described(was)} in the trials so far, and would be {_described(now)}."
                raise ConfigError(reason, "Leave it as it was, or begin a new search.")
        try:
            given = trial.system_attrs.get("fixed_params", {})
            for key in given.keys() & space.keys() if trial.state.name == "WAITING" else ():
                space[key].to_internal_repr(given[key])
        except (AttributeError, ValueError, TypeError) as error:
            raise ConfigError(
                f"Trial {trial.number} of the study cannot begin: {first_line(error)}", way_out
            ) from error


def _described(values: Any) -> str:
    """The choices of a distribution, or its ends: `0.001 to 0.1 (log)`."""
    if choices := getattr(values, "choices", ()):
        return ", ".join(map(str, choices))[:MOST]
    return f"{values.low} to {values.high}{' (log)' * values.log}"


def _opened(folder: Path, search: Search, pruner: Any) -> "optuna.Study":
    kit, kept = need(), storage(address(search, folder))
    try:
        study: optuna.Study = kit.load_study(
            study_name=search.study, storage=kept, pruner=pruner, sampler=kit.samplers.RandomSampler()
        )
    except KeyError as error:  # Optuna's way of saying so
        lost = f"The storage of {folder} has no study {search.study!r}: it was lost or emptied."
        raise ConfigError(lost, anew(search, folder)) from error
    except (kit.exceptions.OptunaError, OSError, ValueError) as error:
        raise ConfigError(f"The study of {folder} cannot be read: {first_line(error)}") from error
    return study


def listed(space: Mapping[str, Distribution]) -> dict[str, list[Any]]:
    """The values of each key, for a sampler that tries all of them. Raises ConfigError if a key has an interval."""
    for key, values in space.items():
        if not hasattr(values, "choices"):
            raise ConfigError(f"A grid cannot try all of {key}.", f"List the values: {key}=a,b,c")
    return {key: extremes(values) for key, values in space.items()}


def construct(what: str, node: dict[str, Any], **more: Any) -> Any:
    """The sampler or pruner that *node* names; without one, a pruner that prunes nothing.

    Raises:
        ConfigError: there is no such class, a package is missing, or it does not take its keywords.
    """
    if not node:
        return need().pruners.NopPruner()
    try:
        return instantiate(node, **more)
    except Exception as error:
        cause = (error.__cause__ or error) if isinstance(error, InstantiationException) else error  # 1.4 wraps nothing
        if isinstance(cause, ImportError) and cause.name == "cmaes":
            raise ConfigError("CMA-ES needs one more package.", "Install it: pip install 'mnist_exp[cmaes]'") from error
        raise ConfigError(f"hydra.sweeper.{what} ({node.get('_target_')}): {first_line(cause)}") from error


def asked(study: "optuna.Study") -> int:
    """How many trials were begun; those that were enqueued come after them."""
    return sum(trial.state.name != "WAITING" for trial in study.get_trials(deepcopy=False))


def recall(study: "optuna.Study", number: int, values: dict[str, Any]) -> "optuna.Trial | None":
    """Trial *number*, to be given *values* again, if the study has lost it or some of them with its journal's end."""
    import optuna

    trials = study.get_trials(deepcopy=False)
    if number >= len(trials) or trials[number].state.name == "WAITING":
        study.enqueue_trial(values)
        return study.ask()
    if trials[number].state.is_finished() or values.keys() <= trials[number].params.keys():
        return None
    trial = optuna.trial.Trial(study, trials[number]._trial_id)
    trial.storage.set_trial_system_attr(trial._trial_id, "fixed_params", values)  # as `enqueue_trial` does
    return optuna.trial.Trial(study, trials[number]._trial_id)


def handle(study: "optuna.Study", number: int) -> "optuna.Trial | None":
    """Trial *number*, to report to; None if it has ended, or was never begun."""
    from optuna.trial import Trial

    trials = study.get_trials(deepcopy=False)
    ended = number >= len(trials) or trials[number].state.is_finished()
    return None if ended else Trial(study, trials[number]._trial_id)


def running(study: "optuna.Study", number: int) -> "optuna.Trial | None":
    """Trial *number*, to go on with what it suggests; None if it has ended."""
    if trial := handle(study, number):
        study.sampler.before_trial(study, study.get_trials(deepcopy=False)[number])
    return trial


def settle(study: "optuna.Study", number: int, search: Search, entries: Sequence[Ledger | None]) -> str:
    """Reports to *study* how trial *number* ended, by the ledgers of its runs; returns the state that it has now.

    It has finished when all of its runs have, and fails with the first one that failed: what is left of its seeds may
    be the lucky ones. While no run has failed or was pruned, one that has not ended leaves the trial running: it can
    still go on. A trial that has ended stays as it is.
    """
    from optuna.trial import TrialState

    trial = study.get_trials(deepcopy=False)[number]
    states = [entry.state if entry else State.PLANNED for entry in entries]
    if trial.state.is_finished():
        return trial.state.name
    if State.FAILED in states or State.PRUNED in states:
        state = TrialState.FAIL if State.FAILED in states else TrialState.PRUNED
        return study.tell(number, state=state).state.name
    if any(state != State.FINISHED for state in states):
        return trial.state.name
    if all(map(math.isfinite, values := search.values([entry for entry in entries if entry]))):
        return study.tell(number, values).state.name
    return study.tell(number, state=TrialState.FAIL).state.name


def repeat(study: "optuna.Study", number: int, first: int) -> str:
    """Trial *number* ends as trial *first* did, pruned or not, unless it has ended before; returns its state."""
    same = study.get_trials(deepcopy=False)[first]
    if same.state.name == "PRUNED" and same.last_step is not None and (trial := handle(study, number)):
        trial.report(same.intermediate_values[same.last_step], same.last_step)  # samplers judge pruned trials by it
    values = same.values if same.state.name == "COMPLETE" else None
    return study.tell(number, values, state=same.state, skip_if_finished=True).state.name


def fail(study: "optuna.Study", number: int) -> None:
    """Trial *number* failed, unless it has ended before."""
    from optuna.trial import TrialState

    study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
