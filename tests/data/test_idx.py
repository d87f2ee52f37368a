"""The IDX format: golden bytes, a round trip for any array, and what is not one is refused."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mnist_exp.data import idx
from mnist_exp.errors import DataError

# Two images of 2x3, written by hand from the format's description.
GOLDEN = bytes.fromhex("00000803 00000002 00000002 00000003") + bytes(range(250, 256)) + bytes(range(6))


def written(content: bytes) -> Path:
    path = Path("some-idx3-ubyte")
    path.write_bytes(content)
    return path


def test_golden_bytes_are_read() -> None:
    array = idx.read(written(GOLDEN))
    assert array.dtype == torch.uint8
    assert array.tolist() == [[[250, 251, 252], [253, 254, 255]], [[0, 1, 2], [3, 4, 5]]]


def test_golden_bytes_are_written() -> None:
    array = torch.tensor([[[250, 251, 252], [253, 254, 255]], [[0, 1, 2], [3, 4, 5]]], dtype=torch.uint8)
    assert idx.encode(array) == GOLDEN


def test_a_view_is_written_in_its_own_order() -> None:
    array = torch.arange(6, dtype=torch.uint8).view(2, 3).t()
    assert idx.encode(array)[12:] == bytes([0, 3, 1, 4, 2, 5])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**32))
def test_any_array_survives_the_round_trip(shape: list[int], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    array = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
    assert torch.equal(idx.read(written(idx.encode(array))), array)


def test_writing_into_the_array_leaves_the_file_alone() -> None:
    path = written(GOLDEN)
    idx.read(path).zero_()
    assert path.read_bytes() == GOLDEN


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not an IDX file of bytes: it begins with nothing"),
        (b"\x1f\x8b\x08\x00 packed", "is not an IDX file of bytes: it begins with 1f8b0800"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00\x00\x00\x00", "begins with 00000d01"),  # floats
        (GOLDEN[:10], "ends within its header"),
        (GOLDEN[:-1], r"has 27 bytes, but its header \[2, 2, 3\] asks for 28"),
        (GOLDEN + b"!", r"has 29 bytes, but its header \[2, 2, 3\] asks for 28"),
    ],
    ids=["empty", "gzip", "floats", "short header", "short", "long"],
)
def test_what_is_not_an_idx_file_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        idx.read(written(content))


@given(st.integers(0, len(GOLDEN) - 1))
def test_every_cut_is_noticed(length: int) -> None:
    with pytest.raises(DataError):
        idx.read(written(GOLDEN[:length]))
