"""`--help` of training: short by itself, and more about a topic, such as `--help optimizer` or `--help all`.

The settings come from the schema, with the values of the composed config; choices and their keywords from the files
of `conf/` and of folders that were given with --config-dir; the options of launchers and sweepers from their classes.
"""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from mnist_exp.config import choices, reference, schema
from mnist_exp.config.guesses import closest, guess
from mnist_exp.config.overrides import override
from mnist_exp.config.reference import Described, spelled
from mnist_exp.config.schema import within
from mnist_exp.errors import ConfigError

SHORT, ALL = "short", "all"
BESIDES = {"launcher": "hydra.launcher", "sweeper": "hydra.sweeper"}
"""Topics that are not called as their keys begin."""
OPTIONS = (
    ("With cluster=local", "hydra.launcher", "launcher/local"),
    ("With search=grid, zip or points", "hydra.sweeper", "sweeper/grid"),
    ("With search=race", "hydra.sweeper", "sweeper/race"),
    ("With any other search", "hydra.sweeper", "sweeper/optuna"),
)
"""Heading, keys and node of the options of our launcher and sweepers."""
COLUMN, WIDEST = 40, 100  # where meanings begin, at most; where lines end, in a terminal
HEAD = """\
Trains a small image classifier and logs it to MLflow; -m sweeps any setting.

Examples
  python -m mnist_exp.train                                     the defaults
  python -m mnist_exp.train hidden=256
  python -m mnist_exp.train 'hidden=[512,256]' optimizer=sgd epochs=20
  python -m mnist_exp.train -m hidden=64,128,256 lr=1e-3,3e-3   a grid: six runs
  mlflow ui                                                     compare them all"""


def register() -> None:
    """Registers `page` as a resolver of Hydra, whose template it is; can be repeated."""
    OmegaConf.register_new_resolver("mnist_exp.help", page, replace=True)


def asked(typed: Sequence[str]) -> list[str]:
    """What is *typed* for a command with --help as overrides: those that are none are its topics.

    Raises:
        ConfigError: nothing is called like that.
    """
    topics = [word for word in typed if "=" not in word]
    known = {ALL, *BESIDES, *schema.parts(), *choices.groups(), *_keys()}
    for i, topic in enumerate(topics):
        if topic not in known and not any(key.startswith(f"{topic}.") for key in known):
            near = guess(topic) or closest(topic, known)
            if near.partition("=")[0] not in known:
                raise ConfigError(f"There is no help about {topic!r}.", f"Topics: {', '.join(_topics())}, or any key.")
            topics[i] = near.partition("=")[0]
    Hydra.format_config_groups = lambda *_: ""  # for a second it would list what our template has no place for
    return [*(word for word in typed if "=" in word), override("hydra.help.header", " ".join(topics) or SHORT)]


def page(topics: str, *, _root_: DictConfig) -> str:
    """The text about *topics*, with the values of the composed config *_root_*."""
    blocks = _short(_root_) if topics == SHORT else _about(topics.split(), _root_)
    return "\n\n".join(blocks).replace("$", "$$")  # Hydra fills in the template with string.Template


def _short(root: DictConfig) -> Iterator[str]:
    yield HEAD
    yield _entries("Settings (key=value)", [entry for entry in _settings(root) if "." not in entry.key])
    yield _choices(root)
    more = [
        ("--help all", "every setting, and every choice with its keywords"),
        ("--help TOPIC", f"one of {', '.join(_topics())}, or any key"),
        ("-m … --dry-run", "what a sweep would run"),
        ("--cfg job", "the composed config"),
        ("-sc install=bash", "the line that switches on tab completion (console script mnist-exp)"),
        ("--hydra-help", "Hydra's own options"),
        ("python -m mnist_exp", "the other commands"),
    ]
    yield _block("More", more)


