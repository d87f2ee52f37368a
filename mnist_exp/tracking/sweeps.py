"""What MLflow is told about a sweep as a whole: its view, its parent run if wanted, and its best model.

Like `publish.py` this reads folders and may be repeated at any time. `mlflow.json` in the sweep's folder notes
where it can be seen.
"""

import logging
from pathlib import Path
from typing import Any

import filelock

from mnist_exp.disk import ledger
from mnist_exp.disk.files import read_json, write_json
from mnist_exp.disk.ledger import Ledger
from mnist_exp.results import ranking
from mnist_exp.tracking import model, views
from mnist_exp.tracking.store import Store

log = logging.getLogger(__name__)


def publish(folder: Path, store: Store, over: bool = False, register: bool = True) -> bool:
    """Brings MLflow up to date with the sweep in *folder*, once at least one run of it was published.

    Args:
        over: Whoever ran it is gone: the best model is registered, if wanted, and a parent run ends, unless
            another process has taken the sweep over.
        register: Whether the best model is registered if the runs' ledgers want that.

    Returns:
        Whether there was something to show.

    Raises:
        Exception: whatever mlflow raises; call again later.
    """
    plan = read_json(folder / "sweep.json")
    places = [folder / str(number) for number in range(len(plan["points"]))]
    if over:
        for place in places:
            ledger.reap(place)
    runs = {place: entry for place in places if (entry := ledger.found(place))}
    over = over and all(entry.state != "running" for entry in runs.values())
    seen = [run for run in runs if (run / "mlflow.json").exists()]
    if not seen:
        return False
    first = runs[seen[0]]
    primary = "val/accuracy" if first.params["val_size"] else "train/accuracy"
    subject = views.Subject(plan["id"], plan["created_ms"], varied(plan["keys"], list(runs.values())), primary)
    note = {"experiment_id": store.experiment_id, "page": views.publish_view(store, subject)}
    if first.nested:
        note["run_id"] = run_id = parent(folder, store, first)
        store.client.set_tag(run_id, "mlflow.note.content", " ".join(plan["typed"]))
        if over:
            store.client.set_terminated(run_id, _status([run.state for run in runs.values()], len(plan["points"])))
        else:
            store.client.update_run(run_id, status="RUNNING")
    if register and over and first.register and (version := _register_best(folder, plan, store, first.register)):
        note["registered"] = version
    write_json(folder / "mlflow.json", note)
    return True


def varied(keys: list[str], runs: list[Ledger]) -> list[str]:
    """The params that differ between runs: those that were swept over, in order, then what changed with them.

    Args:
        keys: What was swept over, as typed: `data.val_size` is the param `val_size`, `experiment` is none.
    """
    params = list(runs[0].params)
    swept = [key if key in params else key.rpartition(".")[2] for key in keys]
    differ = [name for name in params if len({str(run.params.get(name)) for run in runs}) > 1]
    return list(dict.fromkeys([name for name in swept if name in params] + differ))


def parent(folder: Path, store: Store, run: Ledger) -> str:
    """Id of the run that stands for the sweep in *folder*, which *run* belongs to; opened if there is none.

    It gets no metric: one would add a chart of its own everywhere.
    """
    with filelock.FileLock(folder / ".mlflow.lock"):
        found = store.client.search_runs([store.experiment_id], f"tags.`run.id` = '{run.sweep}'", max_results=1)
        if not found:
            tags = {"run.id": run.sweep, "mlflow.source.name": "mnist_exp.train", "mlflow.source.type": "LOCAL"}
            name = f"sweep {run.sweep}"
            found = [store.client.create_run(store.experiment_id, run.started_ms, tags, run_name=name)]
    run_id: str = found[0].info.run_id
    return run_id


def _status(states: list[str], points: int) -> str:
    """How a sweep of so many *points* ended, in MLflow's words."""
    if "failed" in states:
        return "FAILED"
    return "KILLED" if "killed" in states or len(states) < points else "FINISHED"


def _register_best(folder: Path, plan: dict[str, Any], store: Store, name: str) -> str | None:
    """Makes the model of the best run in *folder*, a sweep's, the newest version of *name*; returns its URI."""
    found = ranking.of_sweep(folder, plan["keys"], plan["points"])
    if len(found) > 1:
        named = ", ".join(ranked.data for ranked in found)
        log.warning(
            "%s has runs of several datasets (%s), and none is the best of all: nothing was registered as %s.",
            *(folder, named, name),
        )
        return None
    best = found[0].best
    if best is None:
        return None
    note: dict[str, Any] = read_json(best.at / "mlflow.json")
    if "model" not in note:
        log.warning("%s is the best run, but has no model.pt2: nothing was registered as %s.", best.at, name)
        return None
    return model.register(store, name, note["model"], note["run_id"])
