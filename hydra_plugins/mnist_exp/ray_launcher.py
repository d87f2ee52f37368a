"""The launcher of `cluster=ray`: jobs as tasks of a Ray cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class RayConf:
    """Options of the launcher; `conf/cluster/ray.yaml` says what they mean."""

    _target_: str = "hydra_plugins.mnist_exp.ray_launcher.RayLauncher"
    address: str | None = None
    cpus_per_job: int = 1
    gpus_per_job: float | None = None
    retries: int = 2
    env: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/launcher", name="ray_cluster", node=RayConf, provider="mnist_exp")


class RayLauncher(Launcher):
    """Hands jobs to Ray and follows them; see mnist_exp/sweep/cluster/ray.py."""

    hosts_jobs = True  # this process reads their folders, and tells MLflow of all of them

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mnist_exp.sweep.cluster import driver as remote
        from mnist_exp.sweep.cluster import ray as ray_cluster  # heavy

        return remote.launch(self, ray_cluster.Ray(self.options), job_overrides, initial_job_idx)
