"""`python -m mnist_exp.sync`, or `mnist-exp-sync`: sends runs that MLflow lacks.

After an outage, a kill, or training without a network.

Run folders hold everything, so this may be repeated, interrupted, or used with an empty store.
"""

import contextlib
import logging
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from mnist_exp.config.secrets import without_login
from mnist_exp.config.stores import reason, uri_for
from mnist_exp.console import exits, terminal
from mnist_exp.console.arguments import Parser
from mnist_exp.console.formats import plural, short
from mnist_exp.console.terminal import say
from mnist_exp.disk import ledger, records, tracked, trust
from mnist_exp.disk.layout import RunFolder, State, SweepFolder
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ExperimentError
from mnist_exp.tracking import runs as publishing
from mnist_exp.tracking import sweeps
from mnist_exp.tracking.runs import Presence
from mnist_exp.tracking.store import Store, open_store

EXAMPLES = """
examples:
  python -m mnist_exp.sync                                  everything under outputs/
  python -m mnist_exp.sync outputs/sweeps/2026-11-23        the sweeps of one day
  python -m mnist_exp.sync --uri http://tracking.lan:5000   to that server

exit codes: 0 MLflow has everything, but for what was deleted there · 1 it cannot be reached, or refused a run · 2 usage
"""


def main(arguments: Sequence[str]) -> None:
    """Sends all runs under the folders of the command line.

    Raises:
        ExperimentError: the store cannot be reached, or did not take a run.
        SystemExit: usage (2), or `--help` (0).
    """
    parser = Parser("sync", "Sends runs that MLflow does not have yet, or not completely.", EXAMPLES)
    parser.add_argument("folder", nargs="*", type=Path, default=[Path("outputs")], help="where to look (outputs)")
    parser.add_argument("--uri", help="MLflow store ($MLFLOW_TRACKING_URI, else mlflow.db in this folder)")
    options = parser.read(arguments)
    for folder in options.folder:
        if not folder.is_dir():
            parser.error(f"there is no folder {folder}")
    logging.basicConfig(handlers=[terminal.WarningHandler(logging.WARNING)])
    uri = uri_for(options.uri, "--uri")
    try:
        result = send(options.folder, uri, all_of_them=bool(options.uri))
    except ExperimentError:
        raise
    except Exception as error:
        raise ExperimentError(
            f"MLflow ({without_login(uri)}) did not take it: {reason(error)}.",
            "Nothing is lost: repeat this once it can be reached, or name another store with --uri.",
        ) from error
    say(f"Sent to {without_login(uri)}: {result.sent}. There already: {result.kept}.")
    if result.elsewhere:
        say(f"In another store: {len(result.elsewhere)}, such as {result.elsewhere[0]}; --uri sends them here, too.")
    if result.deleted:
        name = f"MLFLOW_TRACKING_URI={shlex.quote(without_login(uri))}"
        say(f"Deleted there: {len(result.deleted)}. To bring them back:")
        for run_id in result.deleted:
            say(f"  {name} mlflow runs restore --run-id {run_id}")
    if result.refused:
        listed = "\n  ".join(f"{folder}: {reason(error)}" for folder, error in result.refused.items())
        raise ExperimentError(
            f"{len(result.refused)} could not be sent:\n  {listed}",
            "Nothing is lost: put that right, and repeat this. What can be sent was sent.",
        )
    if result.closed:
        listed = "\n  ".join(f"{error.message} {error.help}" for error in result.closed.values())
        raise ExperimentError(
            f"Runs of {plural(len(result.closed), 'experiment')} could not be sent:\n  {listed}",
            "Nothing is lost: put that right, and repeat this. Runs of others were sent.",
        )


@final
@dataclass
class Sent:
    """What came of `send`."""

    sent: int = 0
    kept: int = 0
    """Runs that the store had already."""
    elsewhere: list[str] = field(default_factory=list)
    """Folders of runs that another store has, and this one was not asked to take."""
    deleted: list[str] = field(default_factory=list)
    """Ids of runs that somebody has deleted there."""
    refused: dict[Path, Exception] = field(default_factory=dict)
    """The errors of the others, by folder."""
    closed: dict[str, ExperimentError] = field(default_factory=dict)
    """Why experiments take no runs, by their names."""


def send(folders: Sequence[Path], uri: str, all_of_them: bool = False) -> Sent:
    """Sends what the store at *uri* lacks.

    Args:
        all_of_them: Sends what another store has, too.

    Raises:
        Exception: whatever mlflow raises if the store itself is unusable.
    """
    stores: dict[str, Store] = {}
    outdated: dict[Path, Store] = {}  # sweeps of which the store lacks something
    result = Sent()
    for folder, entry in runs(folders):
        if entry.state == State.RUNNING and records.held(folder):
            say(f"{folder}  {short(entry.name)}  is being trained: whoever trains it sends it")
            continue
        if entry.experiment in result.closed:
            continue
        try:
            store = stores[entry.experiment] = stores.get(entry.experiment) or open_store(uri, entry.experiment)
        except ExperimentError as error:  # of the experiment: others may take runs
            result.closed[entry.experiment] = error
            continue
        ledger.reap(folder)
        with _noted(result.refused, folder, store):
            presence = publishing.presence(folder, ledger.read(folder), store)
            if presence is Presence.LACKING or (all_of_them and presence is Presence.ELSEWHERE):
                publishing.publish(folder, store)
                say(f"{folder}  {short(entry.name)}  {ledger.read(folder).state}")
                result.sent += 1
            elif presence is Presence.DELETED and (record := tracked.read(folder)):
                result.deleted.append(record.run_id)
            elif presence is Presence.ELSEWHERE:
                result.elsewhere.append(str(folder))
            else:
                result.kept += 1
            sweep = SweepFolder(folder.parent)
            if sweep.plan.exists() and not (presence is Presence.WHOLE and sweep.tracked.exists()):
                outdated[sweep.path] = store
    for home, store in outdated.items():
        with _noted(result.refused, home, store):
            sweeps.publish(home, store, over=True)
    return result


@contextlib.contextmanager
def _noted(refused: dict[Path, Exception], folder: Path, store: Store) -> Iterator[None]:
    """Adds an error of the block to *refused*, so that the next can be sent; raises if the store itself is unusable."""
    try:
        yield
    except Exception as error:
        store.client.get_experiment(store.experiment_id)
        refused[folder] = error


def runs(folders: Sequence[Path]) -> Iterator[tuple[Path, Ledger]]:
    """The tracked runs in or under *folders*, in the order of their paths.

    Skips, with a warning, a damaged ledger and a foreign folder with links.
    """
    checked = set()  # a sweep's folder is searched for links once, not once per run
    for path in sorted({path for folder in folders for path in folder.rglob(RunFolder.ledger)}):
        sweep = path.parent.parent
        home = sweep if SweepFolder(sweep).plan.exists() else path.parent
        try:
            if home not in checked:
                trust.check_entries(home)
                checked.add(home)
            entry = ledger.read(path.parent)
        except ExperimentError as error:
            logging.getLogger(__name__).warning(str(error))
            continue
        if entry.experiment:
            yield path.parent, entry


cli = exits.command(main)

if __name__ == "__main__":
    cli()
