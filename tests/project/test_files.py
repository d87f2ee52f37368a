"""The page of the files on disk, and the JSON schemas, agree with the records and with what runs leave."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from samples import REPO, script

from mnist_exp import results
from mnist_exp.config.schema import parts
from mnist_exp.disk.layout import Entry, RunFolder, SweepFolder
from mnist_exp.results.ranking import FIELDS

files = script("files")


def test_the_page_and_the_schemas_are_up_to_date() -> None:
    assert files.page() == files.PAGE.read_text(), "run: python docs/files.py"
    assert files.schemas() == {path.name: path.read_text() for path in files.SCHEMAS.iterdir()}


def test_the_page_has_every_file_and_every_column() -> None:
    written, _, _ = files.page().partition(files.HEADING)
    entries = [entry for kind in (*RunFolder.__mro__, *SweepFolder.__mro__) for entry in vars(kind).values()]
    for name in [entry.name for entry in entries if isinstance(entry, Entry)]:
        assert f"`{name}" in written, name
    for column in FIELDS:
        assert f"`{column}`" in written, column


def check(file: str, text: str) -> None:
    check_value(file, json.loads(text))


def check_value(file: str, value: object) -> None:
    schema = schema_of(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema)


def schema_of(file: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((REPO / "docs" / "schemas" / files.schema_name(file)).read_text())
    return schema


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, with cells that the schema has as numbers read as such, and empty ones as null."""
    known = schema_of(path.name)["properties"]

    def read(column: str, cell: str) -> Any:
        shape = known.get(column, {"type": "number"} if "/" in column else {})
        kinds = {each.get("type") for each in (shape, *shape.get("anyOf", []))}
        return json.loads(cell) if cell and kinds & {"number", "integer"} else cell or None

    with path.open(newline="") as file:
        return [{column: read(column, cell) for column, cell in row.items()} for row in csv.DictReader(file)]


@pytest.mark.integration
def test_what_a_search_and_its_runs_leave_fits_the_schemas(command: Callable[..., tuple[int, str, str]]) -> None:
    typed = ["-m", "search=tpe", "n_trials=2", "lr=interval(1e-3,1e-2)", "data=synthetic", "epochs=2", "hidden=8"]
    code, _, err = command(*typed, "hydra.sweep.dir=swept", "hydra.launcher.workers=1")
    assert code == 0, err
    sweep, run = SweepFolder(Path("swept")), RunFolder(Path("swept/1"))
    for path in (sweep.plan, sweep.study, run.ledger):
        check(path.name, path.read_text())
    for line in run.journal.read_text().splitlines():
        check("metrics.jsonl", line)
    for table in (sweep.table, sweep.board):
        assert len(rows(table)) == 2
        for row in rows(table):
            check_value(table.name, row)
    assert {"number", "state", "lr", "final/val_accuracy"} <= set(rows(sweep.table)[0])
    settings = yaml.safe_load(run.config.read_text())
    check_value(run.config.name, settings)
    schema = schema_of(run.config.name)
    assert set(settings) == set(schema["properties"])
    assert set(settings["data"]) == set(schema["$defs"]["Data"]["properties"])
    assert len(results.load("swept")) == 2


def test_a_file_that_does_not_fit_is_found() -> None:
    with pytest.raises(jsonschema.ValidationError, match="'two' is not of type 'integer'"):
        check("ledger.json", '{"epoch": "two"}')
    rest: dict[str, dict[str, Any]] = {part: {} for part in parts() if part != "data"}
    with pytest.raises(jsonschema.ValidationError, match="'two' is not of type 'integer'"):
        check_value("config.yaml", {"lr": 1e-3, "data": {"name": "a", "val_size": "two"}} | rest)
    with pytest.raises(jsonschema.ValidationError, match="' is a required property"):
        check_value("runs.csv", {"number": 0})
