"""The names of runs and sweeps, shared by all commands.

A name is `last` (the sweep that was begun last, else the run), a sweep's id or the beginning of one, the folder of a
sweep or of a run, an MLflow run id, an MLflow experiment, `best` (the best run of the newest sweep: the median run of
its best setting, see `ranking`), or `best:` and any of these. Commands about one run take the same names; see `one`.
"""

import contextlib
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mnist_exp.config import command, options, override
from mnist_exp.config.guesses import likely
from mnist_exp.config.stores import uri_for
from mnist_exp.console.terminal import shown
from mnist_exp.disk import order, plan, tracked, trust
from mnist_exp.disk.files import file_name
from mnist_exp.disk.layout import RunFolder, SweepFolder, holds_runs, is_sweep
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import ConfigError, ExperimentError
from mnist_exp.results import query as store
from mnist_exp.results import ranking
from mnist_exp.results.query import Query
from mnist_exp.results.ranking import Ranking, Run

log = logging.getLogger(__name__)

NAMES = "last, best, best:<sweep>, a sweep's id, a sweep's or run's folder, an MLflow experiment, or an MLflow run id"


@final
@dataclass(frozen=True)
class Selection:
    """The runs that a name refers to."""

    title: str
    home: Path
    """The folder for a report about them."""
    folders: list[Path]
    """One per run, in order; a planned run's folder may not exist."""
    sweep: Plan | None = None
    query: Query | None = None
    """The query to the MLflow store, for runs without a folder here."""


def resolve(what: str | Path = "last", root: Path = Path("outputs")) -> Selection:
    """The runs called *what*.

    Args:
        root: The folder that holds `runs/` and `sweeps/`.

    Raises:
        ConfigError: nothing, or more than one thing, has that name; or as `best`.
        ExperimentError: a file or the store cannot be read.
    """
    name = str(what)
    if name == "best" or name.startswith("best:"):
        selection = resolve(name.partition(":")[2] or "last", root)
        run = best(selection)
        which = [f"{key.rpartition('.')[2]} {run.settings[key]}" for key in ranking.REPLICATES if key in run.settings]
        replicate = f" ({', '.join(which)})" if which else ""
        return Selection(f"Best run of {selection.title}{replicate}", run.at, [run.at])
    if name == "last":
        newest = last(root, "sweeps") or last(root, "runs")
        if newest is None:
            raise ConfigError(f"There are no runs in {root}.", "Train one first: python -m mnist_exp.train")
        name = str(newest)
    if selected := _selection(Path(name)):
        return selected
    folders = [*_folders(root, "sweeps"), *_folders(root, "runs")]
    matches = [folder for folder in folders if folder.name == name]
    matches = matches or [folder for folder in folders if name and folder.name.startswith(name)]
    if len(matches) > 1:
        raise ConfigError(f"{name!r} is the beginning of several names.", f"Choose: {_some(map(shown, matches))}")
    if matches and (selected := _selection(matches[0])):
        return selected
    uri = uri_for(None)
    if re.fullmatch(r"[0-9a-f]{32}", name):
        return _by_id(name, uri, root)
    experiments = store.experiments(uri)
    if name in experiments:
        home = root / "reports" / file_name(name)
        return Selection(f"Experiment {name}", home, [], query=Query(uri, experiment_id=experiments[name]))
    guess = likely(name, [*(f.name for f in folders), *experiments, "last", "best"])
    raise ConfigError(f"No run, sweep or experiment is called {name!r}.", f"{guess}A name is {NAMES}.")


def offered() -> list[str]:
    """Names for tab completion, newest first, without MLflow's, which take seconds to get."""
    sweeps, runs = ([f.name for f in reversed(_folders(Path("outputs"), kind))] for kind in ("sweeps", "runs"))
    return ["last", "best", *sweeps, *(f"best:{sweep}" for sweep in sweeps), *runs]


