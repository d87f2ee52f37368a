"""Prints the lowest versions that pyproject.toml allows: `python .ci/lowest.py >.ci/lowest.txt`."""

import re
import tomllib
from pathlib import Path

EXTRAS = ("test", "search", "cmaes")
# Only the locked torch comes as a small build for the processor; the others bring gigabytes of CUDA.
AS_LOCKED = {"torch", "torchvision"}


def lowest(project: dict) -> list[str]:
    """`name==version` for each dependency of a user and of the tests that has a lower bound."""
    lines = [*project["dependencies"], *(line for e in EXTRAS for line in project["optional-dependencies"][e])]
    found = [re.match(r"([\w-]+)>=([\w.]+)", line) for line in lines]
    return sorted(f"{bound[1]}=={bound[2]}" for bound in found if bound and bound[1] not in AS_LOCKED)


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    print("# The lowest versions of pyproject.toml, which CI tests. Made by .ci/lowest.py.", *lowest(project), sep="\n")  # noqa: T201
