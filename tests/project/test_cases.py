"""`pytest --one-case`, of `tests/support/cases.py`."""

import cases

TESTS = {f"a.py::test_a[{case}]": [] for case in range(9)}
TESTS |= {"a.py::test_b": [], "b.py::test_stopped[TERM]": [(5,)], "b.py::test_stopped[INT]": [(6,)]}


def test_each_test_and_each_of_its_faults_keeps_one_case() -> None:
    kept = cases.drawn(TESTS, "2026-11-30")
    assert len(kept) == 4
    assert kept >= {"a.py::test_b", "b.py::test_stopped[TERM]", "b.py::test_stopped[INT]"}


def test_the_same_seed_draws_the_same_in_any_order() -> None:
    assert cases.drawn(dict(reversed(TESTS.items())), "7") == cases.drawn(TESTS, "7")


def test_every_case_is_drawn_at_some_time() -> None:
    assert set.union(*(cases.drawn(TESTS, str(seed)) for seed in range(100))) == {*TESTS}
