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
from rich.console import Console

from benchmarks import measure


def main() -> None:
    """Runs the sweep once and prints what it cost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thousand", description=__doc__)
    parser.add_argument("--points", type=int, default=1000)
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
    console = Console()
    console.print(f"{points} points, {finished} finished, exit code {code}, {measure.cores()} cores")
    console.print(f"first job after {first:.1f} s; all after {total:.1f} s")
    console.print(f"per job and core: {1e3 * training / points:.0f} ms of training, {1e3 * each:.0f} ms around it")
    console.print(f"peak memory of the driver: {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
