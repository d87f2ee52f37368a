"""Overrides are text."""

import os

import pytest

from mnist_exp.config import compose
from mnist_exp.config.overrides import check_text
from mnist_exp.errors import ConfigError


def test_bytes_that_are_no_text_are_refused() -> None:
    check_text(["name=näive", "hidden=16"])
    with pytest.raises(ConfigError, match="bytes that are not UTF-8") as refused:
        check_text(["hidden=16", os.fsdecode(b"name=a\xffb")])
    assert str(refused.value).isascii()
    with pytest.raises(ConfigError, match="bytes that are not UTF-8"):
        compose(["+tags.why='\udcff'"])
