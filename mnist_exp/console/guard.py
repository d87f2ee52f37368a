"""Hydra's callback that checks the whole composed config, Hydra's part too, before Hydra writes anything."""

import sys
from pathlib import Path
from typing import Any, final

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config import schema, secrets
from mnist_exp.config.overrides import check_single, key_of
from mnist_exp.config.schema import Kind
from mnist_exp.console import exits
from mnist_exp.disk import trust
from mnist_exp.disk.layout import RunFolder
from mnist_exp.errors import ConfigError


@final
class Guard(Callback):  # type: ignore[misc]  # hydra ships no types
    """Refuses secrets, a sweep's settings in a single run, and a run's folder that has links."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        check(config)
        try:
            typed = [*config.hydra.overrides.task, *config.hydra.overrides.hydra]
            check_single([*typed, *steering(config)], sys.argv[1:])
            folder = Path(config.hydra.run.dir)
            if RunFolder(folder).ledger.exists():
                trust.check_links(folder)
        except (ConfigError, OmegaConfBaseException) as error:  # the folder's name is resolved here
            sys.exit(exits.explain(error))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        check(config)


def steering(composed: DictConfig) -> list[str]:
    """What in *composed* is for a sweep, as one would type it: files may set it as well."""
    plain: Any = OmegaConf.to_container(composed)
    search, params = plain["hydra"]["runtime"]["choices"].get("search"), plain["hydra"]["sweeper"].get("params")
    found = [f"{key}={plain[key]}" for key in schema.of(Kind.SWEEP) if plain.get(key) is not None]
    found += [f"search={search}"] if search not in (None, "grid") else []
    return [*found, *(f"hydra.sweeper.params.{key}={value}" for key, value in (params or {}).items())]


def check(composed: DictConfig) -> None:
    """Exits with a sentence if *composed* holds a secret; references are not followed.

    Raises:
        SystemExit: it does. Hydra turns any other exception of a callback into a warning.
    """
    plain: Any = OmegaConf.to_container(composed)
    typed = plain["hydra"]["overrides"]
    keys = (key_of(each) for each in (*typed["task"], *typed["hydra"]) if secrets.typed(each))
    if key := next(keys, "") or secrets.first(plain):
        sys.exit(exits.explain(secrets.refusal(key)))
