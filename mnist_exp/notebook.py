"""Training from Python, as in a notebook: the same run as the command's, with its output below the cell."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config import compose
from mnist_exp.config.overrides import check_single
from mnist_exp.console import terminal
from mnist_exp.disk.layout import RunFolder
from mnist_exp.errors import ExperimentError
from mnist_exp.run import one, resume

if TYPE_CHECKING:
    from mnist_exp.run.session import Result


def train_from(overrides: Sequence[str] = (), root: str | Path = "outputs") -> "Result":
    """Trains what `python -m mnist_exp.train <overrides>` would, and returns how it ended.

        result = mnist_exp.train_from(["hidden=256", "epochs=3"])
        result.summary["final/val_accuracy"], result.folder

    Args:
        overrides: As typed on the command line. For several runs, call it several times, or use the command with -m.
        root: The run gets a new folder below `<root>/runs`.

    Raises:
        ExperimentError: see `session.run_many`; its note says the way out. Interrupting the kernel raises
            `Interrupted`: the finished epochs are saved, and `["resume=<folder>"]` continues.
    """
    try:
        asked = compose(overrides)
        check_single(overrides, overrides)
        folder = Path(resume.run_folder(f"{root}/runs", asked.resume))
        folder.mkdir(parents=True, exist_ok=True)
        with terminal.log_to(RunFolder(folder).log):
            return one.train(asked, folder, list(overrides))
    except ExperimentError as error:
        if error.help:
            error.add_note(f"help: {error.help}")
        raise
