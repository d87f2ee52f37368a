"""A setting is declared once; what else must know about settings is derived from its rule and kind."""

import dataclasses
import itertools
import json
import math
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import MISSING, OmegaConf

from mnist_exp import config as configs
from mnist_exp.config import Config, identity, overrides, schema
from mnist_exp.config.identity import UNNAMED, has_effect
from mnist_exp.config.loading import check
from mnist_exp.config.rules import leaves
from mnist_exp.config.schema import Kind
from mnist_exp.disk import lanes, trust
from mnist_exp.errors import ConfigError
from mnist_exp.report import page
from mnist_exp.sweep import packing, points

SETTINGS = schema.settings()
FROM_GROUPS = ("lr", "data.name", "model", "optimizer", "schedule")
"""What every run takes from an option of a group; the schema has no value for it."""


@pytest.mark.parametrize("key", [key for key in SETTINGS if key not in FROM_GROUPS])
def test_a_default_is_legal(key: str) -> None:
    assert SETTINGS[key].default != MISSING
    SETTINGS[key].check(SETTINGS[key].default)


def test_the_defaults_together_are_legal(composed: Callable[..., Config]) -> None:
    check(composed())


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_is_for_one_thing(key: str) -> None:
    purposes = SETTINGS[key].kind & (Kind.LABEL | Kind.WHERE | Kind.CONTROL | Kind.SWEEP)
    assert len(purposes) <= 1
    assert has_effect(key) == (len(purposes) == 0)


@pytest.mark.parametrize(
    ("derived", "expected"),
    {
        "without effect": (
            schema.of(Kind.LABEL | Kind.WHERE | Kind.CONTROL | Kind.SWEEP),
            "checkpoint data.classes data.pictures data.root data.source deterministic enqueue force n_trials name"
            " points resume retry_failed tags threads time_budget tracking",
        ),
        "control": (overrides.CONTROL, "force resume retry_failed"),
        "steering": (overrides.STEERING, "enqueue hydra/sweeper n_trials points pruner search time_budget"),
        "private": (
            trust.PRIVATE,
            "callbacks data.debian data.package data.reader data.root data.sha256 data.torchvision enqueue init points"
            " tracking.register tracking.uri",
        ),
        "private options": (
            schema.PRIVATE_OPTIONS,
            "hydra.sweeper._target_ hydra.sweeper.params hydra.sweeper.space hydra.sweeper.storage",
        ),
        "optional": (identity.OPTIONAL, "callbacks data.fold data.folds data.limit data.stratify init"),
        "lane": (lanes.OWN, "hidden lr model optimizer"),
        "free": (packing.FREE, "hidden lr name seed tags"),
        "free of the model": (schema.FREE_KEYWORDS["model"], "dropout hidden init init_scale"),
        "free of the optimiser": (
            schema.FREE_KEYWORDS["optimizer"],
            "betas dampening eps lr momentum nesterov weight_decay",
        ),
        "built": (points.BUILT, "batch_size data device init model optimizer precision schedule"),
        "unnamed": (  # force and retry_failed never get that far
            UNNAMED,
            "checkpoint cluster data.root deterministic device force hydra name resume retry_failed threads tracking",
        ),
        "unlisted": (
            page.UNLISTED,
            "checkpoint data.debian data.package data.root data.sha256 deterministic name seed tags threads tracking",
        ),
    }.values(),
)
def test_what_is_derived_is_as_expected(derived: tuple[str, ...], expected: str) -> None:
    assert sorted(derived) == expected.split()


def test_fingerprint_and_stored_config_of_an_old_run_stay_as_they_are() -> None:
    """A change makes every run that exists another one."""
    path = Path(__file__).parents[1] / "assets" / "format-1" / "sweep" / "0" / "config.yaml"
    config = configs.load(path)
    lines = iter(configs.to_yaml(config).splitlines())
    assert all(line in lines for line in path.read_text().splitlines())  # in this order; others were added since
    assert configs.fingerprint(config) == json.loads((path.parent / "ledger.json").read_text())["fingerprint"]["config"]


def test_a_lane_is_recorded_in_the_order_of_the_schema() -> None:
    assert lanes.OWN == ("hidden", "lr", "model", "optimizer")


def test_a_deletion_keeps_its_sign() -> None:
    assert overrides.split("++model.x=a=b") == ("model.x", "=", "a=b")
    assert overrides.split("~lr") == ("~lr", "", "")
    assert overrides.key_of("~lr=1") == overrides.key_of("+lr=2") == "lr"


OUTSIDE_FLOAT32 = (math.nan, math.inf, -math.inf, 5e-324, 1e-300, -1e-38, 3.5e38, 1e300)
FLOATS = [
    f"{prefix}{key}"
    for prefix, cls in {"": Config, **{f"{part}.": cls for part, cls in schema.parts().items()}}.items()
    for key, hint in typing.get_type_hints(cls).items()
    if float in (hint, *typing.get_args(hint))
] + ["data.mean", "data.std"]  # or a list of numbers


def test_a_number_that_float32_cannot_hold_breaks_the_rule_of_every_setting() -> None:
    """Such a run would begin, and fail in its first steps, or train with another number."""
    assert {"lr", "data.std", "training.clip"} <= set(FLOATS)
    for key, value in itertools.product(FLOATS, OUTSIDE_FLOAT32):
        with pytest.raises(ConfigError, match=re.escape(key)):
            SETTINGS[key].check(value)


def keywords() -> Iterator[tuple[str, str]]:
    """(group=option, key) of each number among the keywords of the options in conf/."""
    for group in ("model", "optimizer", "schedule", "augment"):
        for option in configs.options(group):
            node: Any = OmegaConf.to_container(OmegaConf.load(Path(configs.conf_dir(), group, f"{option}.yaml")))
            for key, value in leaves(group, node.get(group, node)):
                if isinstance(value, int | float):
                    yield f"{group}={option}", key


@pytest.mark.integration
@pytest.mark.parametrize(("option", "key"), sorted(set(keywords())))
def test_a_keyword_that_float32_cannot_hold_is_refused(option: str, key: str, composed: Callable[..., Config]) -> None:
    group, _, keyword = key.partition(".")
    config = composed(option, "data.mirrors=true", *(["hidden=null"] if "cnn" in option else []))
    node = getattr(config, group)
    many = isinstance(node[keyword], list)
    for value in OUTSIDE_FLOAT32:
        node[keyword] = [value] if many else value
        with pytest.raises(ConfigError, match=rf"{key} must be a number that float32 can hold"):
            check(config)


def test_a_setting_that_is_declared_with_a_type_alone_refuses_it_too() -> None:
    new = dataclasses.replace(SETTINGS["data.root"], key="new", rule=schema.ANY)
    with pytest.raises(ConfigError, match=r"new\.x must be a number that float32 can hold, but got 1e-300\."):
        new.check({"x": [0.5, [1e-300]]})
    new.check({"x": [0.5, [0, 1e-37, -1e38, True, "1e-300", None]]})
