"""The faults by number, with the promise for each, and a count of their injections by `tests/faults/`.

`pytest -m faults -n 0 --fault-table` writes the table of docs/reliability.md from it.
"""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

FAULTS = {
    1: ("job SIGKILLed at a random moment", "goes on from its last complete epoch; weights bit-equal"),
    2: ("SIGKILL inside a write, at each call", "old file or new file; strays are removed; weights bit-equal"),
    3: ("the N-th open, write, fsync, rename … fails", "old state or new state, never a mixture; can be resumed"),
    4: ("driver SIGKILLed, workers alive", "nothing is left running; finished runs are not run again"),
    5: ("SIGTERM", "stops after the batch, exit 143 within ten seconds, MLflow says KILLED"),
    6: ("Ctrl-C, once and twice", "exit 130 and the command that goes on; the second time at once"),
    7: ("SIGUSR1, SIGUSR2 (as a batch system sends)", "as if killed: goes on from its last complete epoch"),
    8: ("disk full at a checkpoint", "the run fails with a sentence; its states are whole; others go on"),
    9: ("disk full at the tracking store", "training does not notice; sync sends the rest, once"),
    10: ("outputs cannot be written", "exit 2 and a sentence that names the folder, before training"),
    11: ("checkpoint truncated or with a flipped bit", "the one before is used; none left: said so, nothing started"),
    12: ("hostile pickle as a checkpoint", "refused unopened; exit 2"),
    13: ("checkpoint of another config", "refused, each difference named"),
    14: ("damaged images: bytes, length, magic, counts", "found by digest or header before training; exit 2"),
    15: ("8 processes, no images yet", "one download, the others wait"),
    16: (
        "source of the images down, silent, an HTML page, or wrong bytes",
        "every source named with what it said; exit 2",
    ),
    17: ("hostile package: paths outside, symlink, device, bomb, wrong hash", "nothing is written or executed; exit 2"),
    18: ("tracking database locked by another process", "training does not notice; nothing is lost or doubled"),
    19: ("fresh tracking database, several first users", "all succeed"),
    20: ("tracking database of an unknown version, or damaged", "training does not notice; said how to mend it"),
    21: ("tracking server dead", "training does not notice, exit 0; sync sends it all later"),
    22: ("tracking server slow, answering 500 or HTML, losing replies", "bounded wait; each row is there once"),
    23: ("loss becomes NaN", "that run fails with the steps named; the others go on"),
    24: ("a job raises or exits", "that run fails; cause, log and command are printed; exit 1"),
    25: ("a job is out of memory, or killed for it", "that run fails and says so; the others go on"),
    26: ("publisher, fork server or worker killed", "the sweep goes on, or can be resumed"),
    27: ("two sweeps in one second", "two folders"),
    28: ("two processes resume the same run", "the second is refused, the first named; free as soon as that dies"),
    29: ("the same point twice, the same sweep again", "runs once, and that is said"),
    30: ("clock set back during a run", "no negative duration; order kept"),
    31: ("impossible values of every key", "refused before anything starts, exit 2; what passes trains"),
    32: ("hostile text in overrides, names and params", "no path is made of it, the page escapes it, MLflow takes it"),
    33: ("secrets in overrides, addresses, environment", "refused or hidden: found in no file"),
    34: ("open ports, open folders, foreign `_target_`", "loopback only; not world-writable; only the user's own"),
    35: (
        "project moved or copied, experiment deleted in MLflow",
        "said before training; files go where it is now",
    ),
    36: ("working folder with `?`, `%` or `#` in its name, job with another one", "one database, where it was started"),
    37: ("screen closed, full, or hung up (SIGHUP)", "training goes on; the exit code is the training's"),
    38: ("torn or lost end of a search's journal", "goes on; no trial is trained or asked twice"),
    39: ("rows lost in MLflow", "sync sends what is missing, once"),
    40: ("wrong address of MLflow, bytes that are no text", "exit 2 before anything is written"),
    41: (
        "a run from elsewhere that names code and servers, or has links and pipes",
        "nothing is called, asked or written there; refused, or the user's own is used",
    ),
    42: (
        "records from elsewhere: aliases, nesting, numbers, types, control characters, formulas",
        "a sentence, or shown as text; no traceback",
    ),
    43: ("images with other labels, sizes or axes", "refused before training, in a sweep before its first job; exit 2"),
    44: ("disk full at a sweep's report", "named, with the way out; exit code by what trained"),
    45: ("files called as modules in the working folder; a long TMPDIR", "not imported; no obstacle"),
    46: (
        "working folder deleted or renamed, or disk full, while a sweep runs",
        "its runs fail with a sentence; renamed, it goes on there; no traceback",
    ),
}

REPO = Path(__file__).resolve().parents[2]
TIMES: Counter[int] = Counter()
FAILED: set[int] = set()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", action="store_true", help="write the table of docs/reliability.md")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fault-table") and config.getoption("numprocesses"):
        raise pytest.UsageError("--fault-table counts the faults of one process: add -n 0")


@pytest.fixture
def injected(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """`injected(3)` counts three injections of the test's fault with the promise kept."""
    (number,) = request.node.get_closest_marker("faults").args

    def note(times: int = 1) -> None:
        TIMES[number] += times

    return note


@pytest.fixture
def no_survivors(scratch: Path) -> Iterator[None]:
    """Kills the processes that a test has left behind.

    It spares multiprocessing's own helpers of this process: the fork server and its resource tracker.
    """
    yield
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            helper = process.name() == "forkserver" or any("multiprocessing" in word for word in process.cmdline())
            kept = helper and process.ppid() == os.getpid()
            if process.pid != os.getpid() and Path(process.cwd()) == scratch and not kept:
                process.kill()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("faults"):
            item.fixturenames.insert(0, "no_survivors")  # type: ignore[attr-defined]  # of functions


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> object:
    report = yield
    marker = item.get_closest_marker("faults")
    if marker and marker.args and report.failed and report.when != "teardown":  # teardown covers the whole session
        FAILED.add(marker.args[0])
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--fault-table"):
        return
    rows = ["| # | fault | injected | outcome | promise |", "| ---: | --- | ---: | --- | --- |"]
    for number, (fault, promise) in FAULTS.items():
        outcome = "**broken**" if number in FAILED else "kept" if TIMES[number] else "not injected here"
        rows.append(f"| {number} | {fault} | {TIMES[number]} | {outcome} | {promise} |")
    page = REPO / "docs" / "reliability.md"
    text = page.read_text(encoding="utf-8")
    table = "\n".join(rows)
    page.write_text(re.sub(r"(?s)(<!-- faults -->).*?(<!-- end -->)", rf"\1\n\n{table}\n\n\2", text), encoding="utf-8")
