"""Random kills: after enough resumes a sweep equals an undisturbed one (after Ray Tune's
`test_experiment_restore.py`)."""

import contextlib
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch
from kit import wait_for

from mnist_exp.config.stores import uri_for
from mnist_exp.disk import journal, ledger
from mnist_exp.tracking.store import open_store

GRID = ["hidden=16,32", "lr=1e-3,3e-3"]
EPOCHS, POINTS = 24, 4
FIXED = ["data=synthetic", "data.train_images=60000", f"epochs={EPOCHS}", "threads=1"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mnist_exp.train", "-m", *arguments]


def start(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(command(*arguments), cwd=folder, stdout=output, stderr=output)


def again(folder: Path, how: str) -> "subprocess.Popen[bytes]":
    """Resumes; *how* sets the launcher, which is not part of the sweep."""
    return start(folder, "resume=last", "retry_failed=true", how)


def trained(folder: Path) -> int:
    """Total epochs of all runs."""
    return sum(len(path.read_bytes().splitlines()) for path in folder.glob("outputs/sweeps/*/*/*/metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pack", ["off", "auto"])
def test_killed_and_resumed_equals_undisturbed(tmp_path: Path, pack: str) -> None:
    how = f"hydra.launcher.pack={pack}"
    fixed = [*FIXED, how]
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    calm.mkdir()
    wild.mkdir()
    subprocess.run(command(*GRID, *fixed, "tracking=off"), cwd=calm, check=True, capture_output=True)
    rng, kills = random.Random(7), Counter[str]()
    driver = start(wild, *GRID, *fixed)
    # Kills come at shares of the progress, not at times: so fast and slow machines kill as often.
    shares = sorted(rng.uniform(0.02, 0.8) for _ in range(6))
    if pack == "auto":  # packs that began are resumed as they were; others may be packed anew, with other bits
        wait_for(lambda: len(list(wild.glob("outputs/sweeps/*/*/*/pack.json"))) == POINTS)
    while (count := sum(kills.values())) < len(shares):
        wanted = shares[count] * EPOCHS * POINTS
        wait_for(lambda driver=driver, wanted=wanted: driver.poll() is not None or trained(wild) >= wanted)
        if driver.poll() == 0:
            break
        if driver.poll() is None:
            time.sleep(rng.uniform(0, 0.1))
            with contextlib.suppress(psutil.NoSuchProcess):
                alive = [(it := psutil.Process(driver.pid)), *it.children(recursive=True)]
                victim = rng.choice([process for process in alive if process.name() != "warm"])
                victim.kill()
                kills["driver" if victim.pid == driver.pid else "child"] += 1
                if rng.random() < 0.5 or victim.pid == driver.pid:
                    driver.kill()  # else the driver goes on after a worker's death
                    driver.wait()
        if driver.poll() is not None:
            driver = again(wild, how)
            if rng.random() < 0.5:  # kill it soon after its start, too
                time.sleep(rng.uniform(0.2, 3.0))
                driver.kill()
                driver.wait()
                driver = again(wild, how)
    if driver.wait(300):  # the last kill left runs unfinished
        driver = again(wild, how)
    assert driver.wait(300) == 0, (wild / "output.txt").read_text()
    # On a busy machine the publisher may not have sent everything when the sweep ends: sync does.
    subprocess.run([sys.executable, "-m", "mnist_exp.sync"], cwd=wild, check=True, capture_output=True)
    assert sum(kills.values()) >= 3, f"only {kills}: the test has not tested much"

    (calm_sweep,), (wild_sweep,) = (
        [plan.parent for plan in (f / "outputs" / "sweeps").glob("*/*/sweep.json")] for f in (calm, wild)
    )
    client = open_store(uri_for(f"sqlite:///{wild / 'mlflow.db'}"), "mnist_exp").client
    experiment = client.get_experiment_by_name("mnist_exp").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    assert Counter(run.info.status for run in runs) == {"FINISHED": POINTS}
    for number in range(POINTS):
        one, other = calm_sweep / str(number), wild_sweep / str(number)
        assert ledger.read(other).state == "finished"
        assert [row["epoch"] for row in journal.read(other)] == list(range(1, EPOCHS + 1))
        weights = [safetensors.torch.load_file(f / "weights.safetensors") for f in (one, other)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0] | weights[1])
        for key in ("test/accuracy", "train/loss"):
            mine = [r for r in runs if r.data.tags["run.id"] == ledger.read(other).id]
            history = client.get_metric_history(mine[0].info.run_id, key)
            assert Counter(m.step for m in history) == dict.fromkeys(range(1, EPOCHS + 1), 1)
    assert not [p for p in tmp_path.rglob("*.tmp-*")], "a temporary file was left"
