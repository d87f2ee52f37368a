"""In which order runs and sweeps were begun: by what they recorded, because clocks are set back and names are typed."""

import contextlib
import time
from pathlib import Path

from mnist_exp.disk import ledger, plan
from mnist_exp.disk.layout import RunFolder, is_sweep
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
    """The order number of what is begun in *folder*, `<root>/<runs or sweeps>/<day>/<time>`.

    It is the time in milliseconds, unless the clock was set back since another run or sweep of *root* was begun: then a
    larger number than theirs. The name of one is in the future then, and all need not be read each time.
    """
    now = time.time_ns() // 1_000_000
    name = time.strftime("%Y-%m-%d/%H-%M-%S", time.gmtime(now // 1000))
    folder = folder.resolve()
    root = Path(*folder.parts[:-3])
    others = [each for kind in ("runs", "sweeps") for each in root.glob(f"{kind}/*/*/") if each != folder]
    if all("/".join(each.parts[-2:])[: len(name)] <= name for each in others):
        return now
    numbers = [now]
    for each in others:
        with contextlib.suppress(ExperimentError):
            if recorded := begun(each):
                numbers.append(recorded[0] + 1)
    return max(numbers)


def _number(entry: ledger.Ledger) -> int:
    return entry.order or entry.started_ms
