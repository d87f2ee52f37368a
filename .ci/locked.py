"""Fails if something is installed in another version than constraints.txt locks, or is not locked at all."""

import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NOT_OURS_TO_LOCK = {"mnist-exp", "pip"}  # what is tested, and what each new environment begins with


def loose(installed: Iterable[tuple[str, str]], constraints: str) -> list[str]:
    """What of *installed*, names and versions, is not as *constraints* say."""
    lines = [line for line in constraints.splitlines() if not line.startswith("#")]
    locked = {canonicalize_name(wanted.name): wanted.specifier for wanted in map(Requirement, lines)}
    found = {canonicalize_name(name): version for name, version in installed}
    return sorted(
        f"{name}=={version}"
        for name, version in found.items()
        if name not in NOT_OURS_TO_LOCK and (name not in locked or not locked[name].contains(version))
    )


if __name__ == "__main__":
    everything = [(each.name, each.version) for each in metadata.distributions()]
    text = Path(__file__).with_name("constraints.txt").read_text(encoding="utf-8")
    if unlocked := loose(everything, text):
        sys.exit("Not as .ci/constraints.txt has it: " + ", ".join(unlocked))
    print(f"{len(everything)} packages, all of them locked.")  # noqa: T201
