"""The launcher of `cluster=slurm`: jobs as Slurm arrays, with the options of Hydra's submitit launcher."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from mnist_exp.sweep.shell import OurLauncher

if TYPE_CHECKING:
    from mnist_exp.sweep.job import Job


class SlurmLauncher(OurLauncher):
    """Submits jobs to Slurm and follows them; see mnist_exp/sweep/cluster/slurm.py."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in options.items()})

    def run_jobs(self, jobs: "Sequence[Job]", total: int = 0) -> Sequence[JobReturn]:
        from mnist_exp.sweep.cluster import driver, slurm  # heavy

        hydra = self.config.hydra  # asked now: by resuming, the sweep's folder is another than at first
        options = self.options | {"submitit_folder": str(hydra.launcher.submitit_folder)}
        return driver.launch(self, slurm.Slurm(options, Path(str(hydra.sweep.dir))), jobs)
