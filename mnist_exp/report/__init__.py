"""Comparing runs: a leaderboard for the terminal, pictures, and one page that holds everything."""

from pathlib import Path

from mnist_exp.results import names


def write(what: str | Path = "last", root: Path = Path("outputs")) -> Path:
    """Writes the page about the runs called *what*, with its data and pictures, and returns its path.

    Args:
        what: See `results.names`; a sweep's folder, for instance.

    Raises:
        ExperimentError: there are no such runs, or their files cannot be read.
        OSError: the page cannot be written.
    """
    from mnist_exp.report import board, page  # matplotlib, pandas

    return page.write(board.compare(names.resolve(what, root)))
