"""Counts how often each fault was injected, and writes the table of docs/reliability.md from that if it is asked to."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from catalogue import FAULTS

REPO = Path(__file__).resolve().parents[2]
TIMES: Counter[int] = Counter()
FAILED: set[int] = set()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", action="store_true", help="write the table of docs/reliability.md")


@pytest.fixture
def injected(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """`injected(3)`: three faults of this test's number were injected, and the promise was kept each time."""
    (number,) = request.node.get_closest_marker("faults").args

    def note(times: int = 1) -> None:
        TIMES[number] += times

    return note


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> object:
    report = yield
    marker = item.get_closest_marker("faults")
    if marker and marker.args and report.failed:
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
    page.write_text(re.sub(r"(?s)(<!-- faults -->\n).*?(\n<!-- end -->)", rf"\1\n{table}\n\2", text), encoding="utf-8")
