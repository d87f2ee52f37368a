"""Hydra's override syntax as Optuna's distributions."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from optuna import create_study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mnist_exp.config import Config, sweeps
from mnist_exp.errors import ConfigError
from mnist_exp.search.space import Space, distribution, known, space

PARSER = OverridesParser.create()
DEFAULTS: Any = OmegaConf.structured(Config)
DEFAULTS.optimizer = {"weight_decay": 0.0, "_target_": "x"}


def made(*typed: str, hook: str | None = None) -> Space:
    assert isinstance(DEFAULTS, DictConfig)
    return space(PARSER.parse_overrides(list(typed)), DEFAULTS, hook)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("lr=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("hidden=int(interval(16,512))", IntDistribution(16, 512)),
        ("hidden=interval(16,512)", IntDistribution(16, 512)),
        ("hidden=interval(16.0,512.0)", IntDistribution(16, 512)),
        ("batch_size=tag(log,int(interval(16,512)))", IntDistribution(16, 512, log=True)),
        ("training.patience=interval(1,5)", IntDistribution(1, 5)),
        ("training.clip=interval(1,5)", FloatDistribution(1, 5)),
        ("optimizer.weight_decay=interval(0,1)", FloatDistribution(0, 1)),
        ("hidden=range(32,257,32)", IntDistribution(32, 256, step=32)),
        ("hidden=64,128", CategoricalDistribution([64, 128])),
        ("optimizer=choice(adam,sgd)", CategoricalDistribution(["adam", "sgd"])),
        ("hidden=[64],[128,64]", CategoricalDistribution(["[64]", "[128,64]"])),
    ],
    ids=str,
)
def test_what_is_typed_is_what_is_searched(typed: str, expected: BaseDistribution) -> None:
    assert list(made(typed).varied.values()) == [expected]


@pytest.mark.parametrize(
    ("typed", "size"),
    [
        ("hidden=8,12 epochs=1,2,3", 6),
        ("hidden=int(interval(8,12))", 5),
        ("hidden=range(32,257,32)", 8),
        ("lr=range(0.0,0.7,0.1)", 7),
        ("lr=interval(0.1,0.2) hidden=8,12", math.inf),
    ],
)
def test_how_many_points_a_space_has(typed: str, size: float) -> None:
    assert made(*typed.split()).size == size


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("hidden=interval(16.5,64)", "hidden takes whole numbers, but hidden=interval(16.5,64) has other bounds."),
        ("lr=interval(1,0.1)", "has no values"),
        ("lr=tag(log,interval(0,1))", "on a logarithmic scale"),
        ("lr=0.1", "There is nothing to search"),
    ],
)
def test_what_cannot_be_searched(typed: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=r".*") as caught:
        made(typed)
    assert sentence in caught.value.message


def test_a_range_in_a_grid_is_its_values() -> None:
    (override,) = sweeps.parsed(["hidden=range(16,40,8)"])
    assert distribution(override, DictConfig({}), listed=True) == CategoricalDistribution([16, 24, 32])


def test_the_later_word_counts() -> None:
    made_space = made("lr=interval(0.1,1)", "hidden=8", "lr=0.5", "hidden=8,16")
    assert made_space.fixed == {"lr": "lr=0.5"}
    assert list(made_space.varied) == ["hidden"]


def test_known_points_are_values_of_the_space() -> None:
    searched = made("hidden=int(interval(16,64))", "lr=1e-3,3e-3", "optimizer=adam,sgd", "optimizer.eps=interval(0,1)")
    row = ["hidden=32", "lr=0.003", "optimizer=sgd", "optimizer.eps=1e-1"]
    assert known(row, searched) == {"hidden": 32, "lr": 0.003, "optimizer": "sgd", "optimizer.eps": 0.1}
    for wrong in ("hidden=128", "lr=0.5", "optimizer=muon", "hidden=wide"):
        with pytest.raises(ConfigError, match=f"enqueue: {wrong} is not among what is searched"):
            known([wrong], searched)
    with pytest.raises(ConfigError, match="enqueue: epochs does not vary"):
        known(["epochs=3"], searched)


def test_the_corners_hold_each_end_and_each_choice() -> None:
    corners = made("lr=interval(0.1,1)", "optimizer=adam,sgd,muon", "epochs=3").corners()
    assert [row[0] for row in corners] == ["epochs=3"] * 3
    assert {override for row in corners for override in row[1:]} == {
        *("lr=0.1", "lr=1.0", "optimizer=adam", "optimizer=sgd", "optimizer=muon")
    }


def ask(varied: Space, params: dict[str, Any]) -> list[str]:
    study = create_study()
    study.enqueue_trial(params)
    return varied.point(study.ask())


HOOK = """
def space(trial):
    if trial.params["optimizer"] == "sgd":
        return {"optimizer.momentum": trial.suggest_float("momentum", 0.0, 1.0), "optimizer.nesterov": True}
    return {"hidden": [trial.suggest_int(f"width_{i}", 1, 9) for i in range(2)]}

def broken(trial):
    return 1 / 0
"""


def test_a_conditional_space(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (scratch / "conditional.py").write_text(HOOK)
    monkeypatch.syspath_prepend(scratch)
    made_space = made("optimizer=adam,sgd", "epochs=2", hook="conditional.space")
    first: Sequence[str] = ask(made_space, {"optimizer": "sgd", "momentum": 0.5})
    assert first == ["epochs=2", "optimizer=sgd", "optimizer.momentum=0.5", "optimizer.nesterov=true"]
    second = ask(made_space, {"optimizer": "adam", "width_0": 4, "width_1": 2})
    assert second == ["epochs=2", "optimizer=adam", "hidden=[4,2]"]
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        ask(made("lr=1,2", hook="conditional.broken"), {})
    with pytest.raises(ConfigError, match=r"hydra.sweeper.space=conditional.none is no function"):
        made("lr=1,2", hook="conditional.none")
