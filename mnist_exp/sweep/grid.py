"""The grid sweeper: expand, check everything, launch what is missing, sum up."""

import contextlib
import functools
import json
import logging
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import cli, config, lanes, ledger, naming
from mnist_exp import plan as plans
from mnist_exp.config import Config
from mnist_exp.errors import ConfigError, ExperimentError, Interrupted, SweepError
from mnist_exp.ledger import Ledger
from mnist_exp.plan import Plan
from mnist_exp.report import leaderboard
from mnist_exp.report import write as write_report
from mnist_exp.resume import CONTROL, changed, is_control
from mnist_exp.sweep.compose import Composer
from mnist_exp.terminal import say, shown
from mnist_exp.tracking.courier import Courier

log = logging.getLogger(__name__)

LISTED = 10  # faults that are told one by one


@final
@dataclass
class Point:
    """One combination of values."""

    number: int
    overrides: list[str]
    config: Config
    entry: Ledger | None = None
    """What an earlier attempt has left, if any."""
    pack: str = ""
    """The pack that it began in then, if it was in one."""

    @functools.cached_property
    def print(self) -> str:
        """Fingerprint of its config."""
        return config.fingerprint(self.config)


def sweep(sweeper: Any, arguments: list[str]) -> Sequence[JobReturn]:
    """Runs every combination of the values in *arguments*, each once; with `resume=` what is missing of them.

    Returns:
        One JobReturn for each job that ran, in order.

    Raises:
        ConfigError: a point cannot run, or has changed since; nothing was started.
        BusyError: another process runs that sweep.
        SweepError: some runs failed; the others are finished.
        Interrupted: Ctrl-C or SIGTERM.
    """
    hosts = getattr(sweeper.launcher, "hosts_jobs", False)
    if hosts:
        from mnist_exp.sweep import local

        local.start_early()
    master, settings = sweeper.config, _settings(sweeper.config)
    typed = [f"{key}={value}" for key, value in sweeper.options["params"].items()]
    typed += [a for a in arguments if not is_control(a)]
    old = None
    if settings["resume"]:
        selection = naming.resolve(settings["resume"])
        if selection.sweep is None:
            raise ConfigError(
                f"{settings['resume']!r} is not a sweep.", "Without -m, resume=… goes on with a single run."
            )
        old = selection.sweep
        typed = list({key_of(override): override for override in [*old.typed, *typed]}.values())
        move(master, selection.home)
    folder = Path(str(master.hydra.sweep.dir))
    folder.mkdir(parents=True, exist_ok=True)
    lock = plans.hold(folder)
    try:
        combinations, keys = expand(sweeper, typed)
        points = check(Composer(sweeper.hydra_context.config_loader, master), combinations)
        plan = old or Plan(id=folder.name, typed=typed, keys=keys)
        missing = match(plan, points, folder, settings)
        plan.keys = [*plan.keys, *(k for k in keys if k not in plan.keys)]
        tracking = points[0].config.tracking
        plan.experiment = tracking.experiment if tracking.enabled else ""
        plan.write(folder)
        OmegaConf.save(master, folder / "multirun.yaml")
        with courier_for(plan, points, folder, tracking if hosts else None):
            returns = run(sweeper, plan, missing, folder, len(points), settings["force"])
            if hosts:
                present_best(folder)
        conclude(plan, folder, report=sweeper.options["report"])
        return returns
    finally:
        lock.release()


def move(master: DictConfig, folder: Path) -> None:
    """Makes *folder* the sweep's, also for the jobs: Hydra composes them anew from the overrides."""
    path = QuotedString(str(folder), Quote.single).with_quotes()
    with read_write(master), open_dict(master):
        master.hydra.sweep.dir = str(folder)
        master.hydra.overrides.hydra.append(f"hydra.sweep.dir={path}")


def key_of(override: str) -> str:
    """The key that *override* sets: what is typed on resuming replaces what was typed before for the same key."""
    return override.lstrip("+~").split("=")[0]


def _settings(master: DictConfig) -> dict[str, Any]:
    return {key: master.get(key) for key in CONTROL}


