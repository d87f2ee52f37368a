"""Writes docs/schemas/ and the end of docs/files.md from the records of the package, with one command:

    python docs/files.py

tests/project/test_files.py compares them with the records, and with what a run and a sweep leave.
"""

import ast
import dataclasses
import inspect
import itertools
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NotRequired

import configuration
from omegaconf import MISSING
from pydantic import ConfigDict, Field, TypeAdapter, create_model
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from mnist_exp.config import Config
from mnist_exp.disk import journal
from mnist_exp.disk.lanes import PackRecord
from mnist_exp.disk.layout import RunFolder, State, SweepFolder
from mnist_exp.disk.ledger import Ledger
from mnist_exp.disk.plan import Plan
from mnist_exp.disk.tracked import Tracked, TrackedRun
from mnist_exp.report.board import SPLITS
from mnist_exp.results.ranking import FIELDS
from mnist_exp.search.study import Search

PAGE = Path(__file__).resolve().with_suffix(".md")
SCHEMAS = PAGE.parent / "schemas"
ROW = create_model("Row", epoch=(int, ...), **{key: (kind, ...) for key, kind in journal.REST.items()})  # type: ignore[call-overload]  # any fields
RECORDS: dict[str, tuple[str, Any]] = {
    RunFolder.ledger: ("The authoritative record of a run: what it is, how far it is, how it ended.", Ledger),
    RunFolder.journal: ("A line for each finished epoch, in order: optimiser steps so far, its end, its metrics.", ROW),
    SweepFolder.plan: ("The authoritative record of a sweep. Point *i* runs in the folder *i* beside it.", Plan),
    SweepFolder.study: ("How a search chooses its trials.", Search),
    RunFolder.lanes: ("Of a run that trained with others: the shapes that decide its last bits.", PackRecord),
    RunFolder.tracked: ("What MLflow has of a run.", TrackedRun),
    f"sweep-{SweepFolder.tracked}": (f"`{SweepFolder.tracked}` of a sweep: where MLflow shows it.", Tracked),
}
"""File → what it is, and its type."""


def settings(part: type) -> Any:
    """The type of what `config.yaml` has of *part* of the config: pydantic takes no dataclass with metadata of ours."""
    kinds, fields = typing.get_type_hints(part), {}
    for field in dataclasses.fields(part):
        about = dict(field.metadata)
        if "part" in about:
            fields[field.name] = settings(about["part"])
        elif about["default"] == MISSING:
            fields[field.name] = Annotated[kinds[field.name], Field(description=about["help"])]
        else:
            default = TypeAdapter(Any).dump_python(about["default"], mode="json")
            described = Field(description=about["help"], json_schema_extra={"default": default})
            fields[field.name] = NotRequired[Annotated[kinds[field.name], described]]
    return TypedDict(part.__name__, fields)  # type: ignore[operator]  # its fields are known here only


def row(name: str, columns: dict[str, Any]) -> Any:
    """The type of a row of a table, whose other columns are settings, or with a slash metrics."""
    kind = TypedDict(name, columns)  # type: ignore[operator]  # likewise
    metrics = {"patternProperties": {"/": {"anyOf": [{"type": "number"}, {"type": "null"}]}}}
    kind.__pydantic_config__ = ConfigDict(extra="allow", json_schema_extra=metrics)
    return kind


KINDS = {"number": int, "name": str | None, "state": State, "epoch": int, "seconds": float, "cpu_seconds": float}
KINDS |= {"parameters": int | None, "overrides": str}
SCORES = {f"{split}_{what}": NotRequired[float | None] for split in SPLITS for what in ("mean", "sd")}
COUNTS = {"n": int, "not_finished": str | None, "seconds": float | None, "parameters": int | None}
ROW_OF = "A row, with empty cells as null and what is a number as one."
OTHERS: dict[str, tuple[str, Any]] = {
    RunFolder.config: ("Every setting of a run, as it was started.", settings(Config)),
    SweepFolder.table: (f"A run of a sweep. {ROW_OF}", row("Run", {f: KINDS.get(f, str | None) for f in FIELDS})),
    SweepFolder.board: (f"A setting of a sweep. {ROW_OF}", row("Setting", COUNTS | SCORES)),
}
"""The same of what the page describes elsewhere."""
HEADING = "## Records\n"
"""What follows it on the page is written by this program."""
NOTE = "Keys without a meaning are settings of that name in [the configuration](configuration.md).\n"


def main() -> None:
    """Writes the page and the schemas."""
    PAGE.write_text(page(), encoding="utf-8")
    for name, text in schemas().items():
        (SCHEMAS / name).write_text(text, encoding="utf-8")


def page() -> str:
    """The page's text: what people have written, and the records."""
    written, heading, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    return "\n".join([written + heading, NOTE, *itertools.starmap(section, RECORDS.items())])


def section(file: str, record: tuple[str, Any]) -> str:
    """What the page says of a file."""
    about, kind = record
    described, schema = meanings(kind), TypeAdapter(kind).json_schema()
    rows = []
    for key, shape in schema["properties"].items():
        default = json.dumps(shape["default"]) if "default" in shape else ""
        rows.append([f"`{key}`", type_of(shape), f"`{default}`" if default else "", described.get(key, "")])
    table = configuration.table(["key", "type", "if absent", "meaning"], rows)
    return f"### `{file}`\n\n{about} [Schema](schemas/{schema_name(file)}).\n\n{table}"


def type_of(shape: dict[str, Any]) -> str:
    """A type of a JSON schema in words."""
    if "anyOf" in shape:
        return " or ".join(map(type_of, shape["anyOf"]))
    if shape.get("type") == "array":
        return f"list of {type_of(shape['items'])}"
    if shape.get("type") == "object" and isinstance(shape.get("additionalProperties"), dict):
        return f"object of {type_of(shape['additionalProperties'])}"
    return str(shape.get("type", "a [state](#states)" if "$ref" in shape else "any"))


def schemas() -> dict[str, str]:
    """File → the JSON schema of a record, as text. Readers ignore keys that they do not know."""
    texts = {}
    for file, (about, kind) in (RECORDS | OTHERS).items():
        schema, described = TypeAdapter(kind).json_schema(), meanings(kind)
        for key, shape in schema["properties"].items():
            shape.pop("title", None)
            if key in described:
                shape["description"] = described[key]
        head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": file}
        texts[schema_name(file)] = json.dumps(schema | head | {"description": about}, indent=2) + "\n"
    return texts


def schema_name(file: str) -> str:
    return f"{file.rpartition('.')[0]}.schema.json"


def meanings(kind: Any) -> dict[str, str]:
    """Key → the text below it in the source of its class."""
    return dict(itertools.chain.from_iterable(map(below, reversed(inspect.getmro(kind)))))


def below(kind: type) -> Iterator[tuple[str, str]]:
    """The attributes of a class of ours that have a text below them."""
    if not kind.__module__.startswith("mnist_exp."):
        return
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    for line, text in itertools.pairwise(definition.body):
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            target = line.target if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [None])[0]
            if isinstance(target, ast.Name):
                yield target.id, " ".join(str(text.value.value).split()).replace("None:", "null:")


if __name__ == "__main__":
    main()
