"""`python -m benchmarks.ten_thousand`: leaderboard and page of an experiment with 10,000 runs in its database."""

import argparse
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks import measure, table
from benchmarks.measure import ROOT, Benchmark, Case, Spread

FULL = 10_000  # runs; fewer are shown, not kept
PAGE = "leaderboard and page"
ONE = ["data=synthetic", "data.train_images=200", "data.val_size=40", "hidden=8", "epochs=10", "tracking.figures=false"]
TABLES = {
    "params": "key, value",
    "tags": "key, value",
    "latest_metrics": "key, value, timestamp, step, is_nan",
    "metrics": "key, value, timestamp, step, is_nan",
}
RUN = (
    "source_type, source_name, entry_point_name, user_id, status, start_time, end_time, source_version, lifecycle_stage"
)


def multiply(database: Path, runs: int) -> None:
    """Copies the only run in *database* until it has *runs* runs: 10 widths x 10 rates x seeds."""
    with closing(sqlite3.connect(database)) as store, store:
        ((first,),) = store.execute("SELECT run_uuid FROM runs").fetchall()
        store.execute("CREATE TEMP TABLE copies (id TEXT, hidden TEXT, lr TEXT, seed TEXT)")
        copies = [
            (f"{n:032x}", str(2 ** (n % 10)), f"{10 ** -(n // 10 % 10 / 4 + 1):.4g}", str(n)) for n in range(1, runs)
        ]
        store.executemany("INSERT INTO copies VALUES (?, ?, ?, ?)", copies)
        store.execute(
            f"INSERT INTO runs (run_uuid, name, artifact_uri, experiment_id, {RUN}) SELECT id, name, artifact_uri, "
            f"experiment_id, {RUN} FROM runs, copies WHERE run_uuid = ?",
            (first,),
        )
        for table, columns in TABLES.items():
            copied = f"SELECT id, {columns} FROM {table}, copies WHERE run_uuid = ?"
            store.execute(f"INSERT INTO {table} (run_uuid, {columns}) {copied}", (first,))
        for key in ("hidden", "lr", "seed"):
            own = f"(SELECT {key} FROM copies WHERE id = run_uuid)"
            store.execute(f"UPDATE params SET value = {own} WHERE key = ? AND run_uuid <> ?", (key, first))
        store.execute("UPDATE latest_metrics SET value = abs(random() % 10000) / 1e4 WHERE key LIKE '%accuracy'")


def fill(folder: Path, runs: int, tree: Path = ROOT) -> None:
    """Trains a run in *folder* by the checkout *tree*, and copies it in the database."""
    timed(folder, tree, "mnist_exp.train", *ONE, "tracking.patience=300")
    multiply(folder / "mlflow.db", runs)


def reports(folder: Path, tree: Path = ROOT) -> dict[str, float]:
    """Wall and processor seconds of the report commands; other load lengthens mostly the first."""
    costs = {}
    for what, options in {"leaderboard": ["--no-html"], PAGE: []}.items():
        costs[what], costs[f"{what}, processor time"] = timed(folder, tree, "mnist_exp.report", "mnist_exp", *options)
    return costs


def timed(folder: Path, tree: Path, *typed: str) -> tuple[float, float]:
    """Wall and processor seconds of `python -m *typed*` by the checkout *tree* in *folder*."""
    environ, began = measure.variables() | {"PYTHONPATH": str(tree)}, time.monotonic()
    used = measure.processor_seconds(["-m", *typed], folder, environ)
    return time.monotonic() - began, used


def main() -> None:
    """Times the report commands on an experiment of copied runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ten_thousand", description=__doc__)
    parser.add_argument("--runs", type=int, default=FULL)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        fill(Path(scratch), runs)
        costs = {what: Spread([cost]) for what, cost in reports(Path(scratch)).items()}
        page = Path(scratch) / "outputs" / "reports" / "mnist_exp" / "report.html"
        sizes = [path.stat().st_size / 2**20 for path in (Path(scratch) / "mlflow.db", page)]
    notes = [
        "the whole command; other programs lengthen the processor time little",
        "the database has {:.0f} MiB, the page {:.1f} MiB".format(*sizes),
    ]
    case = Case(f"{runs:,} runs", costs)
    benchmark = Benchmark("ten_thousand", "Reading an experiment of ten thousand runs", "s", [case], notes)
    table.finish(benchmark, runs == FULL)


if __name__ == "__main__":
    main()
