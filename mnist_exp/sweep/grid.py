"""The grid sweeper: expand, check everything, launch what is missing, sum up."""

import contextlib
import functools
import json
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import config
from mnist_exp.config import Config, Tracking, schema
from mnist_exp.config.explain import translate
from mnist_exp.config.overrides import key_of
from mnist_exp.config.schema import Kind
from mnist_exp.console.terminal import say, shown
from mnist_exp.disk import lanes, ledger
from mnist_exp.disk.files import tidy
from mnist_exp.disk.ledger import Ledger
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import ConfigError, ExperimentError, Interrupted, SweepError
from mnist_exp.report import board as leaderboard
from mnist_exp.results import names as naming
from mnist_exp.run.resume import changed
from mnist_exp.sweep import points as table
from mnist_exp.sweep.composing import Composer
from mnist_exp.sweep.home import Home
from mnist_exp.tracking.publisher import Publisher

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
    combinations, keys = expand(sweeper, home)
    plan = home.old or Plan(id=folder.name, typed=home.typed, keys=keys)
    composer = home.composer(sweeper)
    points = union(plan, combinations, composer)
    missing = match(points, folder, home.control)
    plan.typed, plan.keys = home.typed, list(dict.fromkeys([*plan.keys, *keys]))
    tracking = points[0].config.tracking
    plan.cluster = home.cluster
    plan.experiment = tracking.experiment if tracking.enabled else ""
    plan.write(folder)
    OmegaConf.save(sweeper.config, folder / "multirun.yaml")
    with News(plan, folder, tracking, hosts=getattr(sweeper.launcher, "hosts_jobs", False)) as news:
        returns = run(sweeper, plan, missing, folder, len(points), home.control["force"])
        present_best(folder, lambda number: composer.config_of(plan.points[number]))
        news.finish()
        conclude(plan, folder, options["report"], news.wait)
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
        schema.settings()["n_trials"].check(wanted)
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
    from mnist_exp.run import build  # torch

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
            told = error if isinstance(error, ExperimentError) else translate(error, overrides)
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


BUILT = schema.of(Kind.BUILT)


def _shape(parsed: Config) -> str:
    """What decides whether model, optimiser and schedule can be built: not lr or seed, whose rules are checked."""
    kept = {k: v for k, v in config.flatten(config.to_dict(parsed)).items() if schema.within(k, BUILT)}
    kept.pop("optimizer.lr", None)
    return json.dumps(kept, sort_keys=True, default=str)


def union(plan: Plan, combinations: list[list[str]], composer: Composer) -> list[Point]:
    """The points of *combinations*, which join *plan* if they are new, then its other ones.

    Raises:
        ConfigError: see `check`.
    """
    asked = check(composer, combinations)
    number(plan, asked)
    taken = {point.number for point in asked}
    others = check(composer, [overrides for i, overrides in enumerate(plan.points) if i not in taken])
    number(plan, others)
    return [*asked, *others]


def number(plan: Plan, points: list[Point]) -> None:
    """Gives each point its number in *plan*, adding new ones."""
    known = {tuple(overrides): i for i, overrides in enumerate(plan.points)}
    same = {fingerprint: i for i, fingerprint in enumerate(plan.configs)}
    for point in points:
        found = known.get(tuple(point.overrides), same.get(point.print))
        if found is None:
            found = len(plan.points)
            plan.points.append(point.overrides)
            plan.configs.append(point.print)
        point.number = found


