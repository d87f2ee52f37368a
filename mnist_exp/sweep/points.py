"""Which points a grid has: all combinations, pairs, a draw, or the rows of a file; each checked and numbered."""

import contextlib
import csv
import io
import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import config
from mnist_exp.config import Config, as_typed, schema, sweeps
from mnist_exp.config.chosen import located
from mnist_exp.config.identity import has_effect
from mnist_exp.config.overrides import key_of
from mnist_exp.config.schema import Kind
from mnist_exp.config.sweeps import reads
from mnist_exp.console import formats
from mnist_exp.console.terminal import changing, say
from mnist_exp.disk import lanes, ledger, trust
from mnist_exp.disk.layout import State
from mnist_exp.errors import ConfigError, ExperimentError, first_line
from mnist_exp.results import names
from mnist_exp.results.certainty import certainty
from mnist_exp.results.ranking import REPLICATES
from mnist_exp.run.resume import changed
from mnist_exp.sweep.composing import Composer
from mnist_exp.sweep.home import Home
from mnist_exp.sweep.job import Job

BUILT = schema.of(Kind.BUILT)
LISTED = 10  # faults that are reported one by one
MANY = 1000  # points from which on checking takes a while, and says how far it is
FOLD = "data.fold"
TABLES = (".csv", ".yaml", ".yml")
SHAPES = "A CSV file has keys in its first line; a YAML file has a list of mappings, or lists of equal length by key."


def expand(home: Home, without: Sequence[str] = ()) -> tuple[list[list[str]], list[str]]:
    """The combinations of what was typed, but for the keys *without*, and the keys that vary.

    Raises:
        ConfigError: values cannot be expanded (an interval), lists do not pair up, or search=points has no table.
    """
    typed = _discrete([o for o in sweeps.parsed(home.varying, home.loader) if o.key_or_group not in without])
    keys = [str(o.key_or_group) for o in typed if o.is_sweep_override()]
    combinations = pairs(typed) if home.options["zip"] else product(typed)
    if path := home.steering.get("points"):
        rows = read(Path(path)) if Path(path).is_file() or Path(path).suffix in TABLES else of_sweep(path)
        rows = [row for grid in rows for row in product(_discrete(sweeps.parsed(grid, home.loader)))]
        rows = [_besides(row, home.varying, path) for row in rows]
        combinations = [[*row, *combination] for row in rows for combination in combinations]
        shared = set(rows[0]).intersection(*rows) if rows else set()
        keys = [*(key_of(override) for row in rows for override in row if override not in shared), *keys]
    elif OmegaConf.select(home.steering, "hydra.runtime.choices.search") == "points":
        raise ConfigError("search=points needs a table.", "Name it: points=FILE.csv or points=FILE.yaml")
    return combinations, list(dict.fromkeys(keys))


def _besides(row: list[str], typed: Sequence[str], path: str) -> list[str]:
    """The *row* of *path* without what was *typed*, too. Raises ConfigError if that has another value."""
    again = {key_of(override): override for override in typed}
    for override in row:
        other = again.get(key_of(override), override)
        one, two = reads(override), reads(other)
        if other != override and not (one and two and one.value() == two.value()):
            raise ConfigError(
                f"points={path} sets {override}, and {other} was typed.",
                "Set it once: drop it, or write another table.",
            )
    return [override for override in row if key_of(override) not in again]


def _discrete(typed: list[Override]) -> list[Override]:
    """*typed*, if a grid can try all of it. Raises ConfigError if not."""
    for override in typed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(
                f"A grid cannot try all of {override.input_line}.",
                f"List the values: {override.key_or_group}=a,b,c, use range(start,stop,step), or choose search=tpe.",
            )
    return typed


def drawn(home: Home, combinations: list[list[str]]) -> list[list[str]]:
    """`n_trials` of *combinations*, if it was typed."""
    if (wanted := home.steering.get("n_trials")) is None:
        return combinations
    config.settings()["n_trials"].check(wanted)
    order = list(range(len(combinations)))
    random.Random(home.options["seed"]).shuffle(order)  # a larger n_trials later adds to those of a smaller one
    return [combinations[i] for i in sorted(order[:wanted])]


