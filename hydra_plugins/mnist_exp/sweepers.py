"""`hydra/sweeper=grid`, `race` and `optuna`: every combination of the values given, or what Optuna suggests."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from mnist_exp.sweep.shell import OurSweeper


@dataclass
class GridConf:
    """Options of the sweeper: `hydra.sweeper.<name>=<value>`."""

    _target_: str = "hydra_plugins.mnist_exp.sweepers.GridSweeper"
    params: dict[str, str] = field(default_factory=dict)  # overrides that the command line may replace
    zip: bool = False  # the first values of all keys together, then the second ones, instead of all combinations
    seed: int = 0  # of the draw, where n_trials asks for some combinations only
    report: bool = True  # write report.html, while the sweep runs and at its end
    dry_run: bool = False  # show what would run, and write nothing; also typed as --dry-run


@dataclass
class RaceConf:
    """Options of the sweeper: `hydra.sweeper.<name>=<value>`."""

    _target_: str = "hydra_plugins.mnist_exp.sweepers.RaceSweeper"
    params: dict[str, str] = field(default_factory=dict)  # overrides that the command line may replace
    zip: bool = False  # as in a grid
    first: int = 3  # seeds of each setting before the first decision
    patience: int | None = None  # rounds without a decision after which it ends; null: n_trials
    report: bool = True  # write report.html at the end
    dry_run: bool = False  # show what would run first, and write nothing; also typed as --dry-run


@dataclass
class OptunaConf:
    """Options of the sweeper: `hydra.sweeper.<name>=<value>`."""

    _target_: str = "hydra_plugins.mnist_exp.sweepers.OptunaSweeper"
    # Sampler and pruner are made later: here it would import Optuna.
    _recursive_: bool = False
    params: dict[str, str] = field(default_factory=dict)  # overrides that the command line may replace
    sampler: dict[str, Any] = field(default_factory=dict)  # what suggests values (conf/search)
    pruner: dict[str, Any] = field(default_factory=dict)  # what stops runs early (conf/pruner); {}: nothing
    objectives: list[str] = field(default_factory=list)  # metrics of a run's summary; []: its accuracy
    space: str | None = None  # module.function of a conditional space; see docs/search.md
    seed: int = 0  # of the sampler
    storage: str | None = None  # where trials are kept: an Optuna URL; null: a journal in the sweep's folder
    batch: int | None = None  # trials suggested at once, or under way on a cluster; null: 1 locally, Ray's room, else 4
    patience: int | None = None  # trials in a row without a better one after which no more begin; null: n_trials
    max_failures: int = 10  # failed trials after which the search gives up; until then each is replaced
    report: bool = True  # write report.html, while the sweep runs and at its end
    dry_run: bool = False  # show what would run, and write nothing; also typed as --dry-run


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridConf, provider="mnist_exp")
ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConf, provider="mnist_exp")
ConfigStore.instance().store(group="hydra/sweeper", name="race", node=RaceConf, provider="mnist_exp")


class GridSweeper(OurSweeper):
    """Expands, checks, launches and sums up; see `grid` in mnist_exp/sweep/start.py."""

    def sweep(self, arguments: list[str]) -> Any:
        from mnist_exp.sweep import start  # heavy

        return start.sweep(self, arguments)


class RaceSweeper(GridSweeper):
    """Begins like the grid, then adds seeds where they decide something; see mnist_exp/sweep/race.py."""


class OptunaSweeper(GridSweeper):
    """Begins like the grid, then searches: asks, launches, reports and sums up; see mnist_exp/sweep/search.py."""
