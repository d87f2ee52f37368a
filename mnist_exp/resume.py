"""Going on with a run: what it was made with, and whether that still holds."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import config, provenance, trust
from mnist_exp.config import Config
from mnist_exp.errors import ConfigError
from mnist_exp.ledger import Ledger

CONTROL = ("resume", "force", "retry_failed")
"""Settings that steer resuming and are no part of what is run."""

STEERING = ("search", "pruner", "n_trials", "points", "hydra/sweeper")
"""What steers a sweep, besides `hydra.sweeper.*`: part of how it was typed, but of none of its runs."""


def key_of(override: str) -> str:
    """The key that *override* sets: what is typed on resuming replaces what was typed before for the same key."""
    return override.lstrip("+~").split("=")[0]


def is_control(override: str) -> bool:
    """Whether *override* sets one of `CONTROL`."""
    return key_of(override) in CONTROL


def steers(override: str) -> bool:
    """Whether *override* steers a sweep, and sets nothing in its runs."""
    key = key_of(override)
    return key in STEERING or key.startswith("hydra.sweeper.")


def stored(folder: Path, asked: Config, overrides: list[str]) -> Config:
    """The config of the run in *folder*, with what was typed now on top.

    Args:
        asked: The config of the resuming command, for its control settings.
        overrides: What was typed.

    Raises:
        ConfigError: there is no such run, or an override does more than change a value.
    """
    typed = [o for o in overrides if not is_control(o)]
    before = trust.load(folder)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(before), OmegaConf.from_dotlist(typed))
        assert isinstance(merged, DictConfig)
        for group, key in (("optimizer", "lr"), ("model", "hidden")):  # what is stored has no references left
            if key in merged[group] and merged[key] != getattr(before, key):
                merged[group][key] = merged[key]
        now = config.parse(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{' '.join(typed)} cannot be changed in a run that exists.", "With resume=, change plain values only."
        ) from error
    now.resume, now.force = asked.resume, asked.force
    return now


def changed(folder: Path, entry: Ledger, now: Config) -> str:
    """How config and code differ from what the run in *folder* was made with, in words; nothing if not at all."""
    differences = []
    if entry.fingerprint.get("config") != config.fingerprint(now):
        try:
            before = config.flatten(config.to_dict(config.load(folder / "config.yaml")))
        except ConfigError:
            before = {}
        after = config.flatten(config.to_dict(now))
        differences = [
            f"{key} was {before.get(key)}, now {after.get(key)}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) and key.split(".")[0] not in config.WITHOUT_EFFECT
        ] or ["the config has changed"]
    if entry.fingerprint.get("code") != provenance.code_fingerprint():
        differences.append("the code has changed")
    return "; ".join(differences)