def folded(home: Home, combinations: list[list[str]]) -> list[list[str]]:
    """*combinations*, with one for each fold of those with `data.folds`, unless the folds were typed."""
    if any(key_of(override) == FOLD for override in itertools.chain(home.varying, *combinations[:1])):
        return combinations
    common, typed = None, sweeps.parsed(home.varying, home.loader)
    with contextlib.suppress(HydraException, OmegaConfBaseException):  # reported with all points
        data = home.composer.own([str(o.input_line) for o in typed if not o.is_sweep_override()]).data
        common = data.folds if data.fold is None else None
    return by_fold(combinations, common)


def by_fold(combinations: list[list[str]], common: int | None) -> list[list[str]]:
    """*combinations*, with one for each fold of those with `data.folds`, which is *common* where they do not say."""
    result = []
    for overrides in combinations:
        typed = next((read.value() for o in overrides if key_of(o) == "data.folds" and (read := reads(o))), common)
        folds = typed if isinstance(typed, int) and 1 < typed <= MANY else 0  # others are refused with all points
        result += [[*overrides, f"{FOLD}={fold}"] for fold in range(folds)] or [overrides]
    return result


def refuse_searching(home: Home) -> None:
    """Raises ConfigError if what was typed is for a search only."""
    for key in ("time_budget", "enqueue"):
        if home.steering.get(key) is not None:
            raise ConfigError(f"{key} is for a search, and this is a grid.", "Add search=tpe, or drop it.")


def product(typed: Sequence[Override]) -> list[list[str]]:
    """All combinations of the values of all keys. Raises ConfigError if they are too many to be listed."""
    count = math.prod(len(list(o.sweep_iterator())) for o in typed if o.is_sweep_override())
    if count > sweeps.LARGEST:
        reason = f"That grid has {count:,} points; {sweeps.LARGEST:,} are the most."
        raise ConfigError(reason, "Try fewer values, or search some: search=random")
    combinations: list[list[str]] = BasicSweeper.split_arguments(typed, None)[0]
    return combinations


def pairs(typed: Sequence[Override]) -> list[list[str]]:
    """The first values of all keys, the second ones, and so on; a key with one value has it in each.

    Raises:
        ConfigError: keys have different numbers of values.
    """
    lists = [BasicSweeper.split_arguments([override], None)[0] for override in typed]
    sizes = {str(o.key_or_group): len(values) for o, values in zip(typed, lists, strict=True) if o.is_sweep_override()}
    if len(set(sizes.values())) > 1:
        lengths = ", ".join(f"{key} has {n}" for key, n in sizes.items())
        raise ConfigError(f"search=zip pairs values, but the lists differ in length: {lengths}.")
    length = max(sizes.values(), default=1)
    return [[override for values in lists for override in values[i % len(values)]] for i in range(length)]


