"""In which order runs and sweeps were begun: by what they recorded, because clocks are set back and names are typed."""

import time
from pathlib import Path

from mnist_exp.disk import ledger, plan
from mnist_exp.disk.layout import RunFolder, is_sweep
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import ExperimentError


def begun(folder: Path) -> tuple[int, bool] | None:
    """The order number of the sweep or run in *folder*, and whether it is where it was begun; None if it has none.

    Of older ones, which have no number, the time in milliseconds at which they were begun. A copy has the number of the
    original.

    Raises:
        ExperimentError: its record is damaged or of a newer format.
    """
    if is_sweep(folder):
        sweep = plan.read(folder)
        return sweep.order or sweep.created_ms, sweep.id == folder.name
    if RunFolder(folder).ledger.is_file():
        return _number(ledger.read(folder)), True
    inside = [ledger.read(path.parent) for path in folder.glob(f"*/{RunFolder.ledger}")]  # by another sweeper
    return (min(map(_number, inside)), True) if inside else None


def following(folder: Path) -> int:
    """The order number of what is begun in *folder*, `<root>/<runs or sweeps>/<day>/<name>`.

    It is the time in milliseconds, unless the clock was set back since another run or sweep of *root* was begun: then a
    larger number than theirs. A folder of a day in the future says so, and all need not be read each time.
    """
    now = time.time_ns() // 1_000_000
    root = Path(*folder.resolve().parts[:-3])
    days = [*root.glob("runs/*/"), *root.glob("sweeps/*/")]
    if all(day.stat().st_mtime_ns // 1_000_000 <= now for day in days):
        return now
    numbers = [now]
    for each in (path for day in days for path in day.glob("*/")):
        try:
            found = begun(each)
        except ExperimentError:
            continue
        numbers += [found[0] + 1] if found else []
    return max(numbers)


def _number(entry: Ledger) -> int:
    return entry.order or entry.started_ms
