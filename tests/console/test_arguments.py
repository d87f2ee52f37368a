"""How commands read what people type."""

from argparse import Namespace
from pathlib import Path

import pytest

from mnist_exp.console.arguments import Key, Parser

KEYS = {"run": Key("last", "which run"), "split": Key("test", "which images")}


def read(*typed: str, names: str = "") -> Namespace:
    parser = Parser("look", "Looks.", "examples\n  look run=best")
    parser.add_overrides(KEYS, names, "pictures" if names else "")
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser.read(typed)


def test_keys_have_defaults_and_come_in_any_order_among_flags() -> None:
    typed = read()
    assert (typed.run, typed.split, typed.json) == ("last", "test", False)
    typed = read("split=val", "--json", "run=best:10-00-00")
    assert (typed.run, typed.split, typed.json) == ("best:10-00-00", "val", True)


def test_a_value_may_hold_an_equals_sign() -> None:
    assert read("run=a=b").run == "a=b"


def test_names_are_taken_only_where_there_are_any(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scratch / "a=b.png").touch()
    typed = read("a=b.png", "run=x", "--json", "c.png", names="image …")
    assert (typed.names, typed.run, typed.json) == (["a=b.png", "c.png"], "x", True)
    with pytest.raises(SystemExit) as left:
        read("last")
    assert left.value.code == 2
    assert "'last' is not known; keys: run, split" in capsys.readouterr().err


def test_a_key_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        read("run=best", "run=last")
    assert left.value.code == 2
    assert "run is set more than once" in capsys.readouterr().err


def test_a_typo_is_answered_with_the_nearest_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        read("splt=val", names="image …")
    assert left.value.code == 2
    assert "did you mean split=val?" in capsys.readouterr().err


def test_a_command_without_words_takes_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        Parser("look", "Looks.", "").read(["run=best"])
    assert left.value.code == 2
    assert "unrecognized arguments: run=best" in capsys.readouterr().err


def test_help_shows_keys_flags_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        read("--help")
    assert left.value.code == 0
    page = capsys.readouterr().out
    for part in ("python -m mnist_exp.look", "run=last", "which images", "--json", "look run=best"):
        assert part in page
