"""`python -m mnist_exp.remove`, or `mnist-exp-remove`: deletes runs or checkpoints, in MLflow, too."""

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mnist_exp import system
from mnist_exp.config.secrets import without_login
from mnist_exp.config.stores import reason, uri_for
from mnist_exp.console import exits
from mnist_exp.console.arguments import Parser
from mnist_exp.console.formats import plural, short, size
from mnist_exp.console.terminal import say, shown
from mnist_exp.disk import ledger, plan, records, tracked, trust
from mnist_exp.disk.layout import RunFolder, State, holds_runs
from mnist_exp.errors import BusyError, ConfigError, ExperimentError
from mnist_exp.results import names
from mnist_exp.results.names import Selection
from mnist_exp.tracking.store import delete_run

ABOUT = """\
Deletes the runs that every option given applies to: their folders, and their entries in MLflow, which `mlflow gc` then
erases. Without --yes it only says what it would delete. Runs that are being trained are left."""
EXAMPLES = """\
examples
  python -m mnist_exp.remove --checkpoints --yes        of finished runs, which need none: most of the space
  python -m mnist_exp.remove --failed                   what failed or was killed; only says which
  python -m mnist_exp.remove --older 30 --keep 3 --yes  older than 30 days, but the best 3 settings of each sweep
  python -m mnist_exp.remove last --keep 1 --yes        of the last sweep all but the best setting

exit codes: 0 done · 1 something could not be deleted · 2 usage, or no such run
"""
DAY = 24 * 3600 * 1000  # milliseconds


@final
@dataclass(frozen=True)
class Removal:
    """What is deleted of one run."""

    folder: Path
    path: Path
    """The run's folder, or that of its checkpoints."""
    label: str

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.lstat().st_size for file in self.path.rglob("*") if file.is_file())


def main(arguments: Sequence[str]) -> None:
    """Deletes what *arguments* ask for.

    Raises:
        ConfigError: there is no such run, or no option says which of them.
        BusyError: what is named is being trained.
        ExperimentError: something could not be deleted.
        SystemExit: usage (2), or `--help` (0).
    """
    parser = Parser("remove", ABOUT, EXAMPLES)
    parser.add_overrides({}, "what …", "runs and sweeps; without a name all of outputs/", names.offered)
    parser.add_argument("--failed", action="store_true", help="those that failed, were killed, or are damaged")
    parser.add_argument("--older", type=float, metavar="DAYS", help="those that ended longer ago")
    parser.add_argument("--keep", type=int, metavar="N", help="all but the best N settings of each sweep")
    parser.add_argument("--checkpoints", action="store_true", help="only the checkpoints, of finished runs")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--dry-run", action="store_true", help="only say what would be deleted (the default)")
    either.add_argument("--yes", action="store_true", help="delete")
    typed = parser.read(arguments)
    if not (typed.failed or typed.checkpoints or typed.names) and typed.older is None and typed.keep is None:
        raise ConfigError("Which runs?", "Name them, or say --failed, --older, --keep or --checkpoints; see --help.")
    if typed.keep is not None and typed.keep < 1:
        raise ConfigError(f"--keep must be at least 1, but got {typed.keep}.", "To delete a sweep, name it.")
    selections = [names.resolve(name) for name in typed.names] if typed.names else everything()
    if not typed.checkpoints:  # a sweep needs its finished runs until it has ended
        busy = [each.home for each in selections if records.held(each.home)]
        if busy and typed.names:
            raise BusyError(f"{shown(busy[0])} is in use: its process trains.", "Wait for it, or stop it first.")
        selections = [each for each in selections if each.home not in busy]
    chosen = list(removals(selections, typed.failed, typed.older, typed.keep, typed.checkpoints))
    total = size(sum(each.size for each in chosen))
    for each in chosen:
        say(f"{'Deletes' if typed.yes else 'Would delete'} {shown(each.path)}  {each.label}")
    if not typed.yes:
        say(f"{plural(len(chosen), 'run')}, {total}. Nothing was deleted: add --yes.")
        return
    failures = delete(chosen, [each.home for each in selections if each.sweep])
    say(f"{plural(len(chosen) - len(failures), 'run')} of {len(chosen)}, {total} in all.")
    if failures:
        raise ExperimentError("\n  ".join(["Not deleted:", *failures]), "Repeat this once that is put right.")


def everything() -> list[Selection]:
    """Each sweep in outputs/, and the other runs together."""
    root = Path("outputs")
    sweeps = [names.resolve(folder) for folder in sorted(root.glob("sweeps/*/*/")) if holds_runs(folder)]
    single = [path.parent for path in sorted(root.glob(f"runs/*/*/{RunFolder.ledger}"))]
    return [*sweeps, *([Selection("Runs", root, single)] if single else [])]


def removals(
    selections: Iterable[Selection], failed: bool, older: float | None, keep: int | None, checkpoints: bool
) -> Iterable[Removal]:
    """What to delete of *selections*: of the runs that every option given applies to; see `main`."""
    now = time.time_ns() // 1_000_000
    for selection in selections:
        kept = _best(selection, keep) if keep else set()
        for folder in selection.folders:
            entry, state, _ = ledger.status(folder)
            ended = entry.until_ms if entry else None
            if not folder.is_dir() or folder in kept or state == State.RUNNING or (failed and not state.lost):
                continue
            if older is not None and (ended is None or ended > now - older * DAY):
                continue
            path = RunFolder(folder).checkpoints if checkpoints else folder
            if not checkpoints or (state.done and path.is_dir()):
                yield Removal(folder, path, f"{short(entry.name) if entry else ''} ({state})".strip())


def _best(selection: Selection, keep: int) -> set[Path]:
    """The folders of the runs of the best *keep* settings, on each dataset."""
    return {run.at for ranked in names.rankings(selection) for group in ranked.groups[:keep] for run in group.runs}


def delete(chosen: Sequence[Removal], sweeps: Iterable[Path]) -> list[str]:
    """Deletes *chosen*, own runs in MLflow first, and the folders of *sweeps* that have no runs left.

    Returns:
        A sentence for each that could not be deleted.
    """
    failures, uri = [], uri_for(None)
    for each in chosen:
        try:
            with ledger.hold(each.folder) as lock:
                record = tracked.read(each.folder) if each.path == each.folder else None
                if record and record.run_id and not trust.own(each.folder):  # it may name the entry of another run
                    say(f"{shown(each.path)} is outside of outputs/: what MLflow has of it stays there.")
                elif record and record.run_id:
                    if record.store != without_login(uri):
                        raise ExperimentError(f"it is in another store, {record.store}: set MLFLOW_TRACKING_URI")
                    delete_run(uri, record.run_id)
                system.delete(each.path, lock)
        except BusyError as error:
            failures.append(error.message)
        except Exception as error:  # each kind of store raises its own
            failures.append(f"{shown(each.path)}: {reason(error)}")
    for home in sweeps:
        with contextlib.suppress(BusyError), plan.hold(home) as lock:  # unless its first run is about to begin
            if not any(home.glob(f"*/{RunFolder.ledger}")):
                system.delete(home, lock)
    return failures


cli = exits.command(main)

if __name__ == "__main__":
    cli()
