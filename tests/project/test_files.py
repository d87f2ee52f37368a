"""The page of the files on disk, and the JSON schemas, agree with the records and with what runs leave."""

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from samples import REPO, script

from mnist_exp import results
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
    schema = json.loads((REPO / "docs" / "schemas" / files.schema_name(file)).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(text), schema)


def test_what_a_search_and_its_runs_leave_fits_the_schemas(command: Callable[..., tuple[int, str, str]]) -> None:
    typed = ["-m", "search=tpe", "n_trials=2", "lr=interval(1e-3,1e-2)", "data=synthetic", "epochs=2", "hidden=8"]
    code, _, err = command(*typed, "hydra.sweep.dir=swept", "hydra.launcher.workers=1")
    assert code == 0, err
    sweep, run = SweepFolder(Path("swept")), RunFolder(Path("swept/1"))
    for path in (sweep.plan, sweep.study, run.ledger):
        check(path.name, path.read_text())
    for line in run.journal.read_text().splitlines():
        check("metrics.jsonl", line)
    assert {"number", "state", "lr", "final/val_accuracy"} <= set(sweep.table.read_text().split("\n")[0].split(","))
    assert len(results.load("swept")) == 2


def test_a_file_that_does_not_fit_is_found() -> None:
    with pytest.raises(jsonschema.ValidationError, match="'two' is not of type 'integer'"):
        check("ledger.json", '{"epoch": "two"}')
