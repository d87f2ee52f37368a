"""Run and sweep folders, made without training."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mnist_exp.console import terminal
from mnist_exp.disk.files import write_json
from mnist_exp.disk.journal import Journal
from mnist_exp.disk.ledger import Ledger
from mnist_exp.report import board, page
from mnist_exp.report.__main__ import main
from mnist_exp.results import names

CONFIG = "hidden: 64\nepochs: 3\nmodel:\n  _target_: mnist_exp.models.MLP\n  dropout: 0.0\n"


def make_run(
    folder: Path,
    overrides: Sequence[str],
    accuracy: float | None,
    state: str = "finished",
    reason: str = "",
    splits: Sequence[str] = ("val", "test", "train"),
    epochs: int = 3,
    **more: Any,
) -> Path:
    """Makes a run's folder; *accuracy* is that of its last epoch, None for a run without an epoch."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "train.log").write_text("epoch 1\n")
    journal = Journal(folder, [])
    summary: dict[str, float] = {}
    for epoch in range(1, epochs + 1) if accuracy is not None else ():
        reached = accuracy * (1 - 0.1 * math.exp(-epoch)) if epoch < epochs else accuracy
        metrics = {f"{split}/accuracy": reached for split in splits}
        metrics |= {f"{split}/loss": 1.01 - reached for split in splits} | {"time/epoch": 2.0}
        journal.append(journal.row(epoch, 10 * epoch, 1_700_000_000_000 + epoch, metrics))
        summary = {f"final/{key.replace('/', '_')}": v for key, v in metrics.items() if key != "time/epoch"}
        summary["time/total_cpu"] = 3.0 * epoch
    params = dict(override.split("=", 1) for override in overrides) | {"epochs": epochs, "model": "mlp"}
    Ledger(
        name=" ".join(overrides),
        state=state,
        reason=reason,
        epoch=len(journal.rows),
        epochs=epochs,
        seconds=2.0 * len(journal.rows),
        started_ms=1_700_000_000_000,
        ended_ms=1_700_000_006_000 if state != "running" else None,
        params=params,
        overrides=list(overrides),
        summary=summary,
        **{"parameters": 50_890, **more},
    ).write(folder)
    return folder


def make_sweep(root: Path, points: Sequence[Sequence[str]], name: str = "10-00-00-abcdef") -> Path:
    """Makes a sweep's folder without runs; its keys are those of the first point."""
    folder = root / "sweeps" / "2026-01-31" / name
    folder.mkdir(parents=True)
    keys = [override.split("=", 1)[0] for override in points[0]]
    write_json(
        folder / "sweep.json",
        {
            "format": 1,
            "id": name,
            "created_ms": 1_700_000_000_000,
            "typed": [f"{key}=…" for key in keys],
            "keys": keys,
            "experiment": "mnist_exp",
            "points": [list(point) for point in points],
        },
    )
    return folder


def write_report(what: str | Path) -> Path:
    """Writes the page about the runs called *what*, and returns its path."""
    return page.write(board.compare(names.resolve(what)))


def track(folder: Path, run_id: str) -> None:
    """Records in *folder* that MLflow has the run."""
    (folder / "mlflow.json").write_text(json.dumps({"run_id": run_id, "experiment_id": "7"}))


def printed(monkeypatch: pytest.MonkeyPatch, *arguments: str, terminal_width: int = 0) -> str:
    """What `python -m mnist_exp.report` prints with *arguments*, without its page."""
    console = Console(file=io.StringIO(), force_terminal=bool(terminal_width), width=terminal_width or None,
                      highlight=False, soft_wrap=True, color_system=None)  # fmt: skip
    monkeypatch.setattr(terminal, "console", console)
    main([*arguments, "--no-html"])
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text
