"""The values of a sweep: those that were typed, in order, and at least one."""

from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader

from mnist_exp.config import sweeps
from mnist_exp.errors import ConfigError


class Options(ConfigLoader):  # type: ignore[misc]  # hydra ships no types
    """A loader that knows four optimisers."""

    def get_group_options(self, *_: object, **__: object) -> list[str]:
        return ["adam", "adamw", "muon", "sgd"]

    load_configuration = load_sweep_config = get_search_path = get_sources = list_groups = None


Options.__abstractmethods__ = frozenset()


def values(typed: str) -> list[Any]:
    (override,) = sweeps.parsed([typed], Options())
    return list(override.sweep_iterator())


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("hidden=sort(range(16,70,20),reverse=true)", [56, 36, 16]),
        ("hidden=sort(range(16,70,20))", [16, 36, 56]),
        ("hidden=sort(range(70,16,-20))", [30, 50, 70]),
        ("hidden=sort(range(70,16,-20),reverse=true)", [70, 50, 30]),
        ("hidden=sort(sweep=range(16,70,20),reverse=true)", [56, 36, 16]),
        ("lr=sort(range(0.5,2,0.5),reverse=true)", [1.5, 1.0, 0.5]),
        ("hidden=sort(32,16,64)", [16, 32, 64]),
        ("hidden=sort(choice(32,16,64),reverse=true)", [64, 32, 16]),
        ("optimizer=glob([a*,s*],exclude=adamw)", ["adam", "sgd"]),
    ],
)
def test_values(typed: str, expected: list[Any]) -> None:
    assert values(typed) == expected


@pytest.mark.parametrize(
    ("typed", "sentence", "way_out"),
    [
        ("hidden=range(64,16,16)", "hidden=range(64,16,16) has no values.", "or down: range(64,15,-16)"),
        ("hidden=range(1,5,0)", "has steps of 0.", "range(16,65,16)"),
        ("lr=range(1.5,0.5,0.1)", "has no values.", "range(16,65,16)"),
        ("optimizer=glob(x*)", "optimizer=glob(x*) has no values.", "There are: adam, adamw, muon, sgd"),
        ("hidden=glob(*5)", "hidden=glob(*5) has no values.", "hidden is no group of options."),
        ("lr=tag(logarithmic,interval(1e-4,1e-1))", "there is no tag logarithmic.", "'lr=tag(log,interval(…))'"),
        ("hidden=tag(log,range(16,65,16))", "only an interval has a logarithmic scale", "hidden=tag(log,interval("),
        ("hidden=[interval(8,16),interval(8,16)]", "what varies cannot be inside a list.", "hydra.sweeper.space="),
        ("hidden=[8,choice(8,16)]", "what varies cannot be inside a list.", "'hidden=[8,8],[8,16]'"),
        ("hidden=[8,range(8,16)],[8]", "what varies cannot be inside a list.", "'hidden=[8,8],[8],[8,16],[8]'"),
        ("lr=[tag(log,interval(0.1,1))]", "what varies cannot be inside a list.", "'lr=[0.1],[1]'"),
        ("lr=range(0.1,0.5,0)", "lr=range(0.1,0.5,0) has steps of 0.", "range(16,65,16)"),
        ("lr=[interval(0.8,0.9),1]", "what varies cannot be inside a list.", "'lr=[0.8,1],[0.9,1]'"),
        ("model={dropout:interval(0,1)}", "what varies cannot be inside a list.", "hydra.sweeper.space="),
    ],
)
def test_what_has_no_values_or_no_meaning(typed: str, sentence: str, way_out: str) -> None:
    with pytest.raises(ConfigError) as caught:
        values(typed)
    assert sentence in caught.value.message
    assert way_out in caught.value.help
