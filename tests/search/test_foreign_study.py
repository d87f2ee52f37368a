"""A journal of Optuna's that another has made: it opens, or is refused with a sentence, and decides nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from mnist_exp.disk.layout import SweepFolder
from mnist_exp.errors import ConfigError
from mnist_exp.search import study as studies
from mnist_exp.search.analysis import analyse
from mnist_exp.search.study import Search

HERE, NOW = Path(), "2026-11-30T21:25:03.279938+00:00"
SPACE = {"lr": FloatDistribution(1e-4, 1e-1, log=True), "hidden": CategoricalDistribution([16, 8])}
CREATE, PARAM, END, REPORT, ATTR = 4, 5, 6, 7, 9
NAN = float("nan")


def kind(name: str, **attributes: Any) -> str:
    return json.dumps({"name": name, "attributes": attributes})


def trial(**more: Any) -> dict[str, Any]:
    return {"op_code": CREATE, "worker_id": "x", "study_id": 0, "datetime_start": NOW, **more}


@pytest.fixture
def search() -> Iterator[Search]:
    """A search of three trials: one has finished, one trains, one waits."""
    found = Search(study="s", n_trials=3, sampler={"_target_": studies.TPE})
    found.write(HERE)
    study = studies.lead(HERE, found, SPACE)
    first, _ = study.ask(SPACE), study.ask(SPACE)
    first.report(0.5, 1)
    study.tell(first, 0.5)
    study.enqueue_trial({"lr": 0.01, "hidden": 8})
    studies.storage.cache_clear()
    yield found
    studies.storage.cache_clear()
    optuna.logging.enable_default_handler()
    optuna.logging.disable_propagation()
    optuna.logging.set_verbosity(optuna.logging.INFO)


CHANGED: dict[str, tuple[int, dict[str, Any]]] = {
    f"{op} {key} {value!r:.40}": (op, {key: value})
    for op, key, values in (
        (0, "directions", [[1], [1, 2], [], [9], "x"]),
        (0, "study_name", ["other", ["s"], None]),
        (CREATE, "study_id", [7, [0], None]),
        (CREATE, "datetime_start", ["yesterday", 5, "0001-01-01T00:00:00+23:59"]),
        (PARAM, "param_value_internal", ["x", None, NAN, 1e308, -5, 99, [1]]),
        (PARAM, "param_name", ["other", ["lr"], "\x1b[31m"]),
        (
            PARAM,
            "distribution",
            ["{", {"name": "x"}, kind("Evil"), "[" * 9999, kind("CategoricalDistribution", choices=[[1]])],
        ),
        (PARAM, "distribution", [kind("FloatDistribution", low="a", high=10**400), kind("FloatDistribution", evil=1)]),
        (PARAM, "trial_id", [99, -1, [0], "0"]),
        (END, "state", [99, "COMPLETE", None]),
        (END, "values", [None, "abc", ["x"], [], [1, 2], [NAN], [10**400], {"a": 1}]),
        (END, "datetime_complete", [None, "never"]),
        (REPORT, "intermediate_value", ["x", None, NAN]),
        (REPORT, "step", ["1", [1], 10**400, -1]),
        (CREATE, "op_code", [77, "4", None, [4], 10]),
    )
    for value in values
}
ADDED: dict[str, Any] = {
    "a list": [1],
    "a number": 5,
    "a text": "x",
    "no operation": {},
    "attributes of other types": trial(system_attrs=[1]),
    "to be given a text": trial(state=4, system_attrs={"fixed_params": "lr"}),
    "to be given what is not searched": trial(state=4, system_attrs={"fixed_params": {"hidden": 99}}),
    "to be given a list": trial(state=4, system_attrs={"fixed_params": {"lr": [1]}}),
    "no values": trial(state=1),
    "two values": trial(state=1, value=1.0, values=[1.0, 2.0]),
    "another study": {"op_code": 0, "worker_id": "x", "study_name": "t", "directions": [1]},
    "no study": {"op_code": 1, "worker_id": "x", "study_id": 0},
    "a trial of no study": trial(study_id=7),
}


def examined(search: Search) -> None:
    """Whoever reads it gets a study of ours, or a sentence."""
    analysis = analyse(HERE)
    assert analysis is not None
    assert "\n" not in analysis.problem
    studies.storage.cache_clear()
    try:
        study = studies.lead(HERE, search, SPACE, again=True)
    except ConfigError:
        return
    assert [direction.name for direction in study.directions] == ["MAXIMIZE"]
    for _ in range(2):
        asked = study.ask(SPACE)
        assert all(SPACE[key]._contains(SPACE[key].to_internal_repr(value)) for key, value in asked.params.items())


@pytest.mark.parametrize("what", CHANGED)
def test_a_record_of_a_journal_that_no_search_has_written(what: str, search: Search) -> None:
    op, change = CHANGED[what]
    records = [json.loads(line) for line in SweepFolder(HERE).trials.read_text().splitlines()]
    next(record for record in records if record["op_code"] == op).update(change)
    SweepFolder(HERE).trials.write_text("".join(json.dumps(record) + "\n" for record in records))
    examined(search)


@pytest.mark.parametrize("what", ADDED)
def test_a_record_more_than_a_search_has_written(what: str, search: Search) -> None:
    with SweepFolder(HERE).trials.open("a") as file:
        file.write(json.dumps(ADDED[what]) + "\n")
    examined(search)


@pytest.mark.parametrize(
    "line",
    [b"\x80\x04\x95", b"\xff\xfe\n", b"[" * 99_999 + b"]" * 99_999 + b"\n", b'{"op_code": ' + b"9" * 5000 + b"}\n"],
)
def test_what_is_no_record_is_cut_off(line: bytes, search: Search) -> None:
    whole = SweepFolder(HERE).trials.read_bytes()
    SweepFolder(HERE).trials.write_bytes(whole + line)
    studies.mend(HERE, search)
    assert SweepFolder(HERE).trials.read_bytes() == whole
    examined(search)
