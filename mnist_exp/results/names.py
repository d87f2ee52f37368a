"""One way to name runs and sweeps, shared by all commands.

A name is `last` (the newest sweep, else the newest run), a sweep's id or the beginning of one, the folder of a
sweep or of a run, an MLflow run id, an MLflow experiment, `best` (the best run of the newest sweep, which is the median
run of its best setting; see `ranking`), or `best:` and any of these. Commands about one run take the same names; see
`one`.
"""

import contextlib
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mnist_exp.config.stores import uri_for
from mnist_exp.console.terminal import shown
from mnist_exp.disk import plan, trust
from mnist_exp.disk.files import file_name, read_json
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import ConfigError, ExperimentError
from mnist_exp.results import query as search
from mnist_exp.results import ranking
from mnist_exp.results.query import Query
from mnist_exp.results.ranking import Ranking, Run

NAMES = "last, best, best:<sweep>, a sweep's id, a sweep's or run's folder, an MLflow experiment, or an MLflow run id"


@final
@dataclass(frozen=True)
class Selection:
    """The runs that a name stands for."""

    title: str
    home: Path
    """Where a report about them belongs."""
    folders: list[Path]
    """One for each run, in order; a planned run's folder may not exist."""
    sweep: Plan | None = None
    query: Query | None = None
    """What to ask the MLflow store, for runs without a folder here."""


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
        several = resolve(name.partition(":")[2] or "last", root)
        run = _best(several)
        seed = f" (seed {run.settings['seed']})" if "seed" in run.settings else ""
        return Selection(f"Best run of {several.title}{seed}", run.at, [run.at])
    sweeps, runs = sorted(root.glob("sweeps/*/*/")), sorted(root.glob("runs/*/*/"))
    if name == "last":
        newest = next((f for f in (*reversed(sweeps), *reversed(runs)) if _selection(f)), None)
        if newest is None:
            raise ConfigError(f"There are no runs in {root}.", "Train one first: python -m mnist_exp.train")
        name = str(newest)
    if found := _selection(Path(name)):
        return found
    matches = [folder for folder in (*sweeps, *runs) if name and folder.name.startswith(name)]
    matches = [folder for folder in matches if folder.name == name] or matches
    if len(matches) > 1:
        raise ConfigError(f"{name!r} is the beginning of several names.", f"Choose: {_some(map(shown, matches))}")
    if matches and (found := _selection(matches[0])):
        return found
    uri = uri_for(None)
    if re.fullmatch(r"[0-9a-f]{32}", name):
        return _by_id(name, uri, root)
    experiments = search.experiments(uri)
    if name in experiments:
        home = root / "reports" / file_name(name)
        return Selection(f"Experiment {name}", home, [], query=Query(uri, experiment_id=experiments[name]))
    near = difflib.get_close_matches(name, [*(f.name for f in (*sweeps, *runs)), *experiments, "last", "best"], n=3)
    guess = f"Did you mean {_some(near)}? " if near else ""
    raise ConfigError(f"No run, sweep or experiment is called {name!r}.", f"{guess}A name is {NAMES}.")


def offered(root: Path = Path("outputs")) -> list[str]:
    """Names for tab completion, newest first; MLflow's are left out, because asking for them takes seconds."""
    sweeps, runs = ([f.name for f in sorted(root.glob(f"{kind}/*/*/"), reverse=True)] for kind in ("sweeps", "runs"))
    return ["last", "best", *sweeps, *(f"best:{sweep}" for sweep in sweeps), *runs]


