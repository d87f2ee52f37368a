"""`--help` is the reference: each setting with its meaning and range, each group with its options."""

import contextlib
import dataclasses
import io
import typing
from pathlib import Path

import pytest

from mnist_exp import config as configs
from mnist_exp import train
from mnist_exp.config import Config

SETTINGS = list(configs.settings())


@pytest.fixture(scope="module")
def page() -> str:
    """The page, printed once for all tests of this file."""
    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(screen):
        patch.setattr("sys.argv", ["mnist-exp", "--help"])
        with pytest.raises(SystemExit) as left:
            train.cli()
    assert not left.value.code
    return screen.getvalue()


def test_every_setting_stands_on_the_page_with_its_meaning(page: str) -> None:
    for name, setting in configs.settings().items():
        line = next(line for line in page.splitlines() if line.split()[:1] == [name])
        assert setting.help in line
        assert setting.rule.text in line
        if isinstance(setting.default, int) and not isinstance(setting.default, bool):
            assert line.endswith(f"[{setting.default}]")


def test_no_field_of_the_schema_is_left_out() -> None:
    wanted = set()
    for name, kind in typing.get_type_hints(Config).items():
        inner = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
        wanted |= {f"{name}.{key}" for key in inner} or {name}
    assert set(SETTINGS) == wanted


def test_the_groups_and_examples_stand_on_the_page(page: str) -> None:
    for group in ("model", "optimizer", "schedule", "data", "tracking", "checkpoint", "experiment"):
        options = sorted(path.stem for path in Path(configs.conf_dir(), group).glob("*.yaml"))
        assert f"{group}: {', '.join(options)}" in page
    assert "python -m mnist_exp.train hidden=256" in page


def test_no_line_is_unfinished(page: str) -> None:
    assert "???" not in page
    assert "$APP" not in page
    assert "mnist_exp.settings" not in page
