"""How hard documents are to read: what counts, and Flesch's formula on sentences counted by hand."""

import pytest
from samples import script

readability = script("readability")

PAGE = """\
# A heading of several words

First sentence here, with [a link](page.md#x) and `code`. And
the second one?

| a table | of no sentences |
| --- | --- |

```bash
python -m mnist_exp.train  # Not a sentence. Nor this.
```

- An item without a stop
- **Another item** with one.

[a](a.md) · [b](b.md) · [c](c.md) is a list of links
"""


def test_only_sentences_count() -> None:
    assert readability.sentences(readability.prose(PAGE)) == [
        "First sentence here, with a link and Code.",
        "And the second one?",
        "An item without a stop",
        "Another item with one.",
    ]


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("mat", 1),
        ("mean", 1),
        ("trained", 1),
        ("table", 2),
        ("network", 2),
        ("made", 1),
        ("divided", 3),
        ("authoritative", 5),
    ],
)
def test_syllables_are_groups_of_vowels(word: str, count: int) -> None:
    assert readability.syllables(word) == count


def test_short_words_in_short_sentences_are_easy() -> None:
    assert readability.ease(["The cat sat on the mat."]) == pytest.approx(206.835 - 1.015 * 6 - 84.6)
    hard = readability.ease(["Validation accuracy determines which configuration is selected."])
    assert hard < 0 < readability.ease(["Validation says which of them is best."])
