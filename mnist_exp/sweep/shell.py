"""What our plugins share. Hydra imports this at each start of any application, so it loads nothing heavy."""

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from mnist_exp.sweep.job import Job, Source


class OurSweeper(Sweeper):  # type: ignore[misc]  # hydra ships no types
    """Keeps its options and makes its launcher."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        if self.options["dry_run"]:  # a launcher begins to load what its workers need
            return
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )


class OurLauncher(Launcher):  # type: ignore[misc]  # hydra ships no types
    """Takes jobs from our sweepers, and overrides from any other.

    Its jobs do not report to MLflow: the process that follows them does, for all of them.
    """

    packs = False
    """Whether it trains several jobs together where that is faster."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mnist_exp.sweep.job import Job

        return self.run_jobs([Job(number, list(o)) for number, o in enumerate(job_overrides, start=initial_job_idx)])

    @abc.abstractmethod
    def run_jobs(self, jobs: "Sequence[Job]", total: int = 0, source: "Source | None" = None) -> Sequence[JobReturn]:
        """Runs *jobs*; returns what each returned, in order.

        Args:
            total: Jobs of the whole sweep, with those that are done already.
            source: Has the next ones as soon as some may begin, until it has no more; they are not returned.
        """
