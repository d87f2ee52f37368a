"""A setting is declared once; what else must know about settings is derived from its rule and kind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import MISSING

from mnist_exp import config as configs
from mnist_exp.config import Config, overrides, schema
from mnist_exp.config.identity import has_effect, unnamed
from mnist_exp.config.loading import check
from mnist_exp.config.schema import Kind
from mnist_exp.disk import lanes, trust
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
    purposes = SETTINGS[key].kind & (Kind.LABEL | Kind.PLACE | Kind.CONTROL | Kind.SWEEP)
    assert len(purposes) <= 1
    assert has_effect(key) == (len(purposes) == 0)


@pytest.mark.parametrize(
    ("derived", "expected"),
    {
        "without effect": (
            schema.of(Kind.LABEL | Kind.PLACE | Kind.CONTROL | Kind.SWEEP),
            "checkpoint data.classes data.pictures data.root data.source force n_trials name points resume retry_failed"
            " tags threads tracking",
        ),
        "control": (overrides.CONTROL, "force resume retry_failed"),
        "steering": (overrides.STEERING, "hydra/sweeper n_trials points pruner search"),
        "sources": (trust.SOURCES, "debian package reader root sha256 torchvision"),
        "private": (
            trust.PRIVATE,
            "data.debian data.package data.reader data.root data.sha256 data.torchvision tracking.register"
            " tracking.uri",
        ),
        "private options": (schema.PRIVATE_OPTIONS, "hydra.sweeper._target_ hydra.sweeper.space hydra.sweeper.storage"),
        "lane": (lanes.OWN, "hidden lr model optimizer"),
        "free": (packing.FREE, "hidden lr name seed tags"),
        "free of the model": (schema.FREE_KEYWORDS["model"], "dropout hidden init init_scale"),
        "free of the optimiser": (
            schema.FREE_KEYWORDS["optimizer"],
            "betas dampening eps lr momentum nesterov weight_decay",
        ),
        "built": (points.BUILT, "batch_size data device model optimizer precision schedule"),
        "unnamed": (  # force and retry_failed never get that far
            unnamed(),
            "checkpoint cluster data.root device force hydra name resume retry_failed threads tracking",
        ),
        "unlisted": (
            page.UNLISTED,
            "checkpoint data.debian data.package data.root data.sha256 name seed tags threads tracking",
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
