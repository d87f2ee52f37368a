"""Hydra's callback that checks the whole composed config, Hydra's part too, before Hydra writes anything."""

import contextlib
import copy
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from mnist_exp import system
from mnist_exp.config import Config, parse, schema, secrets, stores
from mnist_exp.config.loading import without_hydra
from mnist_exp.config.overrides import check_once, check_single, key_of
from mnist_exp.config.schema import Kind
from mnist_exp.console import exits, formats
from mnist_exp.console.terminal import offer, shown
from mnist_exp.disk import ledger, records, trust
from mnist_exp.disk.files import file_name
from mnist_exp.disk.layout import Folder, RunFolder, holds_runs, is_sweep
from mnist_exp.errors import ConfigError


@final
class Guard(Callback):  # type: ignore[misc]  # hydra ships no types
    """Refuses what cannot be, before Hydra writes anything: see `check`, and a single run with what is a sweep's."""

    parsed: Config | None = None
    """The config of the single run that comes next, if it is known already."""
    made: Sequence[Path] = ()
    """What Hydra makes for that run: its folder, or what is in it."""
    above: Sequence[Path] = ()
    """The folders that it makes above the run's, the innermost first."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        Guard.parsed, Guard.made, Guard.above = None, (), ()
        with refusing():
            check(config)
            check_single([*typed(config), *steering(config)], sys.argv[1:])
            Guard.parsed = check_settings(config)
            folder = Path(config.hydra.run.dir)
            if RunFolder(folder).ledger.exists():
                trust.check_entries(folder)
                with read_write(config.hydra):
                    config.hydra.output_subdir = None  # what Hydra wrote the first time stays
            elif holds_runs(folder) or is_sweep(folder.parent):
                raise ConfigError(f"{shown(folder)} belongs to a sweep.", "Choose another folder: hydra.run.dir=…")
            whole = folder.absolute()
            files = (
                whole / str(config.hydra.output_subdir),
                whole / f"{config.hydra.job.name}.log",
                Folder(whole).lock,
            )
            Guard.made = [path for path in (files if whole.exists() else (whole,)) if not path.exists()]
            Guard.above = [path for path in whole.parents if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            ledger.take(whole)  # before Hydra writes: of two at one instant one is refused

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        Guard.parsed = None
        with refusing():
            check(config)
        if not config.hydra.sweeper.get("dry_run"):  # what comes next takes seconds to load
            own = formats.settings(each for each in typed(config) if not each.startswith("hydra."))
            offer("Preparing a sweep:", *filter(None, [own]))


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Makes an error an exit with a sentence: Hydra makes a warning of any exception of a callback, and goes on."""
    try:
        yield
    except Exception as error:
        sys.exit(exits.explain(error))


def parse_once(composed: DictConfig) -> Config:
    """As `config.parse`, which the guard of a single run has called already."""
    parsed, Guard.parsed = Guard.parsed, None
    return parsed or parse(composed)


def leave_nothing() -> None:
    """Deletes what Hydra has made for a run that was refused before it began, unless another begins there."""
    records.give_back()
    folders = [folder for path in Guard.made for folder in (path, path.parent)]
    if any(RunFolder(folder).ledger.exists() or records.held(folder) for folder in folders):
        return
    logging.shutdown()  # Windows deletes no log that is open
    with contextlib.suppress(OSError):  # another run is above it by now
        for path in Guard.made:
            system.delete(path) if path.is_dir() else system.unlink(path)
        for path in Guard.above:
            path.rmdir()


def typed(composed: DictConfig) -> list[str]:
    """The overrides as they were typed; references in them are not followed."""
    overrides: Any = OmegaConf.to_container(composed.hydra.overrides, resolve=False)
    return [*overrides["task"], *overrides["hydra"]]


def steering(composed: DictConfig) -> list[str]:
    """What in *composed* is for a sweep, as one would type it: files may set it as well."""
    plain: Any = OmegaConf.to_container(composed)
    search, params = plain["hydra"]["runtime"]["choices"].get("search"), plain["hydra"]["sweeper"].get("params")
    steers = [f"{key}={plain[key]}" for key in schema.of(Kind.SWEEP) if plain.get(key) is not None]
    steers += [f"search={search}"] if search not in (None, "grid") else []
    return [*steers, *(f"hydra.sweeper.params.{key}={value}" for key, value in (params or {}).items())]


def check_settings(composed: DictConfig) -> Config | None:
    """The config that *composed* holds for a run: a refused run leaves no folder.

    None where the run sets variables of its environment, which settings may refer to: then it is known only later.

    Raises:
        ConfigError: a setting breaks its rule.
    """
    return None if composed.hydra.job.env_set else parse(without_hydra(copy.deepcopy(composed)))


def check(composed: DictConfig) -> None:
    """Refuses what *composed* as a whole cannot be. References are not followed.

    Raises:
        ConfigError: it holds a secret, or a path as a name, a key was set twice, or $MLFLOW_TRACKING_URI is no address
            of a store.
    """
    plain: Any = OmegaConf.to_container(composed)
    if (name := str(plain["hydra"]["job"]["name"])) != file_name(name):
        reason = f"hydra.job.name names the log in each run's folder, and {name!r} is no name of a file."
        raise ConfigError(reason, "Set hydra.run.dir, the folder, or name, what a run is called.")
    overrides = typed(composed)
    keys = (key_of(each) for each in overrides if secrets.typed(each))
    if key := next(keys, "") or secrets.first(plain):
        raise secrets.refusal(key)
    check_once(overrides)
    tracking = plain.get("tracking") or {}
    if tracking.get("enabled") and not tracking.get("uri"):
        stores.uri_for(None)
