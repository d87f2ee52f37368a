"""`hydra/sweeper=grid`: every combination of the values given, each once, checked before the first starts."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from mnist_exp.sweep.shell import OurSweeper


@dataclass
class GridConf:
    """Options of the sweeper: `hydra.sweeper.<name>=<value>`."""

    _target_: str = "hydra_plugins.mnist_exp.grid_sweeper.GridSweeper"
    params: dict[str, str] = field(default_factory=dict)  # overrides that the command line may replace
    zip: bool = False  # the first values of all keys together, then the second ones, instead of all combinations
    seed: int = 0  # of the draw, where n_trials asks for some combinations only
    report: bool = True  # write report.html at the end


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridConf, provider="mnist_exp")


class GridSweeper(OurSweeper):
    """Expands, checks, launches and sums up; see mnist_exp/sweep/grid.py."""

    def sweep(self, arguments: list[str]) -> Any:
        from mnist_exp.sweep import start  # heavy

        return start.sweep(self, arguments)
