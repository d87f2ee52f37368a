"""The grid sweeper: expand, check everything, launch what is missing, sum up."""

import contextlib
import functools
import json
import logging
import random
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import cli, config, lanes, ledger, naming
from mnist_exp.config import Config
from mnist_exp.errors import ConfigError, ExperimentError, Interrupted, SweepError
from mnist_exp.files import tidy
from mnist_exp.ledger import Ledger
from mnist_exp.plan import Plan
from mnist_exp.report import leaderboard
from mnist_exp.report import write as write_report
from mnist_exp.resume import changed, key_of
from mnist_exp.sweep import table
from mnist_exp.sweep.compose import Composer
from mnist_exp.sweep.start import Home
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


def sweep(sweeper: Any, home: Home) -> Sequence[JobReturn]:
    """Runs every combination of the values that were typed, each once, or what is missing of them.

    Returns:
        One JobReturn for each job that ran, in order.

    Raises:
        ExperimentError: see `start.sweep`.
    """
    folder, options = home.folder, home.options
    hosts = getattr(sweeper.launcher, "hosts_jobs", False)
    combinations, keys = expand(sweeper, home)
    points = check(home.composer(sweeper), combinations)
    plan = home.old or Plan(id=folder.name, typed=home.typed, keys=keys)
    missing = match(plan, points, folder, home.control)
    plan.keys = [*plan.keys, *(k for k in keys if k not in plan.keys)]
    tracking = points[0].config.tracking
    plan.cluster = home.cluster
    plan.experiment = tracking.experiment if tracking.enabled else ""
    plan.write(folder)
    OmegaConf.save(sweeper.config, folder / "multirun.yaml")
    with courier_for(plan, folder, tracking if hosts else None):
        returns = run(sweeper, plan, missing, folder, len(points), home.control["force"])
        if hosts:
            present_best(folder)
    conclude(plan, folder, report=options["report"])
    return returns


def expand(sweeper: Any, home: Home) -> tuple[list[list[str]], list[str]]:
    """The combinations of what was typed that are wanted, and the keys that vary.

    Raises:
        ConfigError: the grid cannot expand a kind of sweep (an interval, say), or lists do not pair up.
    """
    typed = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader).parse_overrides(home.varying)
    for override in typed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(
                f"A grid cannot try all of {override.input_line}.",
                f"List the values: {override.key_or_group}=a,b,c, use range(start,stop,step), or add search=tpe.",
            )
    keys = [str(o.key_or_group) for o in typed if o.is_sweep_override()]
    combinations = pairs(typed) if home.options["zip"] else BasicSweeper.split_arguments(typed, None)[0]
    if path := points_file(home):
        rows = table.rows(path)
        combinations = [[*row, *combination] for row in rows for combination in combinations]
        keys = [*dict.fromkeys(key_of(override) for row in rows for override in row), *keys]
    if (wanted := home.steering.get("n_trials")) is not None:
        config.at_least("n_trials", wanted, 1)
        order = list(range(len(combinations)))
        random.Random(home.options["seed"]).shuffle(order)  # a larger n_trials later adds to those of a smaller one
        combinations = [combinations[i] for i in sorted(order[:wanted])]
    return combinations, list(dict.fromkeys(keys))


def pairs(typed: Sequence[Override]) -> list[list[str]]:
    """The first values of all keys, the second ones, and so on; a key with one value has it in each.

    Raises:
        ConfigError: keys have different numbers of values.
    """
    lists = [BasicSweeper.split_arguments([override], None)[0] for override in typed]
    sizes = {str(o.key_or_group): len(values) for o, values in zip(typed, lists, strict=True) if o.is_sweep_override()}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{key} has {n}" for key, n in sizes.items())
        raise ConfigError(f"search=zip pairs values, but the lists differ in length: {said}.")
    length = max(sizes.values(), default=1)
    return [[override for values in lists for override in values[i % len(values)]] for i in range(length)]


def points_file(home: Home) -> Path | None:
    """The table of points that was asked for.

    Raises:
        ConfigError: search=points has none.
    """
    if OmegaConf.is_missing(home.steering, "points"):
        raise ConfigError("search=points needs a table.", "Name it: points=FILE.csv or points=FILE.yaml")
    name = home.steering.get("points")
    return Path(name) if name else None


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
            parsed = composer.config_of(overrides)
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
    if not settings["force"]:
        refuse(changes, folder)
    return missing


def refuse(changes: list[str], folder: Path) -> None:
    """Raises ConfigError if there are *changes* in the runs of *folder*."""
    if changes:
        listed = "\n  ".join(changes[:LISTED])
        raise ConfigError(
            f"{len(changes)} runs of {folder.name} were made with something else:\n  {listed}",
            "force=true keeps the finished ones and goes on with the others all the same.",
        )


@contextlib.contextmanager
def courier_for(plan: Plan, folder: Path, tracking: Any) -> Iterator[Courier | None]:
    """While it lasts, MLflow is told of every run of the sweep, if this process is to do that."""
    if tracking is None or not tracking.enabled:
        yield None
        return
    courier = Courier(tracking)
    try:
        for number in range(len(plan.points)):
            courier.follow(folder / str(number))
        courier.sweep(folder)
        yield courier
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
    try:
        returns = launch(sweeper, missing, force)
    except (Interrupted, KeyboardInterrupt) as stop:
        done = sum(entry is not None and entry.state == "finished" for entry in entries(plan, folder))
        raise interrupted(stop, f"{done} of {len(plan.points)} runs are finished.", plan) from None
    return returns


def interrupted(stop: Interrupted | KeyboardInterrupt, done: str, plan: Plan) -> Interrupted:
    """What the user is told who has stopped a sweep: how much was *done*, what else goes on, and how to."""
    asked = stop if isinstance(stop, Interrupted) else Interrupted("The sweep was stopped.")
    more = f"{asked.help}\n        " if asked.help else ""
    return Interrupted(f"{asked.message} {done}", f"{more}Go on with: {plan.again}", asked.signal)


def launch(sweeper: Any, missing: list[Point], force: bool) -> Sequence[JobReturn]:
    """Hands the jobs to the launcher, each with the folder that its number names."""
    if not missing:
        return []
    extra = ["force=true"] if force else []
    if getattr(sweeper.launcher, "takes_jobs", False):
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
    tidy(best, "model.pt2", "ledger.json")
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
            f"All of them again: {plan.again} retry_failed=true",
        )
