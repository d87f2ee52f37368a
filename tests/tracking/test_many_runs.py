"""Many at once, and much: all of it arrives. How fast is the benchmarks' business."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("psutil")

import trainings

from benchmarks import ten_thousand
from mnist_exp.config import Config
from mnist_exp.config.stores import uri_for
from mnist_exp.tracking.publisher import Publisher
from mnist_exp.tracking.store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PUBLISHERS, EPOCHS = 16, 2


def test_sixteen_publishers_share_a_database(tiny: Callable[..., Config], store_template: Path) -> None:
    shutil.copyfile(store_template, "mlflow.db")
    publishers = []
    for seed in range(PUBLISHERS):
        config = tiny(seed=seed, epochs=EPOCHS, tracking={"enabled": True, "figures": False})
        publisher = Publisher(config.tracking)
        publisher.follow(Path(f"run{seed}"))
        trainings.run(config, Path(f"run{seed}"))
        publishers.append(publisher)
    for publisher in publishers:
        publisher.close()
    assert all(publisher.delivered for publisher in publishers)
    store = open_store(uri_for(None), "mnist_exp")
    runs = store.client.search_runs([store.experiment_id])
    assert [stored.info.status for stored in runs] == ["FINISHED"] * PUBLISHERS
    assert {stored.data.params["seed"] for stored in runs} == {str(seed) for seed in range(PUBLISHERS)}
    with closing(sqlite3.connect("mlflow.db")) as database:
        steps = Counter(database.execute("SELECT run_uuid, step FROM metrics WHERE key = 'train/loss'"))
    assert steps == {(stored.info.run_id, epoch): 1 for stored in runs for epoch in range(1, EPOCHS + 1)}


@pytest.mark.long
def test_ten_thousand_runs_are_reported(scratch: Path) -> None:
    subprocess.run([sys.executable, "-m", "mnist_exp.train", *ten_thousand.ONE, "tracking.patience=300"], check=True)
    ten_thousand.multiply(scratch / "mlflow.db", 10_000)
    report = [sys.executable, "-m", "mnist_exp.report", "mnist_exp"]
    done = subprocess.run([*report, "--json", "--no-html"], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["summary"]["runs"] == 10_000
    subprocess.run(report, check=True)
    assert (scratch / "outputs" / "reports" / "mnist_exp" / "report.html").stat().st_size > 10_000
