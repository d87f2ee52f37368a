"""Points from a file: the rows of a table, each with the overrides of one run."""

import csv
from pathlib import Path
from typing import Any

import yaml

from mnist_exp.config import as_typed
from mnist_exp.errors import ConfigError, first_line

SHAPES = "A CSV file has keys in its first line; a YAML file has a list of mappings, or lists of equal length by key."


def rows(path: Path) -> list[list[str]]:
    """The overrides of each row of the CSV or YAML file *path*; an empty cell sets nothing.

    Raises:
        ConfigError: there is no such file, or it holds no table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = _csv(text) if path.suffix == ".csv" else _yaml(text)
    except (OSError, ValueError, csv.Error, yaml.YAMLError) as error:
        raise ConfigError(f"points={path} cannot be read: {first_line(error)}", SHAPES) from error
    if not any(found):
        raise ConfigError(f"points={path} has no points.", SHAPES)
    return [[f"{key}={value}" for key, value in row.items()] for row in found if row]


def _csv(text: str) -> list[dict[str, str]]:
    found = []
    for number, row in enumerate(csv.DictReader(text.splitlines(), strict=True, skipinitialspace=True), start=2):
        if None in row or None in row.values():
            raise ValueError(f"line {number} has more or fewer cells than the first one")
        found.append({key.strip(): value.strip() for key, value in row.items() if value.strip()})
    return found


def _yaml(text: str) -> list[dict[str, str]]:
    table: Any = yaml.safe_load(text)
    if isinstance(table, dict) and all(isinstance(values, list) for values in table.values()):
        if len({len(values) for values in table.values()}) > 1:
            sizes = ", ".join(f"{key} has {len(values)}" for key, values in table.items())
            raise ValueError(f"its lists differ in length: {sizes}")
        table = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        raise ValueError("it is no table")
    return [{str(key): as_typed(value) for key, value in row.items()} for row in table]
