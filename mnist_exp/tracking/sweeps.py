"""Brings MLflow up to date with a sweep: its view, its parent run if it has one, and its registered model.

Like `runs.py` this reads folders and may be repeated at any time. `mlflow.json` in the sweep's folder records where
MLflow shows it (see `tracked`).
"""

import logging
from pathlib import Path

import filelock

from mnist_exp.disk import ledger, plan, tracked, trust
from mnist_exp.disk.layout import State, SweepFolder
from mnist_exp.disk.ledger import Ledger
from mnist_exp.disk.tracked import Tracked, TrackedRun
from mnist_exp.results import names
from mnist_exp.tracking import model, views
from mnist_exp.tracking.store import Store, source

log = logging.getLogger(__name__)


def publish(folder: Path, store: Store, over: bool = False) -> bool:
    """Brings MLflow up to date with the sweep in *folder*, once at least one of its runs was published.

    Args:
        over: Its driver has ended: the best model is registered, if wanted, and a parent run ends, unless another
            process has resumed the sweep.

    Returns:
        Whether one of its runs was published.

    Raises:
        ConfigError: its plan is missing or damaged.
        Exception: whatever mlflow raises; call again later.
    """
    sweep = plan.read(folder)
    folders = [SweepFolder(folder).run(number) for number in range(len(sweep.points))]
    if over:
        for run in folders:
            ledger.reap(run.path)
    runs = {run: entry for run in folders if (entry := ledger.find(run.path))}
    over = over and all(entry.state != State.RUNNING for entry in runs.values())
    first = next((entry for run, entry in runs.items() if run.tracked.exists()), None)
    if first is None:
        return False
    primary = "val/accuracy" if first.params["val_size"] else "train/accuracy"
    subject = views.Subject(sweep.id, sweep.created_ms, varied(sweep.keys, list(runs.values())), primary)
    record = Tracked(experiment_id=store.experiment_id, page=views.publish_view(store, subject))
    if first.nested:
        record.run_id = parent(folder, store, first)
        store.client.set_tag(record.run_id, "mlflow.note.content", " ".join(sweep.typed))
        if over:
            states = [entry.state for entry in runs.values()]
            killed = State.KILLED in states or len(states) < len(sweep.points) - len(sweep.repeats)
            status = "FAILED" if State.FAILED in states else "KILLED" if killed else "FINISHED"
            store.client.set_terminated(record.run_id, status)
        else:
            store.client.update_run(record.run_id, status="RUNNING")
    if over and first.register:
        record.registered = _register_best(folder, store, first.register)
    tracked.write(folder, record)
    return True


def varied(keys: list[str], runs: list[Ledger]) -> list[str]:
    """The params that differ between runs: first the swept ones, in order, then those that changed with them.

    Args:
        keys: The swept keys, as typed: `data.val_size` is the param `val_size`, `experiment` is none.
    """
    params = list(runs[0].params)
    swept = [key if key in params else key.rpartition(".")[2] for key in keys]
    differ = [name for name in params if len({str(run.params.get(name)) for run in runs}) > 1]
    return list(dict.fromkeys([name for name in swept if name in params] + differ))


def parent(folder: Path, store: Store, run: Ledger) -> str:
    """The id of the parent run of the sweep in *folder*, to which *run* belongs; opens one if there is none.

    It gets no metric: MLflow would add a chart of its own for it everywhere.
    """
    with filelock.FileLock(SweepFolder(folder).publishing):
        if known := store.run_id(run.sweep):
            return known
        name, tags = f"sweep {run.sweep}", source(run.sweep)
        created = store.client.create_run(store.experiment_id, run.started_ms, tags, run_name=name)
        return str(created.info.run_id)


def _register_best(folder: Path, store: Store, name: str) -> str:
    """Makes the model of the best run in *folder*, a sweep's, the newest version of *name*; returns its URI.

    Not that of a foreign sweep, which may be anybody's.
    """
    if not trust.own(folder):
        log.warning(model.FOREIGN, folder, name)
        return ""
    ranked = names.rankings(names.resolve(folder))
    if len(ranked) > 1:
        log.warning(
            "%s has runs that cannot be compared (%s), and none is the best of all: nothing was registered as %s.",
            *(folder, ", ".join(each.data for each in ranked), name),
        )
        return ""
    if (best := ranked[0].best) is None:
        return ""
    return model.register(store, name, tracked.read(best.at) or TrackedRun(), f"{best.at} is the best run, but")
