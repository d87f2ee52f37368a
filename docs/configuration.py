"""Writes docs/configuration.md from the schema and from the files of conf/, with one command:

    python docs/configuration.py

tests/project/test_documents.py compares the page with them.
"""

import enum
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hydra_plugins.mnist_exp.launchers import LocalConf
from hydra_plugins.mnist_exp.sweepers import GridConf, OptunaConf, RaceConf
from mnist_exp import config
from mnist_exp.config import Config, compose, reference
from mnist_exp.config.reference import spelled

PAGE = Path(__file__).resolve().with_suffix(".md")
CONF = Path(config.conf_dir())
HEAD = """\
# Configuration

Every setting, with its type, default, meaning and rule. `python docs/configuration.py` writes this page from
`mnist_exp/config/schema.py` and `conf/`; `python -m mnist_exp.train --help all` shows the same in the terminal, and
`--help optimizer` what concerns one topic.

A setting is given as `key=value`, an option of a group as `group=option`; with `-m` several values, separated by
commas, are swept over. What a rule forbids, a number that float32 cannot hold, and every key that is not listed, is
refused before anything starts. Names that other tools have for a setting lead to ours: `learning_rate=0.1` asks whether
you meant `lr`, `hydra.launcher.n_jobs` whether you meant `hydra.launcher.workers`.

| to set | type |
| --- | --- |
| a list | `'hidden=[512,256]'`: in quotes, because a shell splits at spaces and expands brackets |
| a text with spaces, commas or brackets | `'name="wide (again)"'`: in both kinds of quotes |
| a keyword that its file does not list | `+optimizer.foreach=true` |
| one keyword for several options | `-m optimizer=sgd,muon optimizer.momentum=0.8`: each of them must have it |
| nothing of a group | `tracking=off`, `augment=none`; a group cannot be deleted (`~tracking`) |
| the options of Hydra | anywhere: `hidden=256 --config-dir mine --cfg job`; with `-m`, `--cfg` shows the first values |

A file of one's own for `--config-dir`, such as `mine/experiment/wide.yaml`, begins with `# @package _global_` where it
sets more than its own group, and writes `override /tracking: 'off'` with quotes: without them, YAML reads `false`.
"""
INSTEAD = """\
`python -m mnist_exp.train`, and then what is on the left. What cannot be meant is refused with exit code 2, and nothing
is written.

"""
TYPED = (
    ("learning_rate=0.1", "Did you mean 'lr'?"),
    ("weight_decay=0.1", "Did you mean 'optimizer.weight_decay'?"),
    ("-m hiden=16,32", "Did you mean 'hidden'?"),
    ("-m hidden=16,32 hydra.launcher.n_jobs=2", "Did you mean 'hydra.launcher.workers'?"),
    ("hidden=[64, 32]", "Write 'hidden=[64,32]'"),
    ("hidden=64,", "Write hidden=64"),
    ("hidden 64", "Write hidden=64"),
    ("--hidden 64", "Settings are written without dashes: hidden=64"),
    ("'hidden=[64,32'", "Write 'hidden=[64,32]'"),
    ("~tracking", "Write tracking=off"),
    ("~cluster", "'~cluster' leaves no choice of cluster"),
    ("-m hidden=16,32 resume=last,best", "a sweep has one resume."),
    ("-m 'hidden=range(64,16,16)'", "hidden=range(64,16,16) has no values."),
    ("-m 'optimizer=glob(x*)'", "There are: adam, adamw, muon, sgd"),
    ("-m search=random 'lr=tag(logarithmic,interval(1e-4,1e-1))'", "there is no tag logarithmic."),
    ("-m search=random 'hidden=[interval(8,16),interval(8,16)]'", "what varies cannot be inside a list."),
    ("--experimental-rerun config.pickle", "python -m mnist_exp.rerun RUN"),
    ("-m 'hidden=sort(range(16,70,20),reverse=true)' --dry-run", "#0  hidden=56"),
    ("-m augment=shift,affine augment.shift=1 --dry-run", "Dry run: 2 runs."),
    ("-m search=halving_grid 'hidden=range(16,65,16)' --dry-run", "Dry run: 4 trials"),
)
"""What is typed, and a part of what is said, as `tests/commands/test_cases.py` has it, which types each."""

