"""Configs without the command line: what `python -m mnist_exp.train <overrides>` would train."""

from collections.abc import Sequence

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import config
from mnist_exp.config import Config
from mnist_exp.console import exits as cli


def compose(overrides: Sequence[str] = ()) -> Config:
    """The config that *overrides* make of the defaults, checked.

    Args:
        overrides: As one types them: `["hidden=256", "optimizer=sgd"]`. One run, no sweep.

    Raises:
        ConfigError: an override does not fit, in the words of the command line.
    """
    config.register()
    try:
        with hydra.initialize_config_dir(config.conf_dir(), version_base="1.3"):
            return config.parse(hydra.compose("train", list(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise cli.translate(error, list(overrides)) from error
