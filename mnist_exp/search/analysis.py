"""Optuna's analysis of a study: which keys mattered, and which runs nothing beats."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mnist_exp.disk.layout import SweepFolder
from mnist_exp.errors import first_line
from mnist_exp.search import study as studies
from mnist_exp.search.study import Search

FEW = 4  # finished trials below which importance says nothing


@final
@dataclass(frozen=True)
class Analysis:
    """A study as a report shows it."""

    search: Search
    importance: dict[str, float]
    """Share of each key in the first objective's variation, largest first; empty: too few trials."""
    front: list[int]
    """Numbers of the trials that no other beats in all objectives."""
    problem: str = ""
    """Why Optuna could not be asked."""


def analyse(folder: Path) -> Analysis | None:
    """The study of the sweep in *folder*, if it has one.

    Raises:
        ConfigError: `study.json` is damaged.
    """
    if not SweepFolder(folder).study.is_file():
        return None
    search = studies.read(folder)
    try:
        kit, study = studies.need(), studies.read_only(folder, search)
        complete = study.get_trials(deepcopy=False, states=(kit.trial.TrialState.COMPLETE,))
        front = sorted(trial.number for trial in study.best_trials) if complete else []
        if len(complete) < FEW or len({tuple(trial.values) for trial in complete}) == 1:
            return Analysis(search, {}, front)
        sign = -1 if search.directions[0] == "maximize" else 1  # Optuna takes low values for good ones here
        target = (lambda trial: sign * trial.values[0]) if len(search.objectives) > 1 else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that very remark
            importance = kit.importance.get_param_importances(study, target=target)
    except Exception as error:  # any storage driver's: a report does not depend on it
        return Analysis(search, {}, [], first_line(error))
    return Analysis(search, {key: share for key, share in importance.items() if share == share}, front)
