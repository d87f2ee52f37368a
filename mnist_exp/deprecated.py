"""What still works, and from which version on it will not. docs/compatibility.md has the promise.

tests/project/test_compatibility.py fails once the project's version has reached one of them.
"""

from typing import NamedTuple, final


@final
class Deprecation(NamedTuple):
    what: str
    until: str
    """The first version without it."""
    instead: str

    def __str__(self) -> str:
        return f"{self.what} ends with version {self.until}. Instead: {self.instead}"


SEARCHED_SEED = Deprecation(
    "Going on with a search that took a seed or a fold for something to search",
    "2.0.0",
    "a new search, seed=0,1,2 gives each trial a run of each; enqueue=<this sweep> tries the best of this one first",
)
DEPRECATED = (SEARCHED_SEED,)
