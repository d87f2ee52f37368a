"""A sweep's folder, held, with what was typed for it, now and before; and the way to its launcher."""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import system
from mnist_exp.config import Tracking
from mnist_exp.config.overrides import CONTROL, is_control, key_of, steers
from mnist_exp.console.terminal import shown
from mnist_exp.disk import ledger, order, trust
from mnist_exp.disk import plan as plans
from mnist_exp.disk.files import atomic_write, tidy
from mnist_exp.disk.layout import RunFolder, State, SweepFolder, holds_runs, is_sweep
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import BusyError, CheckpointError, ConfigError, DataError
from mnist_exp.results import names
from mnist_exp.run import warm
from mnist_exp.search import study as studies
from mnist_exp.sweep.composing import Composer
from mnist_exp.sweep.job import Job
from mnist_exp.sweep.reporter import SweepReporter
from mnist_exp.sweep.shell import OurLauncher, OurSweeper

SUBDIR = "${hydra.job.num}"
"""Which folder of the sweep a run is in, as `conf/train.yaml` has it."""


@final
@dataclass
class Home:
    """A sweep that this process has taken."""

    sweeper: OurSweeper
    folder: Path
    typed: list[str]
    """The overrides as they were typed, the first time and now."""
    plan: Plan
    """What an earlier attempt has planned, or a new one."""
    resumed: bool
    control: dict[str, Any]
    """`resume`, `force` and `retry_failed`."""
    steering: DictConfig
    """The config that `options`, `n_trials` and `points` are read from."""

    @property
    def options(self) -> dict[str, Any]:
        options: Any = OmegaConf.to_container(self.steering.hydra.sweeper, resolve=True)
        return dict(options)

    @property
    def loader(self) -> ConfigLoader:
        return self.sweeper.hydra_context.config_loader

    @functools.cached_property
    def composer(self) -> Composer:
        return Composer(self.loader, self.sweeper.config, self.folder if self.resumed else None)

    @property
    def varying(self) -> list[str]:
        """What was typed for the runs."""
        return [override for override in self.typed if not steers(override)]

    @property
    def again(self) -> str:
        """The command that goes on with it, with what is not taken from a folder elsewhere."""
        further = [] if trust.own(self.folder) else filter(trust.reaches, self.typed)
        return names.resuming(self.folder, self.plan.cluster, *further)

    def run(self, number: int) -> Path:
        """The folder of run *number*."""
        return SweepFolder(self.folder).run(number).path

    def count(self, *states: State) -> int:
        """How many runs of the plan are in one of *states*."""
        entries = (ledger.find(self.run(number)) for number in range(len(self.plan.points)))
        return sum(entry is not None and entry.state in states for entry in entries)

    def reporter(self, keys: Sequence[str], tracking: Tracking) -> SweepReporter:
        """Writes the plan, in which *keys* vary, and the sweep's config; returns what reports the sweep to MLflow."""
        plan = self.plan
        plan.typed, plan.keys = self.typed, list(dict.fromkeys([*plan.keys, *keys]))
        plan.cluster = self.sweeper.config.hydra.runtime.choices["cluster"]
        plan.experiment = tracking.experiment if tracking.enabled else ""
        plan.write(self.folder)
        OmegaConf.save(self.sweeper.config, SweepFolder(self.folder).config)
        live, page = isinstance(self.sweeper.launcher, OurLauncher), self.options["report"]
        return SweepReporter(plan, self.folder, tracking, live, page)

    def launch(self, jobs: list[Job], total: int = 0) -> Sequence[JobReturn]:
        """Hands *jobs* of a sweep of *total* to the launcher, each with the folder that its number names."""
        if not jobs:
            return []
        if isinstance(self.sweeper.launcher, OurLauncher):
            return self.sweeper.launcher.run_jobs(jobs, total)
        first = jobs[0].number
        gaps = [job.number for job in jobs] != list(range(first, first + len(jobs)))  # after a resume
        typed = [[*job.overrides, *([f"hydra.sweep.subdir={job.number}"] if gaps else [])] for job in jobs]
        returns: Sequence[JobReturn] = self.sweeper.launcher.launch(typed, initial_job_idx=first)
        return returns


