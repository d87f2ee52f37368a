"""What can be set besides the schema, and what it means: by the comments of `conf/` and of the plugins' options."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from omegaconf import MISSING, OmegaConf

from mnist_exp.config.identity import flatten
from mnist_exp.config.overrides import as_typed
from mnist_exp.config.schema import FOLLOWING


@final
@dataclass(frozen=True)
class Described:
    """One key."""

    key: str
    """Dotted, as one types it."""
    value: str
    """Its value, as one types it."""
    meaning: str
    """Empty if nothing says."""


def spelled(value: Any) -> str:
    """A value in the syntax of an override: `null`, `true`, `[0.5,0.75]`."""
    return "…" if value == MISSING else as_typed(value)


def about(path: Path) -> str:
    """What the file *path* of `conf/` says of itself, in its first comment."""
    head = re.match(r"(?:# @package.*\n)?((?:# .*\n)*)", path.read_text(encoding="utf-8"))
    return " ".join(line.removeprefix("# ") for line in head[1].splitlines()) if head else ""


def of_file(path: Path) -> Iterator[Described]:
    """What the file *path* of `conf/` sets, each with the comment beside it, but for its `_target_`."""
    text = path.read_text(encoding="utf-8")
    # Comments by the last key of their setting.
    notes = {key: note for key, note in re.findall(r"^ *([\w.-]+):.*?\S\s+# (.+)$", text, re.MULTILINE)}
    plain: Any = OmegaConf.to_container(OmegaConf.create(text))
    package = re.match(r"# @package (\S+)", text)
    follow = {f"{group}.{followed}" for group, followed in FOLLOWING}
    prefix = f"{package[1] if package else path.parent.name}.".removeprefix("_global_.")
    for key, value in flatten(plain, keep_empty=True).items():
        name, note = f"{prefix}{key}", notes.get(key.rpartition(".")[2], "")
        if "_target_" in key or key == "defaults" or name in follow or ".sha256" in f".{key}":
            continue
        if value != {} or note:  # an empty mapping by itself is no choice of anything
            yield Described(name, spelled(value), note)


def of_options(kind: type, prefix: str) -> Iterator[Described]:
    """The options of a launcher or a sweeper, from the comments of its dataclass *kind*."""
    for name, default, meaning in re.findall(
        r"^    (\w+): .*? = (.*?)  # (.*)$", inspect.getsource(kind), re.MULTILINE
    ):
        value = "{}" if "dict)" in default else "[]" if "list)" in default else spelled(ast.literal_eval(default))
        yield Described(f"{prefix}.{name}", value, meaning)
