"""A sweep of four with a worker that is killed, its resume, report and doctor: where the tests, which fork, do not run.

In an empty folder, on any system, with the package installed: python .ci/elsewhere.py
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

SWEEP = ["-m", "hidden=16,24", "seed=0,1", "data=synthetic", "data.train_images=4000", "epochs=100", "threads=1"]
SWEEP += ["hydra.launcher.workers=2", "hydra.launcher.pack=off", "tracking=off"]


def started(module: str, *typed: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", f"mnist_exp.{module}", *typed])


def ledgers() -> list[dict[str, Any]]:
    """Those of the runs that have finished an epoch or more."""
    written = [json.loads(p.read_text(encoding="utf-8")) for p in Path().glob("outputs/sweeps/*/*/*/ledger.json")]
    return [ledger for ledger in written if ledger["epoch"]]


def main() -> None:
    driver = started("train", *SWEEP)
    limit = time.monotonic() + 300
    while not (trained := [ledger["pid"] for ledger in ledgers() if ledger["state"] == "running"]):
        assert driver.poll() is None
        assert time.monotonic() < limit, "no run trains"
        time.sleep(0.05)
    psutil.Process(trained[0]).kill()
    assert driver.wait(300) == 1, driver.returncode
    states = sorted(ledger["state"] for ledger in ledgers())
    assert states == ["finished", "finished", "finished", "killed"], states
    assert started("train", "-m", "resume=last", "retry_failed=true").wait(300) == 0
    assert [ledger["state"] for ledger in ledgers()] == ["finished"] * 4
    assert started("report", "last").wait(120) == 0
    assert started("doctor").wait(120) == 0


if __name__ == "__main__":
    main()