def match(points: list[Point], folder: Path, settings: dict[str, Any]) -> list[Point]:
    """Looks at what each point has left in the sweep's *folder*; returns those that still have to run, in order.

    Raises:
        ConfigError: config, code or data of a point have changed since it ran, and `force` is not set.
        DataError: its images are missing or damaged.
    """
    missing, changes = [], []
    for point in points:
        place = folder / str(point.number)
        with contextlib.suppress(ExperimentError):
            point.entry = ledger.read(place)
            pack = lanes.read(place)
            point.pack = pack.pack if pack else ""
        state = point.entry.state if point.entry else "planned"
        if point.entry and not settings["force"] and (difference := changed(place, point.entry, point.config)):
            changes.append(f"#{point.number} {' '.join(point.overrides)}: {difference}")
        if state in ("finished", "pruned") or (state == "failed" and not settings["retry_failed"]):
            continue
        missing.append(point)
    refuse(changes, folder)
    return sorted(missing, key=lambda point: point.number)


def refuse(changes: list[str], folder: Path) -> None:
    """Raises ConfigError if there are *changes* in the runs of *folder*."""
    if changes:
        listed = "\n  ".join(changes[:LISTED])
        raise ConfigError(
            f"{len(changes)} runs of {folder.name} were made with something else:\n  {listed}",
            "force=true keeps the finished ones and goes on with the others all the same.",
        )


@final
class News:
    """MLflow is told of the sweep in *folder* and of all its runs.

    Args:
        hosts: While it lasts, for the jobs of this launcher do not tell of themselves. Those of others do, but nobody
            tells of the sweep: `finish` does, or the end.
    """

    def __init__(self, plan: Plan, folder: Path, tracking: Tracking, hosts: bool) -> None:
        self.plan, self.folder, self.tracking, self.hosts = plan, folder, tracking, hosts
        self.publisher: Publisher | None = None
        self.closed = False

    def __enter__(self) -> "News":
        if self.tracking.enabled and self.hosts:
            self._begin()
        return self

    def follow(self, folder: Path) -> None:
        """A run in *folder* has joined the sweep."""
        if self.publisher:
            self.publisher.follow(folder)

    def finish(self) -> None:
        """All runs have ended: what nobody has told yet is told from now on."""
        if self.tracking.enabled:
            (self.publisher or self._begin()).finish()

    def wait(self, kind: type[BaseException] | None = None) -> None:
        """Returns when all is told, or the wait for it is over; see `Publisher.close`."""
        if self.tracking.enabled and not self.closed:
            self.closed = True
            (self.publisher or self._begin()).close(kind)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.wait(kind)
        if self.publisher and kind in (None, SweepError):
            say(self.publisher.where_to_look(self.folder))

    def _begin(self) -> Publisher:
        self.publisher = Publisher(self.tracking)
        for number in range(len(self.plan.points)):
            self.publisher.follow(self.folder / str(number))
        self.publisher.sweep(self.folder)
        return self.publisher


def run(sweeper: Any, plan: Plan, missing: list[Point], folder: Path, total: int, force: bool) -> Sequence[JobReturn]:
    """Launches *missing* and sums up.

    Raises:
        SweepError, Interrupted: see `sweep`.
    """
    skipped = total - len(missing)
    already = f", {skipped} of them done already" if skipped else ""
    say(f"Sweep {plan.id}: {total} runs{already}; folder {shown(folder)}")
    try:
        returns = launch(sweeper, missing, force, total)
    except (Interrupted, KeyboardInterrupt) as stop:
        entries = [ledger.find(folder / str(number)) for number in range(len(plan.points))]
        done = sum(entry is not None and entry.state == "finished" for entry in entries)
        raise interrupted(stop, f"{done} of {len(plan.points)} runs are finished.", plan) from None
    return returns


def interrupted(stop: Interrupted | KeyboardInterrupt, done: str, plan: Plan) -> Interrupted:
    """What the user is told who has stopped a sweep: how much was *done*, what else goes on, and how to."""
    asked = stop if isinstance(stop, Interrupted) else Interrupted("The sweep was stopped.")
    more = f"{asked.help}\n        " if asked.help else ""
    return Interrupted(f"{asked.message} {done}", f"{more}Go on with: {plan.again}", asked.signal)


