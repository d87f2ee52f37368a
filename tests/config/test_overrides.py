"""Overrides as they are typed: text, and each key once."""

import os
from collections.abc import Callable

import pytest

from mnist_exp.config import compose
from mnist_exp.config.overrides import check_once, check_text
from mnist_exp.errors import ConfigError


def test_bytes_that_are_no_text_are_refused() -> None:
    check_text(["name=näive", "hidden=16"])
    with pytest.raises(ConfigError, match="bytes that are not UTF-8") as refused:
        check_text(["hidden=16", os.fsdecode(b"name=a\xffb")])
    assert str(refused.value).isascii()
    with pytest.raises(ConfigError, match="bytes that are not UTF-8"):
        compose(["+tags.why='\udcff'"])


@pytest.mark.parametrize("typed", ["hidden={}", "seed=-{}", "hidden=[8,{}]", "lr=1e{}", "lr=0.{}", "-m hidden={},8"])
def test_a_number_without_end_is_refused(typed: str, command: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = command(*typed.format("7" * 5000).split())
    assert code == 2, err
    assert "has a number of 5,000 digits." in err
    assert len(err) < 300, "it is not repeated"


@pytest.mark.parametrize("deep", ["hidden=" + "[" * 5000, "hidden=" + "[" * 999 + "]" * 999, "model={a:" + "{a:" * 99])
def test_brackets_without_bottom_are_refused(deep: str, command: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = command(deep)
    assert code == 2, err
    assert "has brackets that are " in err


@pytest.mark.parametrize(
    "typed",
    [
        ["hidden=16", "hidden=32"],  # bash makes this of hidden={16,32}
        ["hidden=16", "seed=1", "++hidden=32"],
        ["hidden=16,32", "hidden=64"],
        ["optimizer=sgd", "optimizer=adam"],
        ["~tracking", "tracking=off"],
        ["hydra.sweep.dir=a", "hydra.sweep.dir=b"],
        ["resume=a", "resume=a"],
    ],
    ids=" ".join,
)
def test_a_key_that_is_set_twice_is_refused(typed: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"is set (more than once|and deleted)"):
        check_once(typed)


def test_the_way_out_is_the_line_that_was_meant() -> None:
    with pytest.raises(ConfigError) as caught:
        check_once(["epochs=1", "hidden=16", "hidden=32"])
    assert caught.value.message == "hidden is set more than once: hidden=16 hidden=32."
    assert "-m hidden=16,32 (bash makes several words of hidden={16,32})" in caught.value.help
    with pytest.raises(ConfigError) as caught:
        check_once(["hidden=16", "hidden=16"])


@pytest.mark.parametrize("key", ["hydra.launcher.workers", "n_trials", "resume", "cluster"])
def test_what_a_sweep_has_once_is_not_advised_to_vary(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_once([f"{key}=1", f"{key}=2"])
    assert caught.value.help == "Set it once."
    assert caught.value.help == "Set it once."


def test_keys_of_one_group_are_several() -> None:
    check_once(["model=custom", "model.hidden=3", "+tags.a=1", "+tags.b=1"])


def test_python_is_no_other_command_line() -> None:
    with pytest.raises(ConfigError, match="batch_size is set more than once"):
        compose(["batch_size=32", "batch_size=16"])
