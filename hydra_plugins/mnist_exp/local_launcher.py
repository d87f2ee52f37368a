"""`hydra/launcher=local`: jobs in worker processes of this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


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


class LocalLauncher(Launcher):
    """Runs jobs in worker processes; see mnist_exp/sweep/local/pool.py."""

    hosts_jobs = True  # they report to this process, which tells MLflow of all of them
    takes_jobs = True  # the sweeper may hand over more than overrides

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from mnist_exp.sweep.local import pool as local  # heavy

        local.start_early()
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mnist_exp.sweep.local import pool as local  # heavy

        jobs = [local.Job(number, list(o)) for number, o in enumerate(job_overrides, start=initial_job_idx)]
        return local.launch(self, jobs)
