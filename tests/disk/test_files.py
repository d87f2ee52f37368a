"""A file is whole or absent, whoever fails when."""

import errno
import os
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_exp.disk import files


def everything() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def test_the_file_is_replaced_and_nothing_is_left_beside_it() -> None:
    files.atomic_write(Path("file"), b"old")
    files.atomic_write(Path("file"), b"new")
    assert everything() == {"file": b"new"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_a_failed_write_leaves_the_old_file(call: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    files.atomic_write(Path("file"), b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(type(error)):
        files.atomic_write(Path("file"), b"new")
    assert everything() == {"file": b"old"}


@pytest.mark.not_on("win32", "Windows makes names durable by itself")
def test_bytes_are_durable_before_their_name_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        said.append("fsync directory" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "fsync file")
        fsync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        said.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    files.atomic_write(Path("file"), b"new")
    assert said == ["fsync file", "replace", "fsync directory"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(JSON)
def test_json_survives_the_round_trip(value: object) -> None:
    files.write_json(Path("file.json"), value)
    assert files.read_json(Path("file.json")) == value


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(Path("file.json"), value)
    assert everything() == {}


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*/ledger\.json'"):
        files.atomic_write(tmp_path / "ledger.json", b"{}")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mnist_exp", "mnist_exp"),
        ("a/b: c?", "a_b_c_"),
        (r"a\b", "a_b"),
        ("..hidden", "_hidden"),
        ("ends in dots..", "ends_in_dots_"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("com1", "_com1"),
        ("contact", "contact"),
    ],
)
def test_a_name_is_one_on_every_system(text: str, name: str) -> None:
    assert files.file_name(text) == name


@pytest.mark.integration
@given(st.text(min_size=1, max_size=20))
def test_any_text_gives_a_name_that_windows_takes(text: str) -> None:
    name = files.file_name(text)
    assert name
    assert not set(name) & set('<>:"/\\|?*')
    assert not name.endswith((".", " "))
    assert not PureWindowsPath(name).is_reserved()
