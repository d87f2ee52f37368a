"""`python -m benchmarks.thousand`: a sweep of 1,000 tiny runs: start-up, overhead of each job, memory of the driver."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import measure, table
from benchmarks.measure import Benchmark, Case, Spread

FULL = 1000  # points; fewer are shown, not kept


def main() -> None:
    """Runs the sweep once and writes its costs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thousand", description=__doc__)
    parser.add_argument("--points", type=int, default=FULL)
    points = parser.parse_args().points
    arguments = [f"seed=range(0,{points})", "hidden=8", "data=synthetic", "epochs=1", "hydra.sweeper.report=false"]
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        driver = subprocess.Popen(
            [sys.executable, "-m", "mnist_exp.train", "-m", *arguments],
            cwd=scratch,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.DEVNULL,
        )
        process, peak, first = psutil.Process(driver.pid), 0, 0.0
        while driver.poll() is None:
            try:
                peak = max(peak, process.memory_info().rss)
            except psutil.Error:
                break
            if not first and any(Path(scratch).glob("outputs/sweeps/*/*/0/ledger.json")):
                first = time.monotonic() - began
            time.sleep(0.05)
        code, total = driver.wait(), time.monotonic() - began
        ledgers = [json.loads(path.read_text()) for path in Path(scratch).glob("outputs/sweeps/*/*/*/ledger.json")]
    finished = sum(entry["state"] == "finished" for entry in ledgers)
    training = sum(entry["seconds"] for entry in ledgers)
    each = (total - first) * measure.cores() / points - training / points
    costs = {
        "until the first job": first,
        "until the last": total,
        "training of a job": training / points,
        "around it, on a core": each,
    }
    notes = [
        f"{finished:,} of {points:,} finished, exit code {code}; peak memory of the driver {peak / 2**20:.0f} MiB",
        "hidden=8 on synthetic images, one epoch each; the whole command, MLflow included",
    ]
    case = Case(f"{points:,} points", {name: Spread([cost]) for name, cost in costs.items()})
    benchmark = Benchmark("thousand", "A sweep of a thousand tiny runs", "s", [case], notes)
    table.finish(benchmark, points == FULL)


if __name__ == "__main__":
    main()