def expand(sweeper: Any, typed: list[str]) -> tuple[list[list[str]], list[str]]:
    """Every combination of what was typed, and the keys that vary.

    Raises:
        ConfigError: the grid cannot expand a kind of sweep (an interval, say).
    """
    parsed = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader).parse_overrides(typed)
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(
                f"A grid cannot try all of {override.input_line}.",
                f"List the values: {override.key_or_group}=a,b,c, or use range(start,stop,step).",
            )
    combinations = BasicSweeper.split_arguments(parsed, None)[0]
    keys = [str(o.key_or_group) for o in parsed if o.is_sweep_override()]
    return combinations, list(dict.fromkeys(keys))


def check(composer: Composer, combinations: list[list[str]]) -> list[Point]:
    """The points, without repeats, each able to run.

    Raises:
        ConfigError: some cannot; lists them all. Nothing was started.
    """
    from mnist_exp import build  # torch

    points: dict[str, Point] = {}
    faults: list[str] = []
    rehearsed: set[str] = set()
    for overrides in combinations:
        try:
            parsed = config.parse(composer.own(overrides))
            if (shape := _shape(parsed)) not in rehearsed:
                build.rehearse(parsed)
                rehearsed.add(shape)
        except (ExperimentError, HydraException, OmegaConfBaseException) as error:
            told = error if isinstance(error, ExperimentError) else cli.translate(error, overrides)
            faults.append(f"{' '.join(overrides)}: {told.message}")
            continue
        point = Point(0, overrides, parsed)
        points.setdefault(point.print, point)
    if faults:
        more = f"\n  … and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        listed = "\n  ".join(faults[:LISTED])
        raise ConfigError(
            f"{len(faults)} of {len(combinations)} points cannot run; nothing was started.\n  {listed}{more}"
        )
    if repeats := len(combinations) - len(points):
        say(f"{repeats} of {len(combinations)} points are the same as others; each runs once.")
    return list(points.values())


def _shape(parsed: Config) -> str:
    """What decides whether model, optimiser and schedule can be built: not lr or seed, whose rules are checked."""
    plain = config.to_dict(parsed)
    kept = {key: plain[key] for key in ("model", "optimizer", "schedule", "device", "precision")}
    kept["optimizer"] = {**kept["optimizer"], "lr": None}
    return json.dumps(kept, sort_keys=True, default=str)


def match(plan: Plan, points: list[Point], folder: Path, settings: dict[str, Any]) -> list[Point]:
    """Gives each point its number in *plan*, adding new ones; returns those that still have to run.

    Raises:
        ConfigError: config, code or data of a point have changed since it ran, and `force` is not set.
    """
    known = {tuple(overrides): i for i, overrides in enumerate(plan.points)}
    same = {fingerprint: i for i, fingerprint in enumerate(plan.configs)}
    missing, changes = [], []
    for point in points:
        number = known.get(tuple(point.overrides), same.get(point.print))
        if number is None:
            number = len(plan.points)
            plan.points.append(point.overrides)
            plan.configs.append(point.print)
        point.number = number
        with contextlib.suppress(ExperimentError):
            point.entry = ledger.read(folder / str(number))
            place = lanes.read(folder / str(number))
            point.pack = place.pack if place else ""
        state = point.entry.state if point.entry else "planned"
        if point.entry and (difference := changed(folder / str(number), point.entry, point.config)):
            changes.append(f"#{number} {' '.join(point.overrides)}: {difference}")
        if state in ("finished", "pruned") or (state == "failed" and not settings["retry_failed"]):
            continue
        missing.append(point)
    if changes and not settings["force"]:
        listed = "\n  ".join(changes[:LISTED])
        raise ConfigError(
            f"{len(changes)} runs of {folder.name} were made with something else:\n  {listed}",
            "force=true keeps the finished ones and goes on with the others all the same.",
        )
    return missing


@contextlib.contextmanager
def courier_for(plan: Plan, points: list[Point], folder: Path, tracking: Any) -> Iterator[None]:
    """While it lasts, MLflow is told of every run of the sweep, if this process is to do that."""
    if tracking is None or not tracking.enabled:
        yield
        return
    courier = Courier(tracking)
    try:
        for number in range(len(plan.points)):
            courier.follow(folder / str(number))
        courier.sweep(folder)
        yield
    finally:
        courier.close(tracking.patience)
    say(courier.where_to_look(folder))