@contextlib.contextmanager
def opened(sweeper: OurSweeper, arguments: list[str]) -> Iterator[Home]:
    """While it lasts, the sweep's folder belongs to this process.

    Raises:
        ConfigError: `resume` names no sweep, a new one has a folder with runs, or runs are to have folders of other
            names.
        BusyError: another process has it.
    """
    master = sweeper.config
    if OmegaConf.to_container(master.hydra.sweep, resolve=False)["subdir"] != SUBDIR:  # type: ignore[call-overload, index]
        raise ConfigError(
            "hydra.sweep.subdir cannot be set: each run of a sweep is in the folder of its number.",
            "Set hydra.sweep.dir, the folder of the sweep, or name, what a run is called in MLflow.",
        )
    control = {key: master.get(key) for key in CONTROL}
    typed = [f"{key}={value}" for key, value in sweeper.options["params"].items()]
    typed += [o for o in as_typed(master) if steers(o)]
    where = [a for a in arguments if key_of(a) == "cluster"]  # where jobs run is no part of what they run
    typed += warm.typed([a for a in arguments if not is_control(a) and a not in where])
    selection = names.resolve(control["resume"]) if control["resume"] else None
    old = selection.sweep if selection else None
    if selection and old:
        check_foreign(old, selection.home, [*arguments, *as_typed(master)])
        typed = [*old.typed, *typed]
    elif selection:
        raise ConfigError(f"{control['resume']!r} is not a sweep.", "Without -m, resume=… goes on with a single run.")
    typed = list({key_of(override): override for override in typed}.values())
    with read_write(master.hydra):  # jobs are composed anew, and hydra.sweeper.* fits one sweeper only
        known = set(as_typed(master))
        master.hydra.overrides.hydra += [*where, *(o for o in typed if steers(o) and o not in known)]
    steering = resumed(master, sweeper.hydra_context.config_loader, selection.home) if selection else master
    folder = Path(str(master.hydra.sweep.dir))
    if not selection:
        check_new(folder)  # and again below: another may be faster
    # A dry run writes nothing, so it keeps nobody out.
    with contextlib.nullcontext() if sweeper.options["dry_run"] else held(folder):
        if not selection:
            check_new(folder)
        elif old != plans.read(folder):
            changed = f"{shown(folder)} was gone on with by another process meanwhile."
            raise BusyError(changed, "Type that again, if something is still missing.")
        plan = old or Plan(id=folder.name, typed=typed, keys=[], order=order.following(folder))
        yield Home(sweeper, folder, typed, plan, old is not None, control, steering)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """While it lasts, the *folder* of a sweep belongs to this process.

    If the sweep is refused, which is an error before any of its runs begins, the folder is left as it was.

    Raises:
        BusyError: another process has it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with plans.hold(folder) as lock:
        before, runs = _records(folder), _begun(folder)
        if before or runs:
            made = []  # by another process, which was faster
        try:
            tidy(folder, *SweepFolder.written)
            tidy(SweepFolder(folder).figures, "*")
            yield
        except (ConfigError, DataError, CheckpointError, HydraException, OmegaConfBaseException):
            if _begun(folder) == runs:
                for path in _records(folder).keys() - before.keys():
                    system.unlink(path)
                for path, data in before.items():
                    atomic_write(path, data)
                studies.storage.cache_clear()  # it has read what is gone
                if folder in made:
                    system.delete(folder, lock)
                for path in made[1:]:
                    with contextlib.suppress(OSError):  # another sweep is in it by now
                        path.rmdir()
            raise


def _records(folder: Path) -> dict[Path, bytes]:
    """The records of the sweep in *folder*, those of a search too."""
    names = (SweepFolder.plan, SweepFolder.config, SweepFolder.study, SweepFolder.trials)
    return {path: path.read_bytes() for name in names if (path := folder / name).is_file()}


def _begun(folder: Path) -> set[tuple[Path, int]]:
    """What grows when a run in *folder* begins, or Slurm takes its job, with the sizes."""
    grow = (*folder.glob("*/*.log"), *folder.glob(SweepFolder.jobs))
    return {(path, path.stat().st_size) for path in grow} | {(path, 0) for path in folder.glob(f"*/{RunFolder.ledger}")}


def check_new(folder: Path) -> None:
    """Raises ConfigError if the *folder* of a new sweep has runs: what they came to is not what this one asks for."""
    if is_sweep(folder.parent):
        raise ConfigError(
            f"{shown(folder)} would be in the folder of another sweep.", "Choose another: hydra.sweep.dir=…"
        )
    if holds_runs(folder):
        again = f"\nor go on with that one:\n{names.resuming(folder)}" if is_sweep(folder) else ""
        reason = f"{shown(folder)} has runs already, and a new sweep would be mixed up with them."
        raise ConfigError(reason, f"Choose another folder: hydra.sweep.dir=…{again}")


def as_typed(master: DictConfig) -> list[str]:
    """The overrides of Hydra's own part; a `${oc.env:NAME}` in them stays, and its value is written nowhere."""
    overrides: Any = OmegaConf.to_container(master.hydra.overrides.hydra, resolve=False)
    return list(overrides)


def check_foreign(old: Plan, folder: Path, typed: Sequence[str]) -> None:
    """Raises ConfigError if the plan of a foreign *folder* would do more than set and choose; see `trust`.

    What its jobs would call is checked when they are composed, sampler and pruner when the study is read. What was
    *typed* now is allowed.
    """
    if trust.own(folder):
        return
    for override in (*old.typed, *itertools.chain(*old.points)):
        if trust.reaches(override) and override not in typed:
            reason = f"{folder} comes from elsewhere and has the override {override!r}, which is not taken from there."
            raise ConfigError(reason, "If it is yours, keep it below outputs/sweeps, or type that again with resume=.")


def resumed(master: DictConfig, loader: ConfigLoader, folder: Path) -> DictConfig:
    """The config with the sweeper that the sweep in *folder* had; *master* gets both, and so do the jobs.

    Hydra composes jobs anew from the overrides of *master*, and they may choose no other sweeper than it has.
    """
    with read_write(master.hydra):
        master.hydra.sweep.dir = str(folder)
        path = QuotedString(str(folder), Quote.single).with_quotes()
        master.hydra.overrides.hydra.append(f"hydra.sweep.dir={path}")
        overrides = as_typed(master)
        steering: DictConfig = loader.load_configuration(master.hydra.job.config_name, overrides, run_mode=RunMode.RUN)
        OmegaConf.copy_cache(from_config=master, to_config=steering)
        master.hydra.runtime.choices = steering.hydra.runtime.choices
        master.hydra.launcher, master.hydra.sweeper = steering.hydra.launcher, steering.hydra.sweeper
    return steering
