"""`python tests/assets/make.py format-2`: what a sweep of one tiny run leaves, for tests/disk/test_compatibility.py.

To be run when a format changes, never for one that was released: those are kept as they are.
"""

import gzip
import os
import platform
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import trainings
from hydra import compose, initialize_config_dir

from mnist_exp import config
from mnist_exp.disk import journal, lanes, plan, provenance
from mnist_exp.search import study as studies
from mnist_exp.tracking.runs import publish
from mnist_exp.tracking.store import open_store

TINY = ["data=synthetic", "data.train_images=60", "data.test_images=20", "data.val_size=10", "batch_size=10"]
TINY += ["hidden=2", "epochs=2", "device=cpu", "threads=1", "checkpoint.model=false", "tracking.figures=false"]


def main() -> None:
    """Writes the folder that is named, beside this file."""
    target = Path(__file__).resolve().parent / sys.argv[1]
    target.mkdir()
    socket.gethostname = lambda: "host"
    platform.platform = lambda *_: "Linux"
    os.environ["USER"] = "somebody"
    provenance.git = dict  # type: ignore[assignment]
    config.register()
    with initialize_config_dir(config.conf_dir(), version_base="1.3"):
        settings = config.parse(compose("train", TINY))
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        folder = Path("sweep")
        trainings.run(settings, folder / "0", TINY, sweep="sweep", extras=False)
        typed = [*TINY]
        plan.Plan(
            id="sweep", typed=typed, keys=[], experiment="old", points=[typed], configs=[config.fingerprint(settings)]
        ).write(folder)
        (folder / "1").mkdir()
        lanes.begin([settings, settings], [folder / "0", folder / "1"])
        shutil.rmtree(folder / "1")
        search(folder, journal.read(folder / "0"))
        database = Path("mlflow.db").absolute()
        publish(folder / "0", open_store(f"sqlite:///{database}", "old"))
        for path in (*folder.rglob(".lock"), *folder.rglob(".mlflow.lock"), *folder.rglob("environment.txt")):
            path.unlink()
        for path in (folder / "0" / "checkpoints").glob("*-0001-*"):
            path.unlink()
        shutil.copytree(folder, target / "sweep")
        (target / "mlflow.db.gz").write_bytes(gzip.compress(database.read_bytes(), 9, mtime=0))


def search(folder: Path, rows: list[journal.Row]) -> None:
    """Writes the study of a search whose only trial has ended."""
    how = studies.Search(study="sweep", n_trials=1, sampler={"_target_": "optuna.samplers.RandomSampler"})
    how.write(folder)
    study = studies.lead(folder, how, {})
    trial = study.ask()
    trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    for row in rows:
        trial.report(row["metrics"]["val/accuracy"], row["epoch"])
    study.tell(trial, rows[-1]["metrics"]["val/accuracy"])


if __name__ == "__main__":
    main()
