"""The observer that writes a run's own files: checkpoint, journal, ledger, weights."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import safetensors.torch
import torch

from mnist_exp import system
from mnist_exp.disk import checkpoint, hits, provenance
from mnist_exp.disk.files import atomic_write
from mnist_exp.disk.journal import Journal
from mnist_exp.disk.layout import RunFolder, State
from mnist_exp.engine.events import EpochEnd, LaneEnd, Observer
from mnist_exp.errors import ExperimentError
from mnist_exp.run.claim import Member, close, write_config
from mnist_exp.run.export import export_model
from mnist_exp.run.pack import Pack


@final
class RunWriter(Observer):
    """Writes the files of *member*: after each epoch the checkpoint first, then the journal, then the ledger.

    In this order a crash between two of them loses nothing: the checkpoint holds the journal's rows too.
    Making the writer begins the files, so nothing may be refused after that.
    """

    def __init__(self, member: Member, pack: Pack) -> None:
        self.member, self.pack, self.entry = member, pack, member.entry
        self.files = RunFolder(member.folder)
        self.patient = member.config.training.patience is not None
        saved = member.saved
        self.chosen: dict[str, torch.Tensor] = saved.chosen if saved and self.patient else {}
        """The weights of the best epoch, where patience waits for a better one."""
        self.hits = saved.hits if saved else {}
        """Which images the weights get right that would be exported now."""
        write_config(member.config, member.folder)
        if member.forced or not self.files.ledger.exists():
            system.unlink(self.files.difference)
            if difference := provenance.git().get("diff"):
                atomic_write(self.files.difference, difference.encode())
        self.journal = Journal(member.folder, saved.history if saved else [], repeats=not member.forced)
        self._write_ledger(member.epoch)  # a crash may have come before the ledger was written
        member.begun = True

    def on_epoch(self, event: EpochEnd) -> None:
        with writing(self.files.path):
            row = self.journal.row(event.epoch, event.step, event.time_ms, event.metrics)
            if event.best or not self.patient:
                self.hits = event.hits
            if event.best and self.patient:
                self.chosen = self.pack.in_use(event.lane)
            if self.member.config.checkpoint.enabled:
                history = [*self.journal.rows[: event.epoch - 1], row]
                checkpoint.save(self.files.checkpoints, self.pack.state(self.member, history, self.chosen, self.hits))
            self.journal.append(row)
            self._write_ledger(event.epoch)

    def on_end(self, event: LaneEnd) -> None:
        with writing(self.files.path):
            finished = event.state == State.FINISHED
            if finished:
                weights = self.chosen or self.pack.in_use(event.lane)
                atomic_write(self.files.weights, safetensors.torch.save(weights))
                hits.write(self.files.path, {split: right.numpy() for split, right in self.hits.items()})
                if self.member.extras and self.member.config.checkpoint.model:
                    export_model(self.member.config, self.files.path)
            self.entry.summary = summarise(self.journal.rows, self.entry.parameters, self.patient and finished)
            close(self.entry, self.files.path, event.state, event.reason)

    def _write_ledger(self, epoch: int) -> None:
        """Records how far the run has come."""
        self.entry.epoch = epoch
        self.entry.seconds = sum(row["metrics"]["time/epoch"] for row in self.journal.rows[:epoch])
        self.entry.write(self.files.path)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns the error of a full or broken disk into the run's failure, with a sentence.

    Raises:
        ExperimentError: *folder* cannot be written.
    """
    try:
        yield
    except OSError as error:
        way_out = "Its finished epochs are kept: make room, then resume it."
        raise ExperimentError(f"{folder} cannot be written: {error.strerror}.", way_out) from error


def summarise(rows: list[dict[str, Any]], parameters: int, chosen: bool) -> dict[str, float]:
    """Best and final metrics of a run, as separate metrics: MLflow's tables show only last values.

    Args:
        chosen: Whether the weights of the best epoch are exported instead of the last one's. Then the final metrics
            are those of the best epoch.
    """
    if not rows:
        return {}
    validated = all("val/accuracy" in row["metrics"] for row in rows)
    best = max(rows, key=lambda row: (row["metrics"]["val/accuracy"], -row["epoch"])) if validated else rows[-1]
    final = (best if chosen else rows[-1])["metrics"]
    summary = {f"final/{key.replace('/', '_')}": value for key, value in final.items() if not key.startswith("time/")}
    if validated:
        summary["best/epoch"] = best["epoch"]
        for key in best["metrics"].keys() & {"val/accuracy", "test/accuracy"}:
            summary[f"best/{key.replace('/', '_')}"] = best["metrics"][key]
    summary["time/total"] = sum(row["metrics"]["time/epoch"] for row in rows)
    summary["time/total_cpu"] = sum(row["metrics"].get("time/epoch_cpu", 0.0) for row in rows)  # older rows lack it
    summary["model/parameters"] = parameters
    return summary