def _about(topics: Sequence[str], root: DictConfig) -> Iterator[str]:
    """Blocks with all that *topics* names."""
    names = [BESIDES.get(topic, topic) for topic in topics]
    everything = ALL in names
    if everything:
        yield HEAD

    def wanted(entries: Iterable[Described]) -> list[Described]:
        return [entry for entry in entries if everything or within(entry.key, names)]

    if settings := wanted(_settings(root)):
        yield _entries("Settings (key=value)", settings)
    if everything:
        yield _choices(root)
    for group, files in _files(root).items():
        whole = everything or group in names
        for path in files:
            entries = list(reference.of_file(path))
            entries = [] if group in schema.parts() or group == "experiment" else entries if whole else wanted(entries)
            if whole or entries:
                yield _entries(f"{group}={path.stem}: {reference.about(path)}", entries)
    for heading, prefix, node in OPTIONS:
        if entries := wanted(reference.of_options(_class(node), prefix)):
            yield _entries(heading, entries)


def _settings(root: DictConfig) -> Iterator[Described]:
    """Those of the schema, with their values; of a group, what was chosen."""
    chosen = root.hydra.runtime.choices
    for key, setting in schema.settings().items():
        value = OmegaConf.select(root, key)
        if setting.default == {}:
            shown = str(chosen[key]) if key in chosen else "{…}" if value else "{}"
        else:
            plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else getattr(value, "name", value)
            shown = spelled(plain)
        yield Described(key, shown, setting.meaning)


def _choices(root: DictConfig) -> str:
    options = [(f"{group}:", ", ".join(path.stem for path in files)) for group, files in _files(root).items()]
    return _block("Choices (group=option)", options)


def _files(root: DictConfig) -> dict[str, list[Path]]:
    """The files of `conf/`, and of folders beside it, by group."""
    folders = [source.path for source in root.hydra.runtime.config_sources if source.schema == "file" and source.path]
    files: dict[str, list[Path]] = {}
    for path in sorted({path for folder in folders for path in Path(folder).glob("*/*.yaml")}):
        files.setdefault(path.parent.name, []).append(path)
    return dict(sorted(files.items()))


def _keys() -> Iterator[str]:
    """Each key that there is help about, but for those of folders of the user's."""
    yield from schema.settings()
    paths = Path(choices.conf_dir()).glob("*/*.yaml")
    for entries in (*map(reference.of_file, paths), *(reference.of_options(_class(n), p) for _, p, n in OPTIONS)):
        yield from (entry.key for entry in entries)


def _topics() -> list[str]:
    return list(dict.fromkeys([*schema.parts(), *choices.groups(), *BESIDES]))


def _class(node: str) -> type:
    """The dataclass of that launcher or sweeper."""
    Plugins.instance()  # registers them
    kind = OmegaConf.get_type(ConfigStore.instance().load(f"hydra/{node}.yaml").node)
    assert kind
    return kind


def _entries(heading: str, entries: Sequence[Described]) -> str:
    return _block(heading, [(f"{each.key}={each.value}", each.meaning) for each in entries])


def _block(heading: str, lines: Sequence[tuple[str, str]]) -> str:
    """*heading*, and below it names with what they mean; a terminal gets lines that fit, a pipe one for each name."""
    column = min(COLUMN, max((len(name) for name, _ in lines), default=0) + 4)
    text = _wrapped(heading, "")
    for name, meaning in lines:
        left = f"  {name}".ljust(column)
        if len(left) > column and sys.stdout.isatty() and meaning:
            text += [left.rstrip(), *_wrapped(" " * column + meaning, " " * column)]
        else:
            text += _wrapped(f"{left}{'  ' if len(left) > column else ''}{meaning}".rstrip(), " " * column)
    return "\n".join(text)


def _wrapped(text: str, indent: str) -> list[str]:
    """*text* as lines that fit the terminal; one line for a pipe, where people search it."""
    if not sys.stdout.isatty():
        return [text]
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
