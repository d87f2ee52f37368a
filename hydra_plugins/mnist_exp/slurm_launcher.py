"""The launcher of `cluster=slurm`: jobs as Slurm arrays, with the options of Hydra's submitit launcher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class SlurmLauncher(Launcher):
    """Submits jobs to Slurm and follows them; see mnist_exp/sweep/cluster/slurm.py."""

    hosts_jobs = True  # this process reads their folders, and tells MLflow of all of them

    def __init__(self, **options: Any) -> None:
        self.options = {k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in options.items()}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mnist_exp.sweep.cluster import driver as remote  # heavy
        from mnist_exp.sweep.cluster import slurm

        hydra = self.config.hydra  # asked now: by resuming, the sweep's folder is another than at first
        options = self.options | {"submitit_folder": str(hydra.launcher.submitit_folder)}
        scheduler = slurm.Slurm(options, Path(str(hydra.sweep.dir)))
        return remote.launch(self, scheduler, job_overrides, initial_job_idx)
