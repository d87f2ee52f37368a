"""Hydra's callback that looks at the whole composed config, its own part too, before Hydra writes it anywhere."""

import sys
from typing import Any, final

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mnist_exp import cli, config, privacy


@final
class Guard(Callback):  # type: ignore[misc]  # hydra ships no types
    """Refuses secrets; see `privacy`."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        check(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        check(config)


def check(composed: DictConfig) -> None:
    """Leaves with a sentence if there is a secret in *composed*, as it stands there: references are not followed.

    Raises:
        SystemExit: there is one. Hydra makes a warning of any other exception of a callback.
    """
    plain: Any = OmegaConf.to_container(composed)
    typed = plain["hydra"]["overrides"]
    secrets = (each.lstrip("+~").partition("=")[0] for each in (*typed["task"], *typed["hydra"]) if privacy.typed(each))
    if key := next(secrets, "") or privacy.first(plain):
        sys.exit(cli.explain(config.secret(key)))
