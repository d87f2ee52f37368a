"""`hydra/sweeper=grid`: every combination of the values given, each once, checked before the first starts."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class GridConf:
    """Options of the sweeper: `hydra.sweeper.<name>=<value>`."""

    _target_: str = "hydra_plugins.mnist_exp.grid_sweeper.GridSweeper"
    params: dict[str, str] = field(default_factory=dict)  # overrides that the command line may replace
    zip: bool = False  # the first values of all keys together, then the second ones, instead of all combinations
    seed: int = 0  # of the draw, where n_trials asks for some combinations only
    report: bool = True  # write report.html at the end


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridConf, provider="mnist_exp")


class GridSweeper(Sweeper):
    """Expands, checks, launches and sums up; see mnist_exp/sweep/grid.py."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from mnist_exp.sweep import home as start  # heavy

        return start.sweep(self, arguments)
