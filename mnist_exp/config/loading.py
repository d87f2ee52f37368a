"""From composed YAML to a checked `Config`, and back: the one place where Hydra's config becomes ours.

Below `parse` there is no DictConfig: typed dataclasses only.
"""

import contextlib
import dataclasses
import operator
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mnist_exp.config import choices, folders, schema, secrets, stores
from mnist_exp.config.choices import conf_dir
from mnist_exp.config.chosen import unset
from mnist_exp.config.explain import explained, translate
from mnist_exp.config.guesses import meant, unknown_key
from mnist_exp.config.identity import flatten, label, to_dict
from mnist_exp.config.overrides import DEEPEST, check_deletions, check_once, check_text, compact, deleted_key
from mnist_exp.config.schema import FOLLOWING, Config, Data
from mnist_exp.errors import ConfigError, first_line

LONGEST = 2**20  # characters of a run's config; one of the usual ones has 2,000, and 3 levels
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast


def register() -> None:
    """Makes the schema and the resolvers known to Hydra; safe to call again."""
    ConfigStore.instance().store(name="_schema", node=Config, provider="mnist_exp")
    add = OmegaConf.register_new_resolver
    add("mnist_exp.new_folder", new_folder, use_cache=True, replace=True)
    add("mnist_exp.subdir", lambda resume: None if resume else ".hydra", replace=True)  # None: it is written already
    add("mnist_exp.pictures", folders.described, use_cache=True, replace=True)
    add("mnist_exp.gpus", lambda device: 1 if "cuda" in device else None, replace=True)


def unique() -> str:
    """Six random hexadecimal digits: two sweeps started in one second get two folders."""
    return token_hex(3)


def new_folder(root: str) -> str:
    """A new folder for a run or a sweep below *root*, named in UTC."""
    return f"{root}/{time.strftime('%Y-%m-%d/%H-%M-%S', time.gmtime())}-{unique()}"


def compose(overrides: Sequence[str] = ()) -> Config:
    """What `python -m mnist_exp.train <overrides>` would train, without the command line.

    Args:
        overrides: As one types them: `["hidden=256", "optimizer=sgd"]`. One run, no sweep.

    Raises:
        ConfigError: an override does not fit, in the words of the command line.
    """
    register()
    check_text(overrides)
    check_deletions(overrides)
    check_once(overrides)
    try:
        with _own_hydra():
            return parse(hydra.compose("train", list(overrides)))
    except Exception as error:
        if (ours := explained(error, overrides)) is error:
            raise
        raise ours from error


