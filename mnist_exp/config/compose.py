"""Configs without the command line: what `python -m mnist_exp.train <overrides>` would train."""

from collections.abc import Sequence

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config import loading
from mnist_exp.config.explain import translate
from mnist_exp.config.schema import Config


def compose(overrides: Sequence[str] = ()) -> Config:
    """The config that *overrides* make of the defaults, checked.

    Args:
        overrides: As one types them: `["hidden=256", "optimizer=sgd"]`. One run, no sweep.

    Raises:
        ConfigError: an override does not fit, in the words of the command line.
    """
    loading.register()
    try:
        with hydra.initialize_config_dir(loading.conf_dir(), version_base="1.3"):
            return loading.parse(hydra.compose("train", list(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise translate(error, list(overrides)) from error
