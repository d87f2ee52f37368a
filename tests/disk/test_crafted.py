"""Records that somebody has crafted: whatever a field holds, a command ends with a sentence and its exit code."""

import dataclasses
import enum
import json
import math
import random
import re
import shutil
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_fixtures import make_sweep
from samples import TINY

from mnist_exp import config, remove
from mnist_exp.console import exits
from mnist_exp.disk import lanes
from mnist_exp.disk.files import read_json, write_json
from mnist_exp.disk.lanes import PackRecord
from mnist_exp.disk.ledger import Ledger
from mnist_exp.disk.plan import Plan
from mnist_exp.disk.tracked import TrackedRun
from mnist_exp.report import __main__ as report
from mnist_exp.search.study import Search
from mnist_exp.ui.mlflow import MLflow
from mnist_exp.ui.server import Server

RECORDS = {
    "sweep.json": Plan,
    "study.json": Search,
    "mlflow.json": TrackedRun,
    "0/ledger.json": Ledger,
    "0/mlflow.json": TrackedRun,
    "0/pack.json": PackRecord,
}
FIELDS = [
    pytest.param(record, field.name, marks=pytest.mark.slow if "/" in record else pytest.mark.integration)
    for record, kind in RECORDS.items()
    for field in dataclasses.fields(kind)
]
"""Of a sweep's records; those of a run are many, and slow."""
MARKUP = "<script>alert(1)</script>"
CONTROL = set("\x1b\x07\u202e")
TEXTS = (
    "",
    "../../x",
    "http://127.0.0.1:9/x",
    f"\x1b]0;\x07\n{MARKUP}\u202e",
    "${oc.env:HOME}",
    "lr=1e999",
    "x" * 9999,
)
NUMBERS = (0, -1, 7, -(2**63), 2**63 - 1)
NODE = {"_target_": f"optuna.samplers.{MARKUP}"}
SEARCH = Search(study="s", n_trials=1, sampler={"_target_": "optuna.samplers.RandomSampler"})
SHOWN = Path("outputs/sweeps/2026-01-31/theirs")
TYPES: tuple[Any, ...] = (None, True, 1.5, math.nan, 10**30, "x", [], [[]], [None], {}, {"x": {"y": [1]}})
"""Of these most are of another type than a field, whichever it is."""


def hostile(kind: Any) -> list[Any]:
    """Values of the type *kind* that no command writes."""
    origin, args = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is types.UnionType:
        return [value for each in args for value in hostile(each)]
    if origin is list:
        return [[each] for each in hostile(args[0])]
    if origin is dict:
        return [NODE, {"_target_": 5}] if args[1] is Any else [{text[:99]: hostile(args[1])[0]} for text in TEXTS]
    if issubclass(origin, enum.Enum):
        return list(map(str, origin))
    return list({bool: (False,), int: NUMBERS, float: (*NUMBERS, 1e300), str: TEXTS}.get(origin, ()))


@pytest.fixture
def theirs(finished: Callable[..., Path]) -> Path:
    """A search of two runs, which have finished, outside of outputs/."""
    folder = Path(shutil.move(make_sweep(Path("made"), [[*TINY, "lr=0.001"], [*TINY, "lr=0.1"]]), "theirs"))
    shutil.rmtree("made")
    own = config.to_dict(config.load(finished(folder / "0") / "config.yaml"))
    lane = {key: own[key] for key in lanes.OWN}
    pack = PackRecord(pack="a", lane=0, lanes=[lane, lane], first=".")
    for name, record in {"study.json": SEARCH, "mlflow.json": {}, "0/mlflow.json": {}, "0/pack.json": pack}.items():
        write_json(folder / name, dataclasses.asdict(record) if isinstance(record, Search | PackRecord) else record)
    plan = read_json(folder / "sweep.json")
    write_json(folder / "sweep.json", {**plan, "keys": ["lr"], "typed": [*TINY, "search=random", "lr=0.1,0.001"]})
    entry = read_json(finished(folder / "1") / "ledger.json")
    entry["params"]["lr"] = 0.1
    write_json(folder / "1" / "ledger.json", entry)
    return folder


def files() -> set[Path]:
    return {path for path in Path().rglob("*") if not path.is_relative_to("theirs")}


@pytest.mark.parametrize(("record", "field"), FIELDS)
def test_whatever_a_field_holds_commands_end_with_a_sentence(
    record: str, field: str, theirs: Path, command: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written elsewhere, and no page has markup of it."""
    chosen, plain = random.Random(f"{record} {field}"), read_json(theirs / record)
    values = hostile(typing.get_type_hints(RECORDS[record])[field])
    for value in (chosen.choice(TYPES), *(values if len(values) < 3 else [chosen.choice(values)])):
        (theirs / record).write_text(json.dumps({**plain, field: value}))
        shutil.copytree(theirs, SHOWN, dirs_exist_ok=True)
        before = files()
        ends = [command("-m", "resume=theirs", "n_trials=2", "hydra/launcher=basic", "hydra.sweeper.report=false")]
        for main, *typed in ((report.main, "theirs"), (remove.main, "theirs", "--keep=1", "--dry-run")):
            ends.append((exits.run(lambda: main(typed)), *capsys.readouterr()))  # noqa: B023
        with Server(0, Path("outputs"), MLflow(wanted=False)) as server:
            pages = [server.index(), *(path.read_text() for path in theirs.glob("**/*.html"))]
        assert files() == before
        assert not any(MARKUP in page or CONTROL & set(page) for page in pages)
        for code, out, err in ends:
            assert code in (0, 1, 2), value
            assert ("error: " in err) == (code > 0), value
            assert not {"Traceback", " (in "} & set(re.findall(r"Traceback| \(in ", out + err)), (value, err[-1000:])
            assert not CONTROL & set(out + err), value