def run(sweeper: Any, plan: Plan, missing: list[Point], folder: Path, total: int, force: bool) -> Sequence[JobReturn]:
    """Launches *missing* and sums up.

    Raises:
        SweepError, Interrupted: see `sweep`.
    """
    skipped = total - len(missing)
    already = f", {skipped} of them done already" if skipped else ""
    say(f"Sweep {plan.id}: {total} runs{already}; folder {shown(folder)}")
    resume = f"python -m mnist_exp.train -m resume={plan.id}"
    try:
        returns = launch(sweeper, missing, force)
    except (Interrupted, KeyboardInterrupt) as stop:
        number = stop.signal if isinstance(stop, Interrupted) else 2
        done = sum(entry is not None and entry.state == "finished" for entry in entries(plan, folder))
        raise Interrupted(
            f"Stopped; {done} of {len(plan.points)} runs are finished.", f"Go on with: {resume}", number
        ) from None
    return returns


def launch(sweeper: Any, missing: list[Point], force: bool) -> Sequence[JobReturn]:
    """Hands the jobs to the launcher, each with the folder that its number names."""
    if not missing:
        return []
    extra = ["force=true"] if force else []
    if getattr(sweeper.launcher, "hosts_jobs", False):
        from mnist_exp.sweep import local

        jobs = [local.Job(p.number, [*p.overrides, *extra], p.config, p.pack) for p in missing]
        return local.launch(sweeper.launcher, jobs)
    first = missing[0].number
    gaps = [p.number for p in missing] != list(range(first, first + len(missing)))  # after a resume
    typed = [[*p.overrides, *extra, *([f"hydra.sweep.subdir={p.number}"] if gaps else [])] for p in missing]
    returns: Sequence[JobReturn] = sweeper.launcher.launch(typed, initial_job_idx=first)
    return returns


def entries(plan: Plan, folder: Path) -> list[Ledger | None]:
    """The ledger of each point; None where it was never started."""
    found: list[Ledger | None] = []
    for number in range(len(plan.points)):
        try:
            found.append(ledger.read(folder / str(number)))
        except ExperimentError:
            found.append(None)
    return found


def present_best(folder: Path) -> None:
    """Exports the best run's network and has its curves drawn: in a sweep only that one is worth the time."""
    try:
        best = naming.best(naming.resolve(folder))
    except ConfigError:
        return  # none has finished
    entry = ledger.read(best)
    settings = config.load(best / "config.yaml")
    if settings.checkpoint.model and not (best / "model.pt2").exists():
        from mnist_exp import run as runs  # torch

        runs.export_model(settings, best)
    if settings.tracking.figures and not entry.figures:
        entry.figures = True
        entry.write(best)


def conclude(plan: Plan, folder: Path, report: bool) -> None:
    """Shows the leaderboard, writes the page, and says what did not finish.

    Raises:
        SweepError: not all runs finished.
    """
    leaderboard.show(naming.resolve(folder), lost=False)  # the error below names them
    if report:
        say(f"Report: {shown(write_report(folder))}")
    bad = []
    fixed = set.intersection(*map(set, plan.points)) if len(plan.points) > 1 else set()
    for number, entry in enumerate(entries(plan, folder)):
        if entry is not None and entry.state in ("finished", "pruned"):
            continue
        reason = entry.reason if entry else "it was never started"
        what, log_file = " ".join(o for o in plan.points[number] if o not in fixed), shown(folder / str(number))
        again = f"python -m mnist_exp.train {shlex.join(plan.points[number])}"
        bad.append(f"#{number} {what}: {reason}\n    log: {log_file}/train.log\n    again: {again}")
    if bad:
        listed = "\n  ".join(bad)
        raise SweepError(
            f"{len(bad)} of {len(plan.points)} runs did not finish:\n  {listed}",
            f"All of them again: python -m mnist_exp.train -m resume={plan.id} retry_failed=true",
        )
