"""The launcher of `cluster=ray`: jobs as tasks of a Ray cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn

from mnist_exp.sweep.shell import OurLauncher

if TYPE_CHECKING:
    from mnist_exp.sweep.job import Job


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


class RayLauncher(OurLauncher):
    """Hands jobs to Ray and follows them; see mnist_exp/sweep/cluster/ray.py."""

    def run_jobs(self, jobs: "Sequence[Job]", total: int = 0) -> Sequence[JobReturn]:
        from mnist_exp.sweep.cluster import driver, ray  # heavy

        return driver.launch(self, ray.Ray(self.options), jobs)