def launch(sweeper: Any, missing: list[Point], force: bool, total: int = 0) -> Sequence[JobReturn]:
    """Hands the jobs of a sweep of *total* to the launcher, each with the folder that its number names."""
    if not missing:
        return []
    extra = ["force=true"] if force else []
    if getattr(sweeper.launcher, "takes_jobs", False):
        from mnist_exp.sweep.ahead import loading  # torch
        from mnist_exp.sweep.local import pool as local

        jobs = [local.Job(p.number, [*p.overrides, *extra], p.config, p.pack) for p in missing]
        return local.launch(sweeper.launcher, jobs, total=total, aside=loading)
    first = missing[0].number
    gaps = [p.number for p in missing] != list(range(first, first + len(missing)))  # after a resume
    typed = [[*p.overrides, *extra, *([f"hydra.sweep.subdir={p.number}"] if gaps else [])] for p in missing]
    returns: Sequence[JobReturn] = sweeper.launcher.launch(typed, initial_job_idx=first)
    return returns


def present_best(folder: Path, config_of: Callable[[int], Config]) -> None:
    """Exports the best run's network and has its figures drawn: in a sweep only that one is worth the time.

    With several datasets, that is the best run of each.

    Args:
        config_of: What the run of that number was planned to be. What its folder says may come from elsewhere.
    """
    for ranked in naming.rankings(naming.resolve(folder)):
        if best := ranked.best:
            export(best.at, config_of(int(best.at.name)))


def export(folder: Path, settings: Config) -> None:
    """Exports the network of the run in *folder* and has its figures drawn, as far as *settings* want them."""
    tidy(folder, "model.pt2", "ledger.json")
    entry = ledger.read(folder)
    from mnist_exp.run import session as runs  # torch
    from mnist_exp.sweep.ahead import loading

    if settings.checkpoint.model and not (folder / "model.pt2").exists():
        loading().join()
        runs.export_model(settings, folder)
    if settings.tracking.figures and not entry.figures:
        if settings.augment:
            runs.show_augmented(settings, folder)
        entry.figures = True
        entry.write(folder)


def conclude(plan: Plan, folder: Path, report: bool, heard: Callable[[], object]) -> None:
    """Shows the leaderboard, writes it, and says what did not finish.

    Args:
        heard: See `present`.

    Raises:
        SweepError: not all runs finished.
    """
    table = present(folder, report, heard)
    if lost := leaderboard.failures(table, {*table["state"]} - {"finished", "pruned"}):
        raise SweepError(
            f"{len(lost)} of {len(plan.points)} runs did not finish:\n  {listed(lost, plan)}",
            f"All of them again: {plan.again} retry_failed=true",
        )


def present(folder: Path, report: bool, heard: Callable[[], object]) -> pd.DataFrame:
    """Shows the leaderboard and writes it, with a *report* if wanted; returns the table of runs.

    Args:
        heard: Returns when MLflow has heard of the runs. Until then pictures are drawn, and then links to them written.
    """
    found = leaderboard.compare(naming.resolve(folder))
    leaderboard.show(found, lost=False)  # an error names them
    if report:
        from mnist_exp.report import page as html  # matplotlib: not for --help

        say(f"Report: {shown(html.write(found, wait=heard))}")
    else:
        heard()
        leaderboard.save([leaderboard.tracked(each) for each in found])
    return pd.concat([each.table for each in found]).sort_index()


def listed(lost: list[dict[str, Any]], plan: Plan) -> str:
    """Runs of `leaderboard.failures` as lines, each with what the others have not."""
    shared = set.intersection(*map(set, plan.points)) if len(plan.points) > 1 else set()
    lines = []
    for run in lost:
        what = " ".join(override for override in plan.points[run["number"]] if override not in shared)
        log = [f"  log: {run['log']}"] if run["log"] else []
        lines += [f"#{run['number']} {what}: {run['reason']}", *log, f"  again: {run['rerun']}"]
    return "\n  ".join(lines)
