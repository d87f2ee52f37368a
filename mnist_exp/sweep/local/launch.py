"""The local launcher: checks its options, makes the packs, and has a pool of workers run them."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle

from mnist_exp.config.rules import at_least, check_options, must
from mnist_exp.errors import ExperimentError
from mnist_exp.sweep.composing import Composer
from mnist_exp.sweep.display import Display
from mnist_exp.sweep.job import Job, Returns, Source, costs, shared
from mnist_exp.sweep.launching import Handover, Stop
from mnist_exp.sweep.local.pool import Capacity, Pool, context, device_of, starting
from mnist_exp.sweep.shell import OurLauncher

RULES = {
    "workers": at_least(1),
    "per_gpu": at_least(1),
    "pack": must(
        "be auto, off, or 1 or more", lambda v: v in ("auto", "off", False) or (isinstance(v, int) and v >= 1)
    ),
    "job_timeout": must("be a number > 0", lambda v: v > 0),
    "retries": at_least(0),
    "on_error": must("be continue or stop", ("continue", "stop").__contains__),
    "max_failures": at_least(1),
}


def start_early() -> None:
    """Begins to load torch for the workers in the background: they are forked from there, loaded and ready."""
    if context(gpus=0).get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.set_forkserver_preload(["mnist_exp.sweep.local.preload"])
        with starting():
            forkserver.ensure_running()


def launch(launcher: OurLauncher, jobs: Sequence[Job], total: int = 0, source: Source | None = None) -> Returns:
    """Runs every job; returns what each returned, in order.

    Args:
        total: Jobs of the sweep, with those that are done already: the cores are shared as if all were to run, because
            the number of threads decides the last bits.
        source: Gives a pack to each worker that is free when *jobs*, its first, are under way; they are not returned.

    Raises:
        HydraException, OmegaConfBaseException: an override of some job does not fit; none was started.
        Interrupted: Ctrl-C or SIGTERM; what was running has saved its epochs.
    """
    options = launcher.options
    ours = [job.config for job in jobs if job.parsed]  # from a sweeper of ours, which exports the best at the end
    handover = Handover(launcher, jobs)
    Path(str(launcher.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    capacity = capacity_for(jobs, handover.composer, options, total)
    fixed = source.fixed if source else shared([job.overrides for job in jobs])
    with Display(len(jobs), fixed) as display, Stop() as stop:
        pool = Pool(options, handover, capacity, display, stop, source)
        if source:
            packs = [list(jobs)]
        elif handover.trains:
            packs = divided(jobs, len(capacity.slots(len(jobs))), capacity)
        else:
            packs = [[job] for job in jobs]
        display.costs |= costs(jobs)
        try:
            pool.begin(packs)
            if ours:
                from mnist_exp.sweep import finish

                finish.prepare(ours)
            pool.follow()
        finally:
            pool.close()
    never = ExperimentError("It was not started: the sweep stopped before.")
    return Returns([job.outcome or cloudpickle.dumps(job.failed(never)) for job in jobs])


def check(options: dict[str, Any]) -> None:
    """Raises ConfigError if one of the launcher's options is out of its range."""
    check_options("hydra.launcher", options, RULES)


def share(job: Job, trials: int, capacity: Capacity) -> int:
    """How many of so many *trials* are a worker's share, if it trains *job* and others together; 1 if it cannot."""
    from mnist_exp.sweep import packing  # torch

    if packing.joins(job.config, capacity.pack, bool(capacity.gpus)) is None:
        return 1
    return math.ceil(trials / len(capacity.slots(trials)))


def divided(jobs: Sequence[Job], workers: int, capacity: Capacity) -> list[list[Job]]:
    """*jobs* by pack, the longest first."""
    from mnist_exp.sweep import packing  # torch

    configs, before = [job.config for job in jobs], [job.pack for job in jobs]
    packs = packing.divide(configs, workers, capacity.pack, bool(capacity.gpus), before)
    return [[jobs[i] for i in positions] for positions in packs]


def capacity_for(jobs: Sequence[Job], composer: Composer, options: dict[str, Any], total: int = 0) -> Capacity:
    """What *jobs* may use, by the launcher's *options*: the GPUs that they name, all that there are, or cores.

    They train one by one where they would notice: with callbacks (but the guard, which looks at the sweep), or with an
    environment or a working directory of their own.
    """
    hydra = composer.master.hydra
    noticed = hydra.callbacks.keys() - {"guard"} or hydra.job.env_set or hydra.job.chdir
    devices = {device_of(job, composer) for job in jobs}
    numbered = sorted(device for device in devices if device.startswith("cuda:"))
    gpus = numbered or (visible_gpus() if devices & {"auto", "cuda"} else [])
    pack = "off" if noticed else options["pack"]
    return Capacity(options["workers"], options["per_gpu"], gpus, total, bool(numbered), pack)


def visible_gpus() -> list[str]:
    """The GPUs that CUDA can use, as it numbers or names them outside this process."""
    import torch

    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # CUDA uses those before the first one that does not exist
    named = map(str, range(usable)) if visible is None else visible.split(",")
    return [name.strip() for name in named][:usable]
