"""The config files that a command chooses: which one sets a key, and what Hydra does not take in them.

They are read only where there is an error to explain.
"""

import contextlib
import functools
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import yaml

from mnist_exp.config import choices, schema
from mnist_exp.config.guesses import NOTHING, closest, unknown_key
from mnist_exp.config.overrides import key_of, split
from mnist_exp.config.sweeps import reads
from mnist_exp.errors import ConfigError

LONGEST = 200  # characters of a name; a file system takes few more
HYDRAS = (
    "run.dir",
    "sweep.dir",
    "sweeper.params.hidden",
    "launcher.workers",
    "job_logging.root",
    "hydra_logging.root",
    "job.env_set.NAME",
)
"""What Hydra's own part has below what holds others."""
CHOICES = ("hydra/sweeper", "hydra/launcher", "hydra/job_logging", "hydra/hydra_logging")
"""Hydra's own groups."""
Fault = tuple[yaml.Node, str, str]
"""Where a file is at fault, what is wrong there, and the way out."""


@final
@dataclass(frozen=True)
class File:
    """The file of one option of a group."""

    group: str
    option: str
    folders: tuple[Path, ...]
    """Where files are looked for."""

    @functools.cached_property
    def path(self) -> Path | None:
        """The first that there is; None if there is none."""
        paths = (folder / self.group / f"{self.option}.yaml" for folder in self.folders)
        return next((path for path in paths if path.is_file()), None)

    @functools.cached_property
    def text(self) -> str:
        """What is in it; empty if it cannot be read."""
        with contextlib.suppress(OSError):
            return self.path.read_text(encoding="utf-8", errors="replace") if self.path else ""
        return ""

    @functools.cached_property
    def root(self) -> yaml.Node | None:
        """Its YAML, with lines; None if it is empty or none."""
        try:
            return yaml.compose(self.text, yaml.SafeLoader)
        except yaml.YAMLError:
            return None

    @property
    def prefix(self) -> str:
        """What its keys stand below: `optimizer.`, or nothing in a file with `# @package _global_`."""
        heads = [line.split()[-1] for line in self.text.splitlines() if line.startswith("# @package ")]
        package = next(iter(heads), "_group_").replace("_group_", self.group.replace("/", "."))
        return "" if package == "_global_" else f"{package}."

    def at(self, key: str) -> yaml.Node | None:
        """What it gives to *key*; None if it does not set that."""
        return _at(self.root, key.removeprefix(self.prefix).split(".")) if key.startswith(self.prefix) else None

    def options(self, group: str) -> list[str]:
        """The names of the files of *group*."""
        return sorted({path.stem for folder in self.folders for path in (folder / group).glob("*.yaml")})

    def error(self, node: yaml.Node, message: str, way_out: str) -> ConfigError:
        """The error about *node*, which is in this file."""
        assert self.path
        return in_file(self.path, node.start_mark, message, way_out)


def in_file(path: Path, mark: yaml.Mark, message: str, way_out: str) -> ConfigError:
    """The error about what stands at *mark* in the file *path*."""
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return ConfigError(f"{path.as_posix()}, line {mark.line + 1}: {message}", way_out)


def located(error: ConfigError, typed: Sequence[str], key: str = "") -> ConfigError:
    """*error*, with file and line in front if a file sets its *key*, and that was not *typed*.

    Args:
        key: As a rule the word with which the error begins.
    """
    if not key:
        key = re.split("[ =:]", error.message)[0]
        if key.partition(".")[0] not in {"hydra", *(each.partition(".")[0] for each in schema.settings())}:
            return error
    node = key.removesuffix("._target_")  # of which any keyword may be what it refuses
    if any(each == key or (node != key and each.startswith(f"{node}.")) for each in map(key_of, typed)):
        return error
    for file in reversed(_files(typed)):
        if at := file.at(key) or file.at(node):
            return file.error(at, error.message, _several(key, at) or error.help)
    if error.message == unset(key).message:  # by the file of an option, whose business it is
        owner = next((group for group, follows in schema.FOLLOWING if follows == key), key.partition(".")[0])
        beside = f" Or write there\n# @package _global_\n{key}: …\n{owner}:\n  …" if "." not in key else ""
        for file in reversed(_files(typed)):
            if file.group == owner and file.root:
                return file.error(file.root, error.message, error.help + beside)
    return fault(typed) or error


def _several(key: str, at: yaml.Node) -> str:
    """Where the values of *key* belong, if several stand *at* its place in a file; empty if it is one."""
    read = reads(f"{key}={at.value}") if isinstance(at, yaml.ScalarNode) else None
    several = read is not None and read.is_sweep_override()
    params = _nested(["hydra", "sweeper", "params", key], _shown(at))
    return f"To try several, with -m, write\n{params}" if several else ""


