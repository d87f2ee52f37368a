"""The arguments of a training command in the order that Hydra wants, and those that it does not know."""

from collections.abc import Callable
from pathlib import Path

import pytest
from samples import TINY

from mnist_exp.console.command_line import arranged
from mnist_exp.errors import ConfigError

Command = Callable[..., tuple[int, str, str]]


def test_options_may_stand_anywhere() -> None:
    assert arranged(["hidden=8", "-m", "lr=1", "--config-dir", "c", "seed=0,1"]) == [
        *("-m", "--config-dir", "c", "hidden=8", "lr=1", "seed=0,1"),
    ]
    assert arranged(["hidden=8", "--cfg", "job"]) == ["--cfg", "job", "hidden=8"]


@pytest.mark.parametrize(
    ("typed", "way_out"),
    [
        ("--hidden 64", "without dashes: hidden=64"),
        ("--hidden=64 lr=1", "without dashes: hidden=64"),
        ("--learning-rate 0.1", "without dashes: lr=0.1"),
        ("--gpu", "without dashes: device=cuda"),
        ("--epochs lr=1", "without dashes: epochs=…"),
        ("--nonsense", "See --help"),
        ("--dryrun", "Did you mean --dry-run?"),
        ("-m hidden=8,16 --dry_run", "Did you mean --dry-run?"),
        ("--resolve", "Write --cfg job --resolve"),
        ("--experimental-rerun x.pickle", "python -m mnist_exp.rerun RUN"),
        ("~tracking", "Write tracking=off"),
        ("~augment tracking=off", "Write augment=none"),
        ("~cluster", "Drop '~cluster'."),
        ("-m resume=last,best hidden=16,17", "Give it one value."),
        ("-m search=tpe,random lr=1,2", "Give it one value."),
        ("-m +hydra.sweeper.params.hidden=8,9", "Write hidden=8,9"),
        ("+hydra.sweeper.params.hidden=8,9", "Add -m"),
        ("-m n_trials=2,3 lr=1,2", "Give it one value."),
        ("-m hydra.launcher.workers=1,2 lr=1,2", "Give it one value."),
        ("-m search=tpe hidden=[interval(8,16),interval(8,16)]", "hydra.sweeper.space="),
        ("hidden=[choice(8,16)]", "hydra.sweeper.space="),
    ],
)
def test_a_word_that_hydra_does_not_know_says_how_it_is_written(typed: str, way_out: str) -> None:
    with pytest.raises(ConfigError) as caught:
        arranged(typed.split())
    assert way_out in caught.value.help


@pytest.mark.parametrize("typed", ["~optimizer.weight_decay", "+tags.why=x", "-sc install=bash"])
def test_other_words_stay(typed: str) -> None:
    assert arranged(typed.split()) == typed.split()


def test_the_config_of_a_sweep_has_the_first_values() -> None:
    typed = ["hidden=16,17", "lr=interval(0.1,0.2)", "optimizer=glob(s*)", "seed=3"]
    assert arranged(["-m", *typed, "--cfg", "job"]) == [
        *("--cfg", "job", "hidden=16", "lr=0.1", "optimizer=sgd", "seed=3"),
    ]


def test_a_keyword_of_a_swept_option_is_not_asked_of_the_default_one() -> None:
    assert arranged(["-m", "optimizer=sgd,muon", "optimizer.momentum=0.8", "seed=3"]) == [
        *("-m", "optimizer=sgd,muon", "++optimizer.momentum=0.8", "seed=3"),
    ]
    assert arranged(["-m", "hidden=8,9", "optimizer.momentum=0.8"])[-1] == "optimizer.momentum=0.8"


@pytest.mark.integration
def test_cfg_of_a_sweep(command: Command) -> None:
    code, out, err = command("-m", "hidden=16,17", "--cfg", "job", "--package", "hidden")
    assert (code, out, err) == (0, "16\n", "")


@pytest.mark.integration
def test_a_keyword_that_only_some_swept_options_have(command: Command) -> None:
    quick = [*TINY, "hydra/launcher=basic", "hydra.sweeper.report=false"]
    code, out, err = command("-m", *quick, "optimizer=sgd,muon", "optimizer.momentum=0.8")
    assert code == 0, err
    assert "2 runs (2 finished)" in out
    Path("outputs").rename("before")
    code, _, err = command("-m", *quick, "optimizer=sgd,adam", "optimizer.momentum=0.8")
    assert code == 2
    assert "optimizer.momentum is not a setting of Adam." in err
    assert not list(Path("outputs").rglob("ledger.json"))


@pytest.mark.parametrize(
    ("typed", "way_out"), [("hidden=16 hidden=16,32", "Set it once"), ("+tags.a=1 +tags.a=2", "-m +tags.a=1,2")]
)
def test_a_key_that_is_set_twice_is_refused_before_its_values_are(typed: str, way_out: str) -> None:
    with pytest.raises(ConfigError, match="is set more than once") as caught:
        arranged(typed.split())
    assert way_out in caught.value.help
