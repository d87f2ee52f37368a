"""Digits of 8x8, clothes, and a 26-class set in colour go the whole way through the real command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from kit import OFF, command, end, only_sweep, same_weights, sent_once, start, wait_for
from mlflow import MlflowClient
from PIL import Image

from mnist_exp.data import fetch
from mnist_exp.disk import journal, ledger, tracked

COMMON = [OFF, "epochs=2", "device=cpu", "threads=1"]


def letters(root: Path) -> list[str]:
    """Pictures of 32x32 in 26 classes, each of its own pattern; returns the overrides that train on them."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 2)):
        for label in range(26):
            pattern = np.kron(np.random.default_rng(label).integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1)))
            folder = root / part / chr(97 + label)
            folder.mkdir(parents=True)
            for i in range(count):
                noisy = pattern + rng.normal(0, 20, pattern.shape)
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return ["data=folder", f"data.root={root}", "data.channels=3", "data.height=32", "data.width=32"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["digits", "fashion", "letters"])
def test_sweep_report_evaluate_predict_resume_and_pruning(kind: str, scratch: Path) -> None:
    if kind == "letters":
        own, picture = letters(scratch / "letters"), scratch / "letters" / "test" / "c" / "0.png"
    else:
        own, picture = ["data=sklearn_digits"], scratch / "grey.png"
        Image.fromarray(np.pad(np.full((4, 2), 200, np.uint8), ((2, 2), (3, 3)))).save(picture)
    if kind == "fashion":
        own = ["data=fashion_mnist", "data.limit=1000"]
        if not (fetch.SHARED / "fashion-mnist").is_dir():
            pytest.skip("Debian's dataset-fashion-mnist is not installed")
    code, out, err = command(
        "-m", "hidden=8,12,16", "lr=3e-3", *own, *COMMON, "hydra.launcher.workers=1", "hydra.launcher.pack=3"
    )
    assert code == 0, out + err
    sweep = only_sweep()
    assert (sweep / "0" / "pack.json").exists()
    assert (sweep / "report.html").exists()
    code, out, err = command("run=best", "--json", module="evaluate")
    assert code == 0, out + err
    classes = 26 if kind == "letters" else 10
    assert np.shape(json.loads(out)["confusion"]) == (classes, classes)
    code, out, err = command("run=best", str(picture), "--json", module="predict")
    assert code == 0, out + err
    assert len(json.loads(out)["probabilities"]) == classes
    code, out, err = command("-m", f"resume={sweep}", "epochs=3")
    assert code == 0, out + err
    assert "6 runs, 3 of them done already" in out
    rates = "lr=tag(log,interval(1e-6,1e-1))"  # some of them useless
    search = ["-m", "search=tpe", "pruner=halving", "n_trials=6", rates, "hydra.launcher.workers=1"]
    code, out, err = command(*search, *own, *COMMON, "hidden=16", "epochs=4", "hydra.sweep.dir=searched")
    assert code == 0, out + err
    states = [ledger.read(path.parent).state for path in Path("searched").glob("*/ledger.json")]
    assert len(states) == 6
    assert set(states) == {"finished", "pruned"}


@pytest.mark.slow
def test_a_small_cnn_is_tracked_killed_and_resumed(scratch: Path) -> None:
    store, cut = "tracking.uri=sqlite:///mlflow.db", Path("outputs/runs/cut")
    typed = [*letters(scratch / "letters"), "model=small_cnn", "epochs=12", "device=cpu", "threads=1", store]
    code, out, err = command(*typed, "hydra.run.dir=outputs/runs/whole")
    assert code == 0, out + err
    doomed = start(*typed, "hydra.run.dir=outputs/runs/cut")
    wait_for(lambda: (cut / "metrics.jsonl").exists() and len(journal.read(cut)) >= 2)
    doomed.kill()
    assert end(doomed)[0] < 0
    wait_for(lambda: ledger.read(cut).state == "killed")  # the sender, which lives on, says so
    code, out, err = command(f"resume={cut}")
    assert code == 0, out + err
    assert ledger.read(cut).state == "finished"
    same_weights(Path("outputs/runs/whole"), cut)
    record = tracked.read(cut)
    assert record
    sent_once(MlflowClient("sqlite:///mlflow.db"), record.run_id, 12)
