"""The files of `conf/`: which groups there are, their options, and the keywords of these."""

import functools
from pathlib import Path
from typing import Any

import yaml

from mnist_exp.config import schema
from mnist_exp.errors import ConfigError


def conf_dir() -> str:
    """The folder of the YAML files: inside the package in a wheel, beside it in a checkout.

    Absolute: Hydra reads a relative path differently under `python -m` and in a console script.
    """
    here = Path(__file__).resolve().parent.parent
    for folder in (here / "conf", here.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise ConfigError(f"There is no conf/ folder in {here} or beside it.", "Install mnist_exp again.")


def groups() -> list[str]:
    """The names of the folders in conf/, without Hydra's."""
    return sorted({path.parent.name for path in Path(conf_dir()).glob("*/*.yaml")})


def known(key: str) -> bool:
    """Whether *key* is a setting or a group: what can be given a value."""
    return key in schema.settings() or key in groups()


def options(group: str) -> list[str]:
    """The names of the files in that folder of conf/, in order."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))


def nothing(group: str) -> str:
    """The choice that leaves *group* out, such as `tracking=off`; empty if there is none."""
    return next((f"{group}={name}" for name in ("off", "none", "constant") if name in options(group)), "")


@functools.cache
def nodes() -> tuple[str, ...]:
    """The groups whose options are a `_target_` with its keywords."""
    settings = schema.settings()
    return tuple(group for group in groups() if group in settings and settings[group].default == {})


def keywords() -> dict[str, list[str]]:
    """The keywords of the options of `nodes`, as dotted keys, each with the options that have it."""
    having: dict[str, list[str]] = {}
    for group in nodes():
        for option in options(group):
            file: Any = yaml.safe_load(Path(conf_dir(), group, f"{option}.yaml").read_text(encoding="utf-8"))
            for key in file.get(group, file):
                having.setdefault(f"{group}.{key}", []).append(option)
    own = {key for group, key in schema.FOLLOWING} | {"_target_"}  # set by another setting, or by the choice
    return {key: names for key, names in having.items() if key.partition(".")[2] not in own}