def read(path: Path, key: str = "points") -> list[list[str]]:
    """The overrides of each row of the CSV or YAML file *path*, which *key* names; an empty cell sets nothing.

    Raises:
        ConfigError: there is no such file, or it holds no table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _csv(text) if path.suffix == ".csv" else _yaml(text)
    except (OSError, ValueError, csv.Error, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = getattr(error, "problem", "") or first_line(error)  # of YAML, whose first line says where
        raise ConfigError(f"{key}={path} cannot be read: {reason}", SHAPES) from error
    if not any(rows):
        raise ConfigError(f"{key}={path} has no points.", SHAPES)
    return [[cell(key, value) for key, value in row.items()] for row in rows if row]


def of_sweep(name: str) -> list[list[str]]:
    """The overrides, without the seed, of each setting of the sweep called *name* that may be its best.

    Where that was cross-validated, all have the fold of the best one's median run.

    Raises:
        ConfigError: there is no such sweep, it is not the user's own, or nothing of it can be compared.
    """
    selection = names.resolve(name)
    if not selection.sweep or not trust.own(selection.home):
        raise ConfigError(f"points={name} is neither a table nor a sweep of yours.", SHAPES)
    ranked = names.rankings(selection)
    sure = certainty(ranked[0]) if len(ranked) == 1 else None
    if sure is None:
        raise ConfigError(
            f"{selection.title} has no settings that can be compared.", "Name a sweep on one dataset that has finished."
        )
    medians = [ranked[0].groups[i].median for i in (0, *sure.rivals)]
    rows = [selection.sweep.points[int(run.at.name)] for run in medians if run]
    fold = [override for override in rows[0] if key_of(override) == FOLD]
    return [[*(override for override in row if key_of(override) not in REPLICATES), *fold] for row in rows]


def cell(key: str, value: str) -> str:
    """The override that sets *key* to *value*, or to several, which is a text if it cannot be read as anything else."""
    plain = schema.is_text(key)
    key = f"+{key}" if key.startswith("tags.") else key
    read = reads(f"{key}={value}")
    several = read is not None and read.is_sweep_override()
    return f"{key}={value}" if read and not (several and plain) else config.override(key, value)


def _csv(text: str) -> list[dict[str, str]]:
    rows = []
    table = csv.DictReader(text.splitlines(), strict=True, skipinitialspace=True)
    keys = [key.strip() for key in table.fieldnames or ()]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ValueError(f"line 1 has {twice} twice")
    for number, row in enumerate(table, start=2):
        if None in row or None in row.values():
            raise ValueError(f"line {number} has more or fewer cells than the first one")
        rows.append({key.strip(): value.strip() for key, value in row.items() if value.strip()})
    return rows


def _yaml(text: str) -> list[dict[str, str]]:
    table: Any = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)  # refuses a key given twice
    if isinstance(table, dict) and all(isinstance(values, list) for values in table.values()):
        if len({len(values) for values in table.values()}) > 1:
            sizes = ", ".join(f"{key} has {len(values)}" for key, values in table.items())
            raise ValueError(f"its lists differ in length: {sizes}")
        table = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        raise ValueError("it is no table")
    return [{key: as_typed(value) for key, value in config.flatten(row).items()} for row in table]


def check(composer: Composer, combinations: list[list[str]]) -> list[Job]:
    """The points as jobs without a number yet, without repeats. Raises ConfigError, with a list, if some cannot run."""
    from mnist_exp.run import build  # torch

    jobs: dict[str, Job] = {}
    faults: list[tuple[str, str]] = []
    rehearsed: set[str] = set()
    many, count = len(combinations) > MANY, str(len(combinations))
    if many:
        say(f"{len(combinations):,} points: each is checked before the first one starts.")
    for number, overrides in enumerate(_shown(combinations) if many else combinations, start=1):
        try:
            parsed = composer.config_of(overrides)
            if (shape := _shape(parsed)) not in rehearsed:
                build.rehearse(parsed)
                rehearsed.add(shape)
            same = jobs.setdefault(config.fingerprint(parsed), Job(-1, overrides, parsed=parsed))
            _check_differences(same.overrides, overrides)
        except ExperimentError as error:
            if isinstance(error, ConfigError) and len(faults) < LISTED:  # it reads files, and others are not shown
                error = located(error, overrides)
            faults.append((f"{formats.settings(overrides)}: {error.message}", error.help))
            if many and len(faults) == LISTED and number < len(combinations):
                count = f"the first {number}"
                break
    if faults:
        sentences, ways_out = zip(*faults[:LISTED], strict=True)
        more = [f"… and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        first = f"{len(faults)} of {count} points cannot run; nothing was started."
        raise ConfigError("\n  ".join([first, *sentences, *more]), " ".join(dict.fromkeys(ways_out)))
    if repeats := len(combinations) - len(jobs):
        say(f"{repeats} of {len(combinations)} points are the same as others; each runs once.")
    return list(jobs.values())


def _check_differences(one: list[str], other: list[str]) -> None:
    """Raises ConfigError if two points are one run, and all in which they differ changes no result."""
    differ = dict.fromkeys(key_of(each) for each in other if each not in one)
    if differ and not any(map(has_effect, differ)):
        way_out = f"No result depends on {' and '.join(differ)}: give one value."
        raise ConfigError(f"It is the same run as {formats.settings(one)}.", way_out)


def _shown(combinations: list[list[str]]) -> Iterator[list[str]]:
    """*combinations*, one by one, while the screen says how far they are."""
    with changing(every=10) as show:
        for number, overrides in enumerate(combinations):
            if number % 100 == 99:
                show(f"{number:,} of {len(combinations):,} points are checked …")
            yield overrides


def check_images(jobs: Sequence[Job]) -> None:
    """Makes sure of the images of *jobs*. Raises DataError if some are missing, damaged or not as configured."""
    from mnist_exp import data  # torch

    known = {repr(job.config.data): job.config.data for job in jobs}.values()
    for note in dict.fromkeys(note for each in known for note in data.check(each)):
        say(note)


def _shape(parsed: Config) -> str:
    """What decides whether model, optimiser and schedule can be built: not lr or seed, which have rules."""
    kept = {k: v for k, v in config.flatten(config.to_dict(parsed)).items() if schema.within(k, BUILT)}
    kept.pop("optimizer.lr", None)
    return json.dumps(kept, sort_keys=True, default=str)


def planned(home: Home, combinations: list[list[str]]) -> list[Job]:
    """The jobs of *combinations*, which join the plan if they are new, then those of its other points."""
    asked = numbered(home, check(home.composer, combinations))
    taken = {job.number for job in asked}
    others = [overrides for i, overrides in enumerate(home.plan.points) if i not in taken]
    return [*asked, *numbered(home, check(home.composer, others))]


def numbered(home: Home, jobs: list[Job]) -> list[Job]:
    """*jobs*, each with its number in the sweep's plan, which gets the new ones."""
    plan = home.plan
    known = {tuple(overrides): i for i, overrides in enumerate(plan.points)}
    same = {fingerprint: i for i, fingerprint in enumerate(plan.configs)}
    for job in jobs:
        fingerprint = config.fingerprint(job.config)
        position = known.get(tuple(job.overrides), same.get(fingerprint))
        if position is None:
            position = len(plan.points)
            plan.points.append(job.overrides)
            plan.configs.append(fingerprint)
        job.number, job.sweep = position, home.folder
    return jobs


