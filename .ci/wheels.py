"""Fails if a version in constraints.txt has no wheel for one of the Pythons that pyproject.toml names.

    python .ci/wheels.py    # after a change of either: minutes, for the package index of pip is asked for each

`.ci/run` leaves it out: an answer changes with these two files only.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
WITHOUT = {"antlr4-python3-runtime"}  # pure Python that never had a wheel; pip builds it in a second
PIP = "pip install --dry-run --quiet --no-deps --ignore-installed --only-binary :all: --target nowhere"


def pythons(pyproject: str) -> list[str]:
    """The versions that the classifiers name."""
    classifiers = tomllib.loads(pyproject)["project"]["classifiers"]
    return [found[1] for each in classifiers if (found := re.fullmatch(r".*:: Python :: (3\.\d+)", each))]


def locked(constraints: str) -> list[str]:
    """The lines of *constraints* that should have wheels."""
    lines = [line for line in constraints.splitlines() if "==" in line and not line.startswith("#")]
    return [line for line in lines if line.partition("==")[0].lower() not in WITHOUT]


def lacking(wanted: list[str], python: str) -> list[str]:
    """What of *wanted* pip finds no wheel of for *python*; it names one at a time."""
    without: list[str] = []
    while True:
        rest = [each for each in wanted if each not in without]
        command = [sys.executable, "-m", *PIP.split(), "--python-version", python, *rest]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return without
        missing = re.search(r"No matching distribution found for (\S+)", done.stderr)
        if not missing or missing[1] not in rest:
            sys.exit(done.stderr)
        without.append(missing[1])


if __name__ == "__main__":
    chosen = locked((HERE / "constraints.txt").read_text(encoding="utf-8"))
    versions = pythons((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    found = {python: lacking(chosen, python) for python in versions}
    if bad := [f"Python {python}: {', '.join(names)}" for python, names in found.items() if names]:
        sys.exit("Without a wheel:\n" + "\n".join(bad))
    print(f"{len(chosen)} packages, each with a wheel for Python {', '.join(versions)}.")  # noqa: T201
