"""A setting, from the typed text to a checked value; `schema` declares them all."""

from mnist_exp.config.identity import fingerprint, flatten, label, params, run_name, to_dict
from mnist_exp.config.loading import (
    conf_dir,
    load,
    new_folder,
    options,
    parse,
    register,
    to_yaml,
    typed,
    unique,
)
from mnist_exp.config.overrides import as_typed, command, compact, override
from mnist_exp.config.schema import (
    DIGITS,
    Checkpoint,
    Config,
    Data,
    Precision,
    Tracking,
    Training,
    classes,
    order_seed,
    settings,
)

__all__ = [
    "DIGITS",
    "Checkpoint",
    "Config",
    "Data",
    "Precision",
    "Tracking",
    "Training",
    "as_typed",
    "classes",
    "command",
    "compact",
    "conf_dir",
    "fingerprint",
    "flatten",
    "label",
    "load",
    "new_folder",
    "options",
    "order_seed",
    "override",
    "params",
    "parse",
    "register",
    "run_name",
    "settings",
    "to_dict",
    "to_yaml",
    "typed",
    "unique",
]
