"""`hydra/launcher=local`: jobs in worker processes of this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mnist_exp.sweep.shell import StreamingLauncher

if TYPE_CHECKING:
    from mnist_exp.sweep.job import Job, Source


@dataclass
class LocalConf:
    """Options of the launcher: `hydra.launcher.<name>=<value>`."""

    _target_: str = "hydra_plugins.mnist_exp.local_launcher.LocalLauncher"
    workers: int | None = None  # processes; null: one for each core, or each GPU slot
    per_gpu: int = 1  # processes that share a GPU
    pack: Any = "auto"  # networks that train together in a process: auto (as many as pays), off, or at most this many
    job_timeout: float | None = None  # seconds until a job counts as hung (a pack: times its jobs); null: never
    retries: int = 0  # times that a job which failed or died is tried again
    on_error: str = "continue"  # or stop: start no further job after the first failure
    max_failures: int | None = None  # stop after this many; null: never


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalConf, provider="mnist_exp")


class LocalLauncher(StreamingLauncher):
    """Runs jobs in worker processes; see mnist_exp/sweep/local/launch.py."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from mnist_exp.sweep.local import launch  # heavy

        launch.start_early()
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def run_jobs(self, jobs: "Sequence[Job]", total: int = 0) -> Sequence[JobReturn]:
        from mnist_exp.sweep.local import launch  # heavy

        return launch.launch(self, jobs, total)

    def run_source(self, source: "Source") -> None:
        from mnist_exp.sweep.local import launch  # heavy

        launch.search(self, source)