TYPES = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`", types.NoneType: "`null`"}
GROUPS = {
    "model": "The network.",
    "optimizer": "The optimiser; each brings the learning rate that is usual for it.",
    "schedule": "The learning rate over time, as a factor of `lr`.",
    "augment": "How training images are varied, each time anew.",
    "callbacks": "Who else follows a run. Several: `'callbacks=[macro_f1,tensorboard]'`.",
    "data": "The images.",
    "tracking": "Where runs are compared.",
    "checkpoint": "What is kept for resuming.",
    "search": "With `-m`, how the values to try are chosen; see [Search, and prune](search.md).",
    "pruner": "Which runs of a search end early.",
    "cluster": "Where the jobs of a sweep run.",
}
"""Groups with an introduction, in order; others follow."""
SWEEPS = (
    ("", "hydra.launcher", LocalConf),
    ("With `search=grid`, `zip` and `points`:", "hydra.sweeper", GridConf),
    ("With `search=race`:", "hydra.sweeper", RaceConf),
    ("With any other `search=`:", "hydra.sweeper", OptunaConf),
)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page's text."""
    said = table(["typed", "said, among other things"], [[f"`{typed}`", said] for typed, said in TYPED])
    parts = [HEAD, f"## What you typed, what it says\n\n{INSTEAD}{said}", *settings(), "## Groups and their options\n"]
    folders = {path.parent.name for path in CONF.glob("*/*.yaml")} - {"experiment"}
    parts += [group(name) for name in [*GROUPS, *sorted(folders - set(GROUPS))]]
    parts += [experiments(), "## How sweeps run\n", *(sweeps(*entry) for entry in SWEEPS)]
    return "\n".join(parts)


def settings() -> Iterator[str]:
    """A table of the top settings, then one for each part."""
    plain = config.flatten(config.to_dict(compose()))
    chosen = {
        key: value
        for entry in yaml.safe_load((CONF / "train.yaml").read_text())["defaults"]
        if isinstance(entry, dict)
        for key, value in entry.items()
    }
    parts: dict[str, list[list[str]]] = {}
    for key, setting in config.settings().items():
        part, _, name = key.rpartition(".")
        kind = typing.get_type_hints(Config if not part else typing.get_type_hints(Config)[part])[name]
        if setting.default == {}:  # a node of its own, chosen as a whole, or nothing
            given = f"`{key}={chosen[key]}`" if key in chosen else "those of MNIST" if key == "data.sha256" else "none"
        else:
            given = f"`{spelled(plain[key])}`"
        row = [f"`{key}`", type_of(kind, setting.default), given, setting.help, setting.rule.text]
        parts.setdefault(part, []).append(row)
    for part, rows in parts.items():
        yield f"## {f'`{part}.…`' if part else 'Settings'}\n"
        yield table(["setting", "type", "default", "meaning", "rule"], rows)


def type_of(kind: Any, default: Any = 0) -> str:
    """A type in words: `whole number or null`; of one that may be a list, too, by its *default*."""
    if isinstance(kind, types.UnionType):
        return " or ".join(map(type_of, typing.get_args(kind)))
    if isinstance(kind, enum.EnumMeta):
        return " or ".join(f"`{name}`" for name in kind.__members__)
    if typing.get_origin(kind) is dict:
        return "keys and values"
    if typing.get_origin(kind) is list:
        return "list"
    return TYPES.get(kind, f"{TYPES[type(default)]} or list")


def group(name: str) -> str:
    """A table of the files of one folder of conf/, with description and settings."""
    rows = [[f"`{name}={option}`", *described(name, option)] for option in config.options(name)]
    return f"### `{name}`\n\n{GROUPS.get(name, '')}\n\n{table(['option', 'what it is', 'its settings'], rows)}"


def described(name: str, option: str) -> tuple[str, str]:
    """What a file of conf/ is, and its settings with their comments."""
    path = CONF / name / f"{option}.yaml"
    shown = [f"`{e.key}={e.value}`" + (f" ({e.meaning})" if e.meaning else "") for e in reference.of_file(path)]
    return reference.about(path), "<br>".join(shown)


def experiments() -> str:
    """A table of published recipes: expected result, cost and source."""
    rows = []
    for option in config.options("experiment"):
        text = (CONF / "experiment" / f"{option}.yaml").read_text().replace("\n#          ", " ")
        said = dict(re.findall(r"^# (Expect|Cost|Source): +(.*)$", text, re.MULTILINE))
        rows.append([f"`experiment={option}`", said["Expect"], said["Cost"], said["Source"]])
    return "### `experiment`\n\nWhole recipes, each on top of the defaults.\n\n" + table(
        ["option", "expect", "cost", "source"], rows
    )


def sweeps(when: str, prefix: str, kind: type) -> str:
    """A table of the options of the launcher or a sweeper, from the comments of their dataclass."""
    hints = typing.get_type_hints(kind)
    rows = []
    for each in reference.of_options(kind, prefix):
        hint = hints[each.key.rpartition(".")[2]]
        shown_type = "text or whole number" if hint is Any else type_of(hint)
        rows.append([f"`{each.key}`", shown_type, f"`{each.value}`", each.meaning])
    return (f"{when}\n\n" if when else "") + table(["setting", "type", "default", "meaning"], rows)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
