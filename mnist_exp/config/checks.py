"""Whether a config can describe a run: each value by its rule, then the rules between settings."""

import operator

from mnist_exp.config import schema, secrets
from mnist_exp.config.identity import to_dict
from mnist_exp.config.overrides import compact
from mnist_exp.config.schema import FOLLOWING, Config
from mnist_exp.errors import ConfigError


def check(config: Config) -> None:
    """Refuses a config that holds a secret or breaks a rule.

    Raises:
        ConfigError: with the rule, the value and a way out.
    """
    if key := secrets.first(to_dict(config)):
        raise secrets.refusal(key)
    for key, setting in schema.settings().items():
        setting.check(operator.attrgetter(key)(config))
    if config.hidden is None and "hidden" in config.model:
        schema.settings()["hidden"].rule.check("hidden", None)
    for group, key in FOLLOWING:
        wanted = getattr(config, key)
        got = getattr(config, group).get(key, wanted)
        if got != wanted:  # what is trained and what is logged would differ
            raise ConfigError(f"{group}.{key} follows {key}={compact(wanted)}, but got {got!r}.", f"Set {key} instead.")
    data = config.data
    if not 0 <= data.val_size < data.train_images:
        raise ConfigError(
            f"data.val_size must be between 0 and {data.train_images - 1} "
            f"(training images - 1), but got {data.val_size}.",
            "Try data.val_size=5000, or 0 for no validation.",
        )
    if config.training.patience is not None and not data.val_size:
        raise ConfigError(
            "training.patience waits for better validation accuracy, but data.val_size is 0.",
            "Try data.val_size=5000, or training.patience=null.",
        )
