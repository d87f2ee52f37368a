"""What a warm start saves a test: processor seconds of single commands, started in both ways in turn.

    python -m benchmarks.warm

Of a warm start, the two forks by its server are not counted: they take a twentieth of a second.
"""

import importlib
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mnist_exp.config.stores  # noqa: F401  it sets variables that MLflow reads when it is imported, in the server, too
from benchmarks.measure import processor_seconds

ONE = ["data=synthetic", "epochs=1", "hidden=16"]
COMMANDS = {
    "a config (--cfg job)": ["--cfg", "job"],
    "a run, tracking=off": [*ONE, "tracking=off"],
    "a run": ONE,
    "a sweep of two, tracking=off": ["-m", *ONE[:2], "hidden=16,17", "tracking=off"],
    "a sweep of two": ["-m", *ONE[:2], "hidden=16,17"],
}
TIMES = 3


def seconds(typed: list[str], environ: dict[str, str], program: Sequence[str] = ("-m", "mnist_exp.train")) -> float:
    """Processor seconds of the command in a folder of its own; *program* is what Python runs."""
    with tempfile.TemporaryDirectory() as folder:
        return processor_seconds([*program, *typed], Path(folder), environ)


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    os.environ["PYTHONPATH"] = str(root)
    sys.path.insert(0, str(root / "tests" / "support"))
    warm: Any = importlib.import_module("warm")
    warm.install(warm.always(dict(os.environ)))
    seconds(COMMANDS["a config (--cfg job)"], {})  # the server starts
    print("| command | cold | warm |\n| --- | ---: | ---: |")  # noqa: T201
    for name, typed in COMMANDS.items():
        pairs = [(seconds(typed, warm.COLD), seconds(typed, {})) for _ in range(TIMES)]
        cold, warmed = (statistics.median(each) for each in zip(*pairs, strict=True))
        print(f"| {name} | {cold:.1f} s | {warmed:.1f} s |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
