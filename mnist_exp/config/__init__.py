"""A setting, from the typed text to a checked value; `schema` declares them all."""

from mnist_exp.config.choices import conf_dir, options
from mnist_exp.config.identity import fingerprint, flatten, params, run_name, to_dict
from mnist_exp.config.loading import compose, load, new_folder, parse, register, settings_of, to_yaml, typed, unique
from mnist_exp.config.overrides import as_typed, command, compact, override
from mnist_exp.config.schema import (
    CLASSES,
    SHAPE,
    Config,
    Data,
    Precision,
    Shape,
    Tracking,
    Training,
    classes,
    order_seed,
    settings,
    sizes,
)
