"""Hydra's callback that checks the whole composed config, Hydra's part too, before Hydra writes anything."""

import sys
from pathlib import Path
from typing import Any, final

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config import secrets, stores
from mnist_exp.config.overrides import check_single, key_of
from mnist_exp.console import exits
from mnist_exp.disk import trust
from mnist_exp.disk.layout import RunFolder
from mnist_exp.errors import ConfigError


@final
class Guard(Callback):  # type: ignore[misc]  # hydra ships no types
    """Refuses secrets, a wrong address of MLflow, a sweep's settings in a single run, and a run's folder with links."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        check(config)
        try:
            check_single([*config.hydra.overrides.task, *config.hydra.overrides.hydra], sys.argv[1:])
            folder = Path(config.hydra.run.dir)
            if RunFolder(folder).ledger.exists():
                trust.check_links(folder)
        except (ConfigError, OmegaConfBaseException) as error:  # the folder's name is resolved here
            sys.exit(exits.explain(error))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        check(config)


def check(composed: DictConfig) -> None:
    """Exits with a sentence if *composed* holds a secret, or $MLFLOW_TRACKING_URI is no address of a store.

    References are not followed.

    Raises:
        SystemExit: it does. Hydra turns any other exception of a callback into a warning.
    """
    plain: Any = OmegaConf.to_container(composed)
    typed = plain["hydra"]["overrides"]
    keys = (key_of(each) for each in (*typed["task"], *typed["hydra"]) if secrets.typed(each))
    if key := next(keys, "") or secrets.first(plain):
        sys.exit(exits.explain(secrets.refusal(key)))
    tracking = plain.get("tracking") or {}
    try:
        if tracking.get("enabled") and not tracking.get("uri"):
            stores.uri_for(None)
    except ConfigError as error:
        sys.exit(exits.explain(error))