def unset(key: str) -> ConfigError:
    """The error for *key*, which has no value."""
    return ConfigError(f"{key} has no value.", f"Give one: {key}=…")


def fault(typed: Sequence[str]) -> ConfigError | None:
    """The first thing that Hydra does not take in the files that *typed* chooses; None if there is none."""
    return next((file.error(*each) for file in _files(typed) for each in _faults(file)), None)


def _folders(typed: Sequence[str]) -> tuple[Path, ...]:
    """Where files are looked for, in Hydra's order: our conf/, --config-dir, and what *typed* searches besides."""
    arguments = [part for word in sys.argv for part in (word.split("=", 1) if word.startswith("-") else [word])]
    named = [value for name, value in itertools.pairwise(arguments) if name in ("--config-dir", "-cd")]
    searched = ",".join(split(each)[2].strip("[]") for each in typed if key_of(each) == "hydra.searchpath")
    named += [each.strip("'\" ").removeprefix("file://") for each in searched.split(",") if each]
    return (Path(choices.conf_dir()), *(Path(each).absolute() for each in named))


def _files(typed: Sequence[str]) -> list[File]:
    """The files that *typed* chooses, each behind those that it begins with: what comes later counts.

    Experiments come last, as in train.yaml.
    """
    folders, files = _folders(typed), dict[File, None]()

    def add(group: str, option: str) -> None:
        file = File(group, option[:LONGEST], folders)
        if file in files or not file.path:
            return
        files[file] = None
        for name in (item.value for item in _defaults(file) if isinstance(item, yaml.ScalarNode)):
            above, _, last = (name if name.startswith("/") else f"{group}/{name}").strip("/").rpartition("/")
            add(above, last)
        files[file] = files.pop(file)

    choices_typed = [word for word in map(split, typed) if word[0] in choices.groups()]
    for group, _, value in sorted(choices_typed, key=lambda word: word[0] == "experiment"):
        for option in value.strip("[]").split(","):
            add(group, option)
    return list(files)


def _pairs(node: yaml.Node | None) -> list[Any]:
    """The names in *node* with their values; empty if it holds none."""
    return node.value if isinstance(node, yaml.MappingNode) else []


def _at(node: yaml.Node | None, keys: Sequence[str]) -> yaml.Node | None:
    """The value below *keys* in *node*; None if they are not there."""
    for key in keys:
        node = next((value for name, value in _pairs(node) if name.value == key), None)
    return node


def _defaults(file: File) -> list[yaml.Node]:
    """The items of its list of defaults."""
    items = _at(file.root, ["defaults"])
    return items.value if isinstance(items, yaml.SequenceNode) else []


def _faults(file: File) -> Iterator[Fault]:
    """What Hydra does not take in *file*."""
    mappings, groups = _mappings(), choices.groups()
    if file.root and not isinstance(file.root, yaml.MappingNode):
        yield file.root, "it holds no names with values.", "Such as hidden: 64"
    for name, value in _pairs(file.root):
        key = f"{file.prefix}{name.value}"
        if name.value == "defaults":
            yield from _of_defaults(file, value)
        elif name.value.startswith("override "):
            yield name, f"{name.value} belongs in the list of defaults.", f"Write\n{_list(name, value)}"
        elif "." in name.value and key.partition(".")[0] in mappings:
            path = key.split(".")
            path = path[1:] if tuple(path) in schema.FOLLOWING else path
            reason = f"{name.value} has a dot; in a file, what is in a group stands below it."
            yield name, reason, f"Write\n{_nested(path, _shown(value))}"
        elif name.value.strip("/") in CHOICES:
            yield name, f"{name.value} is chosen in the list of defaults.", f"Write\n{_list(name, value)}"
        elif key in groups and not (key in mappings and isinstance(value, yaml.MappingNode)):
            yield value, f"{key} is chosen in the list of defaults.", f"Write\n{_list(name, value)}"
    for key in sorted(mappings):
        held = file.at(key)
        if held and not isinstance(held, yaml.MappingNode):
            first, group = mappings[key].partition(".")[0], key.replace(".", "/")
            way_out = f"Write them below it, such as {first}: …, or drop it."
            if group in CHOICES and held.tag.endswith(":str"):
                way_out = f"Write\n{_list(yaml.ScalarNode('', group), held)}"
            yield held, f"{key} holds names with values, but got {_shown(held)}.", way_out


def holds_names(key: str, value: str = "…") -> ConfigError:
    """The error for a *value* that was typed for *key*, which holds others."""
    group = key.replace(".", "/")
    way_out = f"Write {group}={value}" if group in CHOICES else f"Such as {key}.{_mappings().get(key, 'name')}=…"
    return ConfigError(f"{key} holds names with values.", way_out)


