"""From composed YAML to a checked `Config`, and back: the one place where Hydra's config becomes ours.

Below `parse` there is no DictConfig: typed dataclasses only.
"""

import dataclasses
import difflib
import time
from pathlib import Path
from secrets import token_hex

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mnist_exp.config import schema
from mnist_exp.config.checks import check
from mnist_exp.config.identity import label, to_dict
from mnist_exp.config.overrides import compact
from mnist_exp.config.schema import Config
from mnist_exp.errors import ConfigError, first_line


def register() -> None:
    """Makes the schema and the resolvers known to Hydra; safe to call again."""
    ConfigStore.instance().store(name="_schema", node=Config, provider="mnist_exp")
    OmegaConf.register_new_resolver("mnist_exp.unique", unique, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("mnist_exp.subdir", _subdir, replace=True)
    OmegaConf.register_new_resolver("mnist_exp.settings", schema.help_text, replace=True)
    OmegaConf.register_new_resolver("mnist_exp.gpus", lambda device: 1 if "cuda" in device else None, replace=True)


def unique() -> str:
    """Six random hexadecimal digits: two sweeps started in one second get two folders."""
    return token_hex(3)


def _subdir(resume: str | None) -> str | None:
    """Where Hydra writes the config; None: nowhere; a run that goes on has it already."""
    return None if resume else ".hydra"


def new_folder(root: str) -> str:
    """A new folder for a run below *root*."""
    return f"{root}/{time.strftime('%Y-%m-%d/%H-%M-%S')}-{unique()}"


def conf_dir() -> str:
    """The folder of the YAML files: inside the package in a wheel, beside it in a checkout.

    Absolute: Hydra reads a relative path differently under `python -m` and in a console script.
    """
    here = Path(__file__).resolve().parent.parent
    for folder in (here / "conf", here.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise ConfigError(f"There is no conf/ folder in {here} or beside it.", "Install mnist_exp again.")


def options(group: str) -> list[str]:
    """The names of the files in that folder of conf/, in order."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))


def parse(cfg: DictConfig) -> Config:
    """The composed config as dataclasses, checked.

    Raises:
        ConfigError: a key is unknown or missing, or a value breaks its rule.
    """
    config = typed(cfg)
    if "hidden" not in config.model and "${hidden}" not in str(OmegaConf.to_container(cfg)):
        if config.hidden not in (None, Config.hidden):
            raise ConfigError(
                f"hidden={compact(config.hidden)} would change nothing: {label(config.model)} has no such setting.",
                "Drop it. Where a file sets it: hidden=null.",
            )
        config.hidden = None
    return config


def typed(cfg: DictConfig) -> Config:
    """As `parse`, for a config that was parsed before and has no references left."""
    _check_keys(Config, cfg, "")
    for part, cls in schema.parts().items():
        if isinstance(node := cfg.get(part), DictConfig):
            _check_keys(cls, node, f"{part}.")
    try:
        config = OmegaConf.to_object(cfg)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no value.", f"Give one: {error.full_key}=…") from error
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from error
    assert isinstance(config, Config)
    check(config)
    return config


def _check_keys(cls: type, node: DictConfig, prefix: str) -> None:
    """Refuses *node* unless its keys are the fields of *cls*."""
    names, keys = [each.name for each in dataclasses.fields(cls)], list(node)
    for key in keys:
        if key not in names:
            raise unknown_key(f"{prefix}{key}")
    for name in names:
        if name not in keys:
            raise deleted_key(f"{prefix}{name}")


def load(path: Path) -> Config:
    """The config that a run has written to *path*.

    Raises:
        ConfigError: as `parse`, or the file is not readable as one.
    """
    try:
        stored = OmegaConf.load(path)
        if "${" in path.read_text(encoding="utf-8"):  # a run writes values only
            raise ConfigError(f"{path} is not a run's config: it has references.", "Write out what they stand for.")
        return typed(OmegaConf.merge(OmegaConf.structured(Config), stored))  # type: ignore[arg-type]
    except (OSError, yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, TypeError) as error:
        raise ConfigError(f"{path} is not a run's config: {first_line(error)}") from error


def to_yaml(config: Config) -> str:
    """The config as the text of `config.yaml`."""
    return str(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))


def unknown_key(path: str, typed: str = "") -> ConfigError:
    """The error for a key that is not in the schema, with the nearest one that is.

    Args:
        typed: The override that names it.
    """
    where = f" (override '{typed}')" if typed else ""
    group, _, keyword = path.partition(".")
    if keyword and group in schema.settings() and schema.settings()[group].default == {}:
        return ConfigError(
            f"There is no setting '{path}'{where}.",
            f"--cfg job shows what the chosen {group} has; +{path}=… passes it a keyword that is not listed.",
        )
    if path == "pruner":  # a group that only files of conf/search add
        return ConfigError(f"{path} is for a search{where}.", "Choose one, with -m: search=tpe")
    hydras = group == "hydra"
    known = sweep_settings() if hydras else list(schema.settings())
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.8 if hydras else 0.5)
    guess = f"Did you mean '{near[0]}'? " if near else ""
    listed = "Hydra's settings: python -m mnist_exp.train --cfg hydra"
    if not hydras:
        listed = "All settings: python -m mnist_exp.train --help"
    return ConfigError(f"There is no setting '{path}'{where}.", guess + listed)


def sweep_settings() -> list[str]:
    """The options of every installed launcher and sweeper, as one types them."""
    store, keys = ConfigStore.instance(), []
    for group in ("launcher", "sweeper"):
        for file in store.list(f"hydra/{group}"):
            node = store.load(f"hydra/{group}/{file}").node
            keys += [f"hydra.{group}.{key}" for key in node]
    return keys


def deleted_key(path: str) -> ConfigError:
    """The error for `~key`: the schema has no optional parts."""
    return ConfigError(f"{path} was deleted, but every run needs it.", f"Drop '~{path}'.")