def last(root: Path, *kinds: str) -> Path | None:
    """The folder of the run or sweep that was begun last in the folders *kinds* of *root*; None if there is none.

    By what it recorded (see `order`). A damaged one that was written after that is named, and passed over.

    Args:
        kinds: `runs`, `sweeps`, or both.
    """
    newest, number, damaged = None, (-1, False), []
    for folder in _folders(root, *kinds):
        try:
            begun = order.begun(folder)
        except ExperimentError as error:
            damaged.append((folder.stat().st_mtime_ns // 1_000_000, error))
            continue
        if begun and begun >= number:  # of equal ones the later name
            newest, number = folder, begun
    for written, fault in damaged:
        if written >= number[0]:
            other = f": the last one is {shown(newest)}" if newest else ""
            log.warning("%s. It is passed over%s.", fault.message.rstrip("."), other)
    return newest


def _folders(root: Path, *kinds: str) -> list[Path]:
    """The folders of runs and sweeps in the folders *kinds* of *root*, by name."""
    return sorted((folder for kind in kinds for folder in root.glob(f"{kind}/*/*/")), key=lambda f: f.parts[-2:])


def resuming(folder: Path, cluster: str = "local", *further: str) -> str:
    """The command that goes on with the sweep in *folder*, quoted for a shell; *cluster* as in `Plan`."""
    known = cluster in options("cluster") or trust.own(folder)  # else it could be the path of a file
    where = [f"cluster={cluster}"] if cluster != "local" and known else []
    return command([override("resume", name_of(folder)), *where, *further], sweep=True)


def name_of(folder: Path) -> str:
    """What the sweep in *folder* is called in a command."""
    name = shown(folder)
    if re.fullmatch(r"outputs/sweeps/[^/]+/[^/]+", name):
        return folder.name
    return f"./{name}" if name in ("last", "best") or name.startswith("best:") else name


def one(
    what: str | Path = "last",
    root: Path = Path("outputs"),
    needed: Sequence[str] = (RunFolder.config, RunFolder.weights),
    useful: Sequence[str] = (),
) -> Path:
    """The folder of the one run called *what*; if the name refers to several runs, the `best` of them.

    Here `last` is the newest of runs and sweeps.

    Args:
        needed: The files, with the config, to download from MLflow if the run was trained elsewhere.
        useful: More of them, which may be missing.

    Raises:
        ConfigError: as `resolve`, or as `best`.
        ExperimentError: as `resolve`.
    """
    newest = last(root, "sweeps", "runs") if str(what) == "last" else None
    selection = resolve(newest or what, root)
    if selection.query and selection.query.run_id:
        store.download(selection.query, needed, selection.home)
        with contextlib.suppress(ExperimentError):
            store.download(selection.query, useful, selection.home)
        trust.check_entries(selection.home)
        return selection.home
    return selection.folders[0] if len(selection.folders) == 1 else best(selection).at


def rankings(selection: Selection) -> list[Ranking]:
    """Compares the runs of *selection* on this machine: one ranking for each basis."""
    if sweep := selection.sweep:
        runs = [ranking.read(*pair) for pair in zip(selection.folders, sweep.points, strict=True)]
        return ranking.rank(runs, ranking.swept(sweep.keys, sweep.points))
    return ranking.rank([ranking.read(folder) for folder in selection.folders])


def best(selection: Selection) -> Run:
    """The best run, at its folder: the median run of the best setting; see `ranking`.

    Raises:
        ConfigError: none of them has finished on this machine, or they cannot be compared.
    """
    ranked = rankings(selection)
    runs = {each.data: run for each in ranked if (run := each.best)}
    if len(ranked) > 1:
        named = ", ".join(each.data for each in ranked)
        folders = " or ".join(f"{shown(run.at)} (the best on {data})" for data, run in runs.items())
        raise ConfigError(
            f"{selection.title} has runs that cannot be compared ({named}), and none is the best of all.",
            f"Name one by its folder: {folders}" if folders else f"A name is {NAMES}.",
        )
    if not runs:
        raise ConfigError(f"{selection.title} has no finished run on this machine.", f"A name is {NAMES}.")
    return runs[ranked[0].data]


def _selection(folder: Path) -> Selection | None:
    """The sweep or the run in *folder*; None if it has none.

    Raises:
        ConfigError: the folder is foreign and has links, or a sweep's plan is damaged.
    """
    if not holds_runs(folder):
        return None
    trust.check_entries(folder)
    if is_sweep(folder):
        sweep = plan.read(folder)
        folders = [SweepFolder(folder).run(i).path for i in range(len(sweep.points))]
        return Selection(f"Sweep {sweep.id}", folder, folders, sweep)
    if RunFolder(folder).ledger.is_file():
        return Selection(f"Run {folder.name}", folder, [folder])
    inside = [path.parent for path in folder.glob(f"*/{RunFolder.ledger}")]  # a sweep by another launcher
    inside.sort(key=lambda run: (int(run.name) if run.name.isdecimal() else -1, run.name))
    return Selection(f"Runs in {folder.name}", folder, inside)


def _by_id(run_id: str, uri: str, root: Path) -> Selection:
    """The run or sweep with that MLflow id: its folder if it was trained here, else its entry in the store."""
    for path in (each for kind in ("runs", "sweeps") for each in root.glob(f"{kind}/*/**/{RunFolder.tracked}")):
        if (record := tracked.read(path.parent)) and record.run_id == run_id:
            selected = _selection(path.parent)  # the parent run of a sweep stands for all of its runs
            trust.check_entries(path.parent)
            return selected or Selection(f"Run {run_id}", path.parent, [path.parent])
    query = Query(uri, run_id=run_id)
    if not store.runs(query):
        raise ConfigError(f"Neither {root} nor the MLflow store has a run {run_id!r}.", f"A name is {NAMES}.")
    return Selection(f"Run {run_id}", root / "reports" / run_id, [], query=query)


def _some(names: Iterable[str]) -> str:
    """The first few, as a list in a sentence."""
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
