"""The launchers: `local`, in worker processes of this machine, and those of `cluster=ray` and `cluster=slurm`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mnist_exp.sweep.shell import OurLauncher

if TYPE_CHECKING:
    from mnist_exp.sweep.job import Job, Source


@dataclass
class LocalConf:
    """Options of the launcher: `hydra.launcher.<name>=<value>`."""

    _target_: str = "hydra_plugins.mnist_exp.launchers.LocalLauncher"
    workers: int | None = None  # processes; null: one for each core, or each GPU slot
    per_gpu: int = 1  # processes that share a GPU
    pack: Any = "auto"  # networks that train together in a process: auto (as many as pays), off, or at most this many
    job_timeout: float | None = None  # seconds until a job counts as hung (a pack: times its jobs); null: never
    retries: int = 0  # times that a job which failed or died is tried again
    on_error: str = "continue"  # or stop: start no further job after the first failure
    max_failures: int | None = None  # stop after this many; null: never


@dataclass
class RayConf:
    """Options of the launcher; `conf/cluster/ray.yaml` says what they mean."""

    _target_: str = "hydra_plugins.mnist_exp.launchers.RayLauncher"
    address: str | None = None
    cpus_per_job: int = 1
    gpus_per_job: float | None = None
    retries: int = 2
    env: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalConf, provider="mnist_exp")
ConfigStore.instance().store(group="hydra/launcher", name="ray_cluster", node=RayConf, provider="mnist_exp")


class LocalLauncher(OurLauncher):
    """Runs jobs in worker processes; see mnist_exp/sweep/local/launch.py."""

    packs = True

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from mnist_exp.sweep.local import launch  # heavy

        launch.check(self.options)
        launch.start_early()
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def run_jobs(self, jobs: "Sequence[Job]", total: int = 0, source: "Source | None" = None) -> Sequence[JobReturn]:
        from mnist_exp.sweep.local import launch  # heavy

        return launch.launch(self, jobs, total, source)


class RayLauncher(OurLauncher):
    """Hands jobs to Ray and follows them; see mnist_exp/sweep/cluster/ray.py."""

    def run_jobs(self, jobs: "Sequence[Job]", total: int = 0, source: "Source | None" = None) -> Sequence[JobReturn]:
        from mnist_exp.sweep.cluster import driver, ray  # heavy

        return driver.launch(self, ray.Ray(self.options), jobs, source)


class SlurmLauncher(OurLauncher):
    """Submits jobs to Slurm, with the options of Hydra's submitit launcher; see mnist_exp/sweep/cluster/slurm.py."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in options.items()})

    def run_jobs(self, jobs: "Sequence[Job]", total: int = 0, source: "Source | None" = None) -> Sequence[JobReturn]:
        from mnist_exp.sweep.cluster import driver, slurm  # heavy

        hydra = self.config.hydra  # asked now: by resuming, the sweep's folder is another than at first
        options = self.options | {"submitit_folder": str(hydra.launcher.submitit_folder)}
        return driver.launch(self, slurm.Slurm(options, Path(str(hydra.sweep.dir))), jobs, source)