def missing(jobs: list[Job], control: dict[str, Any]) -> list[Job]:
    """Those of *jobs* that still have to run, in order, by what each has left in its folder.

    Raises:
        ConfigError: config, code or data of a point have changed since it ran, and `force` is not set.
        DataError: its images are missing or damaged.
    """
    waiting, changes = [], []
    for job in jobs:
        entry = None
        with contextlib.suppress(ExperimentError):
            entry = ledger.read(job.folder)
            record = lanes.read(job.folder)
            job.pack = record.pack if record else ""
        if entry and not control["force"] and (difference := changed(job.folder, entry, job.config)):
            changes.append(f"#{job.number} {' '.join(job.overrides)}: {difference}")
        if entry and (entry.state.done or (entry.state == State.FAILED and not control["retry_failed"])):
            continue
        if control["force"]:
            job.overrides = [*job.overrides, "force=true"]
        waiting.append(job)
    refuse(changes, jobs[0].sweep)
    return sorted(waiting, key=lambda job: job.number)


def refuse(changes: list[str], folder: Path) -> None:
    """Raises ConfigError if there are *changes* in the runs of the sweep in *folder*."""
    if changes:
        raise ConfigError(
            "\n  ".join([f"{len(changes)} runs of {folder.name} were made with something else:", *changes[:LISTED]]),
            "force=true keeps the finished ones and goes on with the others all the same.",
        )
