"""Jobs as a launcher hands them to a worker, without the processes."""

import inspect
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.types import HydraContext, RunMode, TaskFunction
from samples import TINY

from mnist_exp import config, train
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.launching import Handover

TRAIN = inspect.unwrap(train.main)


def handed_over(points: Sequence[list[str]], task: TaskFunction = TRAIN) -> tuple[bytes, list[Job]]:
    """What a worker gets for the *points* of a sweep in `sweep/`: what all jobs share, and the jobs."""
    config.register()
    loader = ConfigLoaderImpl(config_search_path=create_config_search_path(config.conf_dir()))
    typed = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=sweep"]
    master = loader.load_configuration("train", typed, run_mode=RunMode.MULTIRUN)
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    launcher: Any = SimpleNamespace(config=master, hydra_context=context, task_function=task)
    jobs = [Job(number, [*TINY, *typed[1:], *point]) for number, point in enumerate(points)]
    handover = Handover(launcher, jobs)
    return handover.common, [handover.prepared(job) for job in jobs]