@contextlib.contextmanager
def _own_hydra() -> Iterator[None]:
    """Hydra with our conf/; afterwards what the user's own `hydra.initialize` has set up counts again."""
    theirs, version = GlobalHydra.instance().hydra, VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(conf_dir(), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra, VersionBase.instance().version_base = theirs, version


def parse(cfg: DictConfig) -> Config:
    """The composed config as dataclasses.

    Raises:
        ConfigError: a key is unknown or missing, or a value breaks its rule, or $MLFLOW_TRACKING_URI does.
    """
    config = typed(cfg)
    if "hidden" not in config.model and "${hidden}" not in str(OmegaConf.to_container(cfg)):
        if config.hidden not in (None, Config.hidden):
            reason = f"hidden={compact(config.hidden)} would change nothing: {label(config.model)} has no such setting."
            raise ConfigError(reason, "Drop it. Where a file sets it: hidden=null.")
        config.hidden = None
    if config.tracking.enabled:
        stores.uri_for(config.tracking.uri)  # or it would be known after training
    return config


def without_hydra(composed: DictConfig) -> DictConfig:
    """*composed*, which loses Hydra's part: what `parse` takes."""
    with open_dict(composed):
        del composed["hydra"]
    return composed


def typed(cfg: DictConfig) -> Config:
    """As `parse`, for a config that was parsed before and has no references left."""
    _check_keys(Config, cfg, "")
    for group in choices.nodes():
        if group in (cfg.get(group) or {}):
            reason = f"{group}.{group} is set: the file of that option sets more than {group}."
            raise ConfigError(reason, "Make its first line: # @package _global_")
    for part, cls in schema.parts().items():
        if isinstance(node := cfg.get(part), DictConfig):
            _check_keys(cls, node, f"{part}.")
    try:
        config = OmegaConf.to_object(cfg)
    except MissingMandatoryValue as error:
        raise unset(str(error.full_key)) from error
    except OmegaConfBaseException as error:
        raise translate(error, []) from error
    assert isinstance(config, Config)
    check(config)
    return config


def check(config: Config) -> None:
    """Raises ConfigError, with the rule, the value and a way out, if *config* holds a secret or breaks a rule."""
    if key := secrets.first(to_dict(config)):
        raise secrets.refusal(key)
    for key, setting in schema.settings().items():
        value = operator.attrgetter(key)(config)
        try:
            setting.check(value)
        except ConfigError as error:
            raise ConfigError(error.message, meant(key, value) or error.help) from error
    if config.hidden is None and "hidden" in config.model:
        schema.settings()["hidden"].rule.check("hidden", None)
    for group, key in FOLLOWING:
        wanted = getattr(config, key)
        got = getattr(config, group).get(key, wanted)
        if got != wanted:  # what is trained and what is logged would differ
            raise ConfigError(f"{group}.{key} follows {key}={compact(wanted)}, but got {got!r}.", f"Set {key} instead.")
    data = config.data
    _check_folds(data)
    if not data.folds and not 0 <= data.val_size < data.train_images:
        raise ConfigError(
            f"data.val_size must be between 0 and {data.train_images - 1} "
            f"(training images - 1), but got {data.val_size}.",
            f"Try data.val_size={min(5000, data.train_images // 10)}, or 0 for no validation.",
        )
    if data.classes and len(data.classes) != data.num_classes:
        reason = f"data.classes has {len(data.classes)} names, but data.num_classes is {data.num_classes}."
        raise ConfigError(reason, "Give as many names, or data.classes=null for the labels.")
    for key in ("mean", "std"):
        value = getattr(data, key)
        if isinstance(value, list) and len(value) != data.channels:
            reason = f"data.{key} has {len(value)} numbers, but data.channels is {data.channels}."
            raise ConfigError(reason, "Give one for each channel, or one for all.")
    if config.augment.get("mirror") and not data.mirrors:
        raise ConfigError(
            f"augment.mirror turns images round, but those of {data.name} are others then (data.mirrors=false).",
            "Choose another augmentation. Where a mirror image shows the same class: data.mirrors=true.",
        )
    rest = data.train_images - data.validating
    if data.limit is not None and not data.num_classes <= data.limit <= rest:
        raise ConfigError(
            f"data.limit must be between {data.num_classes} (one image of each class) and {rest} (the training images "
            f"that do not validate), but got {data.limit}.",
            "data.limit=null trains on all.",
        )
    if config.training.patience is not None and not data.validating:
        reason = "training.patience waits for better validation accuracy, but data.val_size is 0."
        raise ConfigError(reason, "Try data.val_size=5000, or training.patience=null.")


def _check_folds(data: Data) -> None:
    """Raises ConfigError unless `data.fold` names one of `data.folds`, where there are some."""
    if data.folds is None:
        if data.fold is not None:
            raise ConfigError(f"data.fold={data.fold} needs data.folds, the number of folds.", "Try data.folds=5.")
        return
    if data.folds > data.train_images:
        raise ConfigError(f"data.folds={data.folds} are more than the {data.train_images} training images.")
    if data.fold is None or data.fold >= data.folds:
        got = "has no value" if data.fold is None else f"must be at most {data.folds - 1}, but got {data.fold}"
        reason = f"data.fold {got}: it says which of data.folds={data.folds} validates, from 0."
        raise ConfigError(reason, "Name one, such as data.fold=0. A grid has a run for each: -m data.folds=5")


def _check_keys(cls: type, node: DictConfig, prefix: str) -> None:
    """Raises ConfigError unless the keys of *node* are the fields of *cls*."""
    names, keys = [each.name for each in dataclasses.fields(cls)], list(node)
    for key in keys:
        if key not in names:
            plain = OmegaConf.to_container(node)
            assert isinstance(plain, dict)
            raise unknown_key(next(iter(flatten({f"{prefix}{key}": plain[key]})), f"{prefix}{key}"))
    for name in names:
        if name not in keys:
            raise deleted_key(f"{prefix}{name}")


def load(path: Path) -> Config:
    """The config that a run has written to *path*.

    Raises:
        ConfigError: as `parse`, or the file is not readable as one.
    """
    try:
        stored = OmegaConf.create(text_of(path))
        return typed(OmegaConf.merge(OmegaConf.structured(Config), stored))  # type: ignore[arg-type]
    except ConfigError:
        raise
    except (OSError, yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a run's config: {first_line(error)}") from error


def text_of(path: Path) -> str:
    """The text of the config that a run has written to *path*: YAML of values only, of a usual size.

    Raises:
        ConfigError: it has references or aliases, which may stand for more than any memory holds, or is too large.
        OSError, ValueError, yaml.YAMLError: it cannot be read.
    """
    with path.open(encoding="utf-8") as file:
        text = file.read(LONGEST + 1)
    what, depth = "references" if "${" in text else "", 0
    if len(text) > LONGEST:
        raise ConfigError(f"{path} is not a run's config: it is longer than {LONGEST:,} characters.")
    for event in yaml.parse(text, LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        what = "aliases" if isinstance(event, yaml.AliasEvent) else "too many levels" if depth > DEEPEST else what
        if what:
            raise ConfigError(f"{path} is not a run's config: it has {what}.", "A run writes plain values only.")
    return text


def settings_of(path: Path) -> dict[str, Any]:
    """The settings that a run has written to *path*, flat and unchecked. Raises what `text_of` raises."""
    return flatten(yaml.load(text_of(path), LOADER))


def to_yaml(config: Config) -> str:
    """The config as the text of `config.yaml`."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # in a third of the time
    return str(yaml.dump(to_dict(config), Dumper=dumper, sort_keys=False, allow_unicode=True))
