"""`metrics.jsonl`: each epoch once, in order, whatever was torn."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_exp.disk import journal
from mnist_exp.disk.journal import Journal, Row

HERE = Path()


def row(epoch: int, loss: float = 1.0) -> Row:
    metrics = {"train/loss": loss, "time/epoch": 0.5}
    return {"epoch": epoch, "step": 7 * epoch, "time_ms": 1000 + epoch, "metrics": metrics}


def written(*rows: Row) -> str:
    return "".join(json.dumps(r) + "\n" for r in rows)


@pytest.fixture(autouse=True)
def begun() -> Path:
    path = HERE / "metrics.jsonl"
    path.write_text(written(row(1), row(2)))
    return path


def test_rows_are_read_in_order() -> None:
    assert journal.read(HERE) == [row(1), row(2)]


def test_no_file_has_no_rows(begun: Path) -> None:
    begun.unlink()
    assert journal.read(HERE) == []


@given(st.integers(1, len(written(row(3))) - 2))
def test_a_torn_last_line_is_no_row(length: int) -> None:
    path = HERE / "metrics.jsonl"
    path.write_text(written(row(1), row(2)) + written(row(3))[:length])
    assert journal.read(HERE) == [row(1), row(2)]


def test_going_on_mends_a_torn_line(begun: Path) -> None:
    begun.write_text(written(row(1), row(2)) + '{"epoch": 3, "st')
    book = Journal(HERE, [row(1), row(2)])
    book.append(row(3))
    assert begun.read_text() == written(row(1), row(2), row(3))


def test_no_epoch_is_written_twice(begun: Path) -> None:
    """The file is ahead of the state: the epoch that is trained again keeps its first row, and its time."""
    book = Journal(HERE, [row(1)])
    again = book.row(2, 14, 9999, {"train/loss": 0.5})
    assert again == row(2)
    book.append(again)
    book.append(book.row(3, 21, 1003, row(3)["metrics"]))
    assert begun.read_text() == written(row(1), row(2), row(3))


def test_rows_that_the_file_lacks_come_from_the_state(begun: Path) -> None:
    """The state is ahead of the file: a crash came between the two."""
    Journal(HERE, [row(1), row(2), row(3)])
    assert begun.read_text() == written(row(1), row(2), row(3))


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Journal(HERE, []).append(row(3, float("nan")))
    with pytest.raises(ValueError, match="not JSON compliant"):
        Journal(HERE, [row(1), row(2), row(3, float("nan"))])
    assert len(journal.read(HERE)) == 2


@pytest.mark.parametrize(
    "line",
    ["[]", "3", "null", '{"epoch": 3}', json.dumps(row(4)), json.dumps(row(2)), json.dumps(row(3) | {"epoch": "3"})],
)
def test_a_line_that_is_no_row_of_the_next_epoch_ends_the_journal(line: str, begun: Path) -> None:
    begun.write_text(written(row(1), row(2)) + line + "\n" + written(row(3)))
    assert journal.read(HERE) == [row(1), row(2)]


WRONG: list[dict[str, Any]] = [
    *({"metrics": [1]}, {"metrics": {"x": "y"}}, {"step": "a"}, {"time_ms": 10**30}),
    *({"metrics": {"train/loss": 1.0}}, {"metrics": {"time/epoch": -1.0}}),
    {"metrics": {"time/epoch": 0.5, "val/accuracy": 97.8}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_row_of_other_types_is_damaged(wrong: Row, begun: Path) -> None:
    begun.write_text(written(row(1), row(2) | wrong))
    assert journal.read(HERE) == [row(1)]
