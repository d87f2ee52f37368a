"""`pytest --one-case SEED`: one case of each parametrised test, which costs minutes, not an hour; `.ci/run` does so."""

import random
from collections.abc import Mapping

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-case", metavar="SEED", help="run one case of each test, and of each fault, drawn by SEED")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what `--one-case` does not draw."""
    if (seed := config.getoption("--one-case")) is None:
        return
    kept = drawn({item.nodeid: [mark.args for mark in item.iter_markers("faults")] for item in items}, seed)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
    items[:] = [item for item in items if item.nodeid in kept]


def drawn(faults: Mapping[str, object], seed: str) -> set[str]:
    """One of the ids for each test, and for each of the *faults* that its cases inject; in any order the same."""
    cases: dict[str, list[str]] = {}
    for case in sorted(faults):
        cases.setdefault(f"{case.partition('[')[0]} {faults[case]}", []).append(case)
    return {random.Random(f"{seed} {test}").choice(of_it) for test, of_it in cases.items()}
