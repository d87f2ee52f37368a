"""How commands read what people type."""

from pathlib import Path

import pytest

from mnist_exp.console import arguments as words
from mnist_exp.console.arguments import Typed

KEYS = {"run": ("last", "which run"), "split": ("test", "which images")}


def read(*typed: str, names: tuple[str, str] = ("", "")) -> Typed:
    return words.read(typed, "look", "Looks.", KEYS, "  look run=best", names, {"json": "as JSON"})


def test_keys_have_defaults_and_come_in_any_order_among_flags() -> None:
    assert read().values == {"run": "last", "split": "test"}
    found = read("split=val", "--json", "run=best:10-00-00")
    assert found.values == {"run": "best:10-00-00", "split": "val"}
    assert found.flags == {"json"}


def test_a_value_may_hold_an_equals_sign() -> None:
    assert read("run=a=b").values["run"] == "a=b"


def test_names_are_taken_only_where_there_are_any(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scratch / "a=b.png").touch()
    assert read("a=b.png", "run=x", "c.png", names=("image", "a picture")).names == ["a=b.png", "c.png"]
    with pytest.raises(SystemExit) as left:
        read("last")
    assert left.value.code == 2
    assert "'last' is not known; keys: run, split" in capsys.readouterr().err


def test_a_typo_is_told_with_the_nearest_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        read("splt=val", names=("image", "a picture"))
    assert left.value.code == 2
    assert "did you mean split=val?" in capsys.readouterr().err


def test_help_shows_keys_flags_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        read("--help")
    assert left.value.code == 0
    page = capsys.readouterr().out
    for part in ("python -m mnist_exp.look", "run=last", "which images", "--json", "look run=best"):
        assert part in page
