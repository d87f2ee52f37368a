"""What a search is to do, from what was typed: its options, its space, the runs of a trial, the points to try first."""

import itertools
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from mnist_exp import config
from mnist_exp.config import sweeps
from mnist_exp.config.overrides import key_of
from mnist_exp.console.terminal import offer, say, shown
from mnist_exp.deprecated import SEARCHED_SEED
from mnist_exp.disk import ledger, trust
from mnist_exp.disk.layout import SweepFolder
from mnist_exp.errors import ConfigError
from mnist_exp.results import names
from mnist_exp.results.ranking import REPLICATES
from mnist_exp.search import space as spaces
from mnist_exp.search import study as studies
from mnist_exp.search.space import Space
from mnist_exp.search.study import TPE, Search
from mnist_exp.sweep import points
from mnist_exp.sweep.home import Home

DEFAULT_TRIALS = 50


def options(home: Home) -> Search:
    """How to search. Raises ConfigError if an option breaks its rule, or the sweep was begun as a grid."""
    if home.resumed and not SweepFolder(home.folder).study.is_file():
        raise ConfigError(f"{shown(home.folder)} is a grid, and no search.", "Go on with it without search=…")
    options = {key: value for key, value in home.options.items() if key in {f.name for f in fields(Search)}}
    n_trials = home.steering.get("n_trials")
    config.settings()["n_trials"].check(n_trials := DEFAULT_TRIALS if n_trials is None else n_trials)
    config.settings()["time_budget"].check(home.steering.get("time_budget"))
    # Two sweeps may share a storage, and a folder's name, but not a study.
    search = Search(study=f"{home.folder.name}-{config.unique()}", n_trials=n_trials, **options)
    # As typed: a password that comes from ${oc.env:…} is written nowhere.
    typed: Any = OmegaConf.to_container(home.steering.hydra.sweeper, resolve=False)
    search.storage = typed["storage"]
    search.sampler = search.sampler or {"_target_": TPE}
    if home.resumed:
        before = studies.read(home.folder)
        search.study, search.storage, search.replicates = before.study, before.storage, before.replicates
        studies.check_foreign(search, home.folder)
    studies.check(search)
    return search


def space(home: Home, search: Search) -> Space:
    """The space that was typed, or where nothing was, the usual one, which then counts as typed.

    Seeds and folds that were listed are none of it, but become the runs of each trial.
    """
    parsed = sweeps.parsed(home.varying, home.loader)
    fixed = [override for override in parsed if not override.is_sweep_override()]
    defaults = home.composer.own([str(override.input_line) for override in fixed])
    parsed = replicated(home, search, parsed)
    if all(override in fixed for override in parsed) and not search.space and not search.grid:
        if usual := spaces.usual(defaults, {override.key_or_group for override in fixed}):
            offer("Nothing was given to search, so the usual is:", shlex.join(usual))
        home.typed += usual
        parsed += sweeps.parsed(usual)
    return spaces.space(parsed, defaults, search.space, search.grid)


def replicated(home: Home, search: Search, parsed: list[Override]) -> list[Override]:
    """*parsed* without the lists of `REPLICATES`, which become the runs of each trial of *search*.

    Raises:
        ConfigError: such a key has an interval, or other values than those of the trials so far.
    """
    lists = [o for o in parsed if o.key_or_group in REPLICATES and o.is_sweep_override()]
    if home.resumed and {str(o.key_or_group) for o in lists} & set(home.plan.keys):
        say(str(SEARCHED_SEED))
        return parsed
    if interval := next((o for o in lists if not o.is_discrete_sweep()), None):
        raise ConfigError(
            f"{interval.input_line}: a search does not look for a lucky seed or fold.",
            f"List some, {interval.key_or_group}=0,1,2: each trial has a run of each, and its value is their mean.",
        )
    replicates = points.product(lists) if lists else []
    if home.resumed and replicates != search.replicates:
        was = " ".join(itertools.chain(*search.replicates)) or "one run each"
        raise ConfigError(
            f"The trials of this search have {was}; with other seeds they could not be compared.",
            studies.afresh(home.folder),
        )
    search.replicates = replicates
    return [o for o in parsed if o not in lists]


def known_points(home: Home, space: Space) -> list[dict[str, Any]]:
    """The values that `enqueue` names, by key: of a table, of points as typed, or of the best run of a sweep.

    None where that was typed before: a search that goes on has them already.

    Raises:
        ConfigError: it names nothing of the kind, or a value is not in *space*.
    """
    typed = home.steering.get("enqueue")
    before = home.plan.typed if home.resumed else []
    if not typed or any(key_of(override) == "enqueue" and override in before for override in home.typed):
        return []
    if Path(typed).suffix in points.TABLES:
        rows = points.read(Path(typed), "enqueue")
    elif "=" in typed:
        rows = [point.split() for point in typed.split(";") if point.strip()]
    else:
        folder = names.best(names.resolve(typed)).at
        settings = config.flatten(config.to_dict(trust.load(folder)))
        best = {key: f"{key}={config.as_typed(value)}" for key, value in settings.items()}
        best |= {key_of(override): override for override in ledger.read(folder).overrides}
        rows = [[best[key] for key in space.varied if key in best]]
    return [spaces.known(row, space) for row in rows]