def _nested(path: Sequence[str], value: str) -> str:
    """*value* below the keys of *path*, as a file has it."""
    return "\n".join(f"{'  ' * depth}{each}:" for depth, each in enumerate(path)) + f" {value}"


def _list(name: yaml.Node, value: yaml.Node) -> str:
    """The list of defaults that chooses *value* of the group *name*."""
    return f"defaults:\n  {_override(name.value.removeprefix('override ').strip('/ '), value)}"


def _mappings() -> dict[str, str]:
    """The keys that hold others, each with what one of these has below it."""
    keys = [*schema.settings(), *(f"{key}.name" for key, each in schema.settings().items() if each.default == {})]
    keys += [f"hydra.{key}" for key in HYDRAS]
    holding: dict[str, str] = {}
    for path in (key.split(".") for key in keys):
        for depth in range(1, len(path)):
            holding.setdefault(".".join(path[:depth]), ".".join(path[depth:]))
    return holding


def _override(group: str, value: yaml.Node, options: Sequence[str] = ()) -> str:
    """The item of a list of defaults that chooses what is nearest to *value*."""
    word = _shown(value)
    options = [word] if group in CHOICES else options or choices.options(group)
    if group == "experiment":
        return f"- {word}"
    if isinstance(value, yaml.ScalarNode) and word not in options:
        nothing = choices.nothing(group).partition("=")[2]
        word = nothing if nothing and word.lower() in NOTHING else closest(word.lower(), options) or "…"
    return f"- override /{group}: {word if word == str(yaml.safe_load(word)) else repr(word)}"


def _shown(node: yaml.Node) -> str:
    """*node* as it is written in a file."""
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(map(_shown, node.value))}]"
    return node.value if isinstance(node, yaml.ScalarNode) else "…"


def _of_defaults(file: File, defaults: yaml.Node) -> Iterator[Fault]:
    """What Hydra does not take in the list of *defaults* of *file*."""
    if not isinstance(defaults, yaml.SequenceNode):
        yield defaults, "defaults is no list.", "Write\ndefaults:\n  - override /optimizer: sgd"
    before: list[str] = []
    for item in _defaults(file):
        named = isinstance(item, yaml.ScalarNode)
        yield from (_of_name if named else _of_choice)(file, item)
        word = item.value if named else item.value[0][0].value
        if word == "_self_" in before:
            yield item, "_self_ is there twice.", "Drop this line."
        if before and before[-1].startswith("override ") and not word.startswith("override "):
            yield item, "what overrides a choice comes last in the list of defaults.", "Move this line up."
        before.append(word)


def _of_name(file: File, item: yaml.Node) -> Iterator[Fault]:
    """What is wrong with *item*, which names another file to begin with."""
    name = item.value.removeprefix("override ").strip()
    group, _, option = name.strip("/").replace(" ", "=").partition("=")
    if group in choices.groups() and option:
        chosen = yaml.ScalarNode("", option)
        yield item, f"{item.value} is no item of a list of defaults.", f"Write {_override(group, chosen)}"
    elif name == file.option:
        yield item, "the file begins with itself.", "Drop that line, or give the file another name."
    elif "/" not in name and name != "_self_" and name not in file.options(file.group):
        owner = next((each for each in choices.groups() if name in choices.options(each)), "")
        near = closest(name, file.options(file.group))
        written = _override(owner, item) if owner else near and f"- {near}"
        yield item, f"there is no {file.group} called {name!r}.", f"Write {written}" if written else "Drop it."


def _of_choice(file: File, item: yaml.Node) -> Iterator[Fault]:
    """What is wrong with *item*, which chooses an option of a group."""
    key, value = item.value[0]
    keywords = key.value.split()
    group = keywords[-1].partition("@")[0].strip("/")
    if group == "pruner":  # conf/search adds it
        return
    options = [_shown(value)] if group in CHOICES else file.options(group)
    if group == file.group == "experiment":
        yield item, "an experiment begins with another by its name alone.", f"Write {_override(group, value)}"
    elif group not in (*choices.groups(), *CHOICES):
        if group in schema.settings():
            yield item, f"{group} has no options.", f"Write it below the list of defaults: {group}: {_shown(value)}"
        elif not options and "override" in keywords:
            error = unknown_key(group)
            yield item, error.message, error.help
    elif not ("override" in keywords and keywords[-1].startswith("/")):
        reason = f"{group} is chosen already, and its choice is overridden."
        yield item, reason, f"Write {_override(group, value, options)}"
    elif isinstance(value, yaml.ScalarNode):
        if not value.tag.endswith(":str"):
            reason = f"{group} takes the name of an option, and {value.value or 'nothing'} is none without quotes."
            yield item, reason, f"Write {_override(group, value, options)}"
        elif value.value not in options:
            way_out = f"There are: {', '.join(options)}. Write {_override(group, value, options)}"
            yield item, f"there is no {group} called {value.value!r}.", way_out