def one(
    what: str | Path = "last",
    root: Path = Path("outputs"),
    needed: Sequence[str] = ("config.yaml", "weights.safetensors"),
    useful: Sequence[str] = (),
) -> Path:
    """The folder of the one run called *what*; where the name stands for several runs, the `best` of them.

    `last` is here what was started last, be it a run or a sweep.

    Args:
        needed: The files, the config among them, that are downloaded from MLflow of a run that was trained elsewhere.
        useful: More of them, which it need not have.

    Raises:
        ConfigError: as `resolve`, or as `best`.
        ExperimentError: as `resolve`.
    """
    if str(what) == "last":
        started = sorted((*root.glob("sweeps/*/*/"), *root.glob("runs/*/*/")), key=lambda f: f.parts[-2:])
        what = next((f for f in reversed(started) if _selection(f)), what)
    selection = resolve(what, root)
    if selection.query and selection.query.run_id:
        search.download(selection.query, needed, selection.home)
        with contextlib.suppress(ExperimentError):
            search.download(selection.query, useful, selection.home)
        return selection.home
    return selection.folders[0] if len(selection.folders) == 1 else best(selection)


def best(selection: Selection) -> Path:
    """The folder of the best run, which is the median run of the best setting; see `ranking`.

    Raises:
        ConfigError: none of them has finished here, or they are of several datasets.
    """
    folder: Path = _best(selection).at
    return folder


def rankings(selection: Selection) -> list[Ranking]:
    """The runs of *selection* on this machine, compared: one ranking for each dataset."""
    if sweep := selection.sweep:
        return ranking.of_sweep(selection.home, sweep.keys, sweep.points)
    return ranking.of_folders(selection.folders)


def _best(selection: Selection) -> Run:
    """See `best`."""
    found = rankings(selection)
    runs = {ranked.data: run for ranked in found if (run := ranked.best)}
    if len(found) > 1:
        named = ", ".join(ranked.data for ranked in found)
        best = " or ".join(f"{shown(run.at)} (the best on {data})" for data, run in runs.items())
        raise ConfigError(
            f"{selection.title} has runs of several datasets ({named}), and none is the best of all.",
            f"Name one by its folder: {best}" if best else f"A name is {NAMES}.",
        )
    if not runs:
        raise ConfigError(f"{selection.title} has no finished run on this machine.", f"A name is {NAMES}.")
    return runs[found[0].data]


def holds_runs(folder: Path) -> bool:
    """Whether a sweep or a run lives in *folder*."""
    return any(next(folder.glob(pattern), None) for pattern in ("sweep.json", "ledger.json", "*/ledger.json"))


def is_sweep(folder: Path) -> bool:
    """Whether a sweep lives in *folder*."""
    return (folder / "sweep.json").is_file()


def _selection(folder: Path) -> Selection | None:
    """The sweep or the run that lives in *folder*, if one does.

    Raises:
        ConfigError: it is from elsewhere and has links; or a sweep's plan is damaged.
    """
    if not holds_runs(folder):
        return None
    trust.check_links(folder)
    if is_sweep(folder):
        sweep = plan.read(folder)
        return Selection(f"Sweep {sweep.id}", folder, [folder / str(i) for i in range(len(sweep.points))], sweep)
    if (folder / "ledger.json").is_file():
        return Selection(f"Run {folder.name}", folder, [folder])
    inside = sorted((path.parent for path in folder.glob("*/ledger.json")), key=_number)
    return Selection(f"Runs in {folder.name}", folder, inside)  # a sweep by another launcher


def _number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdecimal() else -1, folder.name)


def _by_id(run_id: str, uri: str, root: Path) -> Selection:
    """The run with that MLflow id: its folder if it was trained here, else what the store knows."""
    for note in root.glob("*s/*/**/mlflow.json"):
        try:
            if read_json(note)["run_id"] == run_id:
                return Selection(f"Run {run_id}", note.parent, [note.parent])
        except (OSError, ValueError, KeyError):
            continue
    query = Query(uri, run_id=run_id)
    if not search.runs(query):
        raise ConfigError(f"Neither {root} nor the MLflow store has a run {run_id!r}.", f"A name is {NAMES}.")
    return Selection(f"Run {run_id}", root / "reports" / run_id, [], query=query)


def _some(names: Iterable[str]) -> str:
    """The first few, as a list in a sentence."""
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
