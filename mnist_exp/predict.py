"""`python -m mnist_exp.predict`, or `mnist-exp-predict`: which digit a picture shows."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_exp import config
from mnist_exp.console import arguments as words
from mnist_exp.console import exits as command
from mnist_exp.console.terminal import console, shown
from mnist_exp.disk import trust
from mnist_exp.errors import ConfigError
from mnist_exp.results import names as naming

ABOUT = """\
Says which digit each picture shows, and how sure the network is. Any size and colour, dark on light or light on
dark, transparent or not: one digit each. A picture is cropped, scaled and centred as MNIST's were."""
KEYS = {"run": ("last", "whose network: a folder, an MLflow run id, last, best, or best:<sweep>")}
EXAMPLES = """\
  python -m mnist_exp.predict seven.png
  python -m mnist_exp.predict run=best scans/*.jpg
  python -m mnist_exp.predict run=best:14-03-22 seven.png --json | jq .digit

exit codes: 0 every picture was read · 2 usage, no such run, or a file that is not a picture of a digit
"""


def main(arguments: Sequence[str]) -> None:
    """Prints digit and probabilities of each picture.

    Raises:
        ExperimentError: there is no such run, or a file is not a picture of a digit.
        SystemExit: usage (2), or `--help` (0).
    """
    typed = words.read(
        arguments,
        "predict",
        ABOUT,
        KEYS,
        EXAMPLES,
        names=("image …", "pictures, or folders of them"),
        flags={"json": "print one JSON object for each picture"},
        offers={"run": naming.offered},
    )
    if not typed.names:
        raise ConfigError("Which picture?", "Name one: python -m mnist_exp.predict image.png")
    paths = [path for name in typed.names for path in listed(Path(name))]
    folder = naming.one(typed.values["run"])
    for line in predict(folder, paths, "json" in typed.flags):
        console.out(line, highlight=False)


def listed(path: Path) -> list[Path]:
    """*path*, or the pictures in it where it is a folder.

    Raises:
        ConfigError: a folder without pictures.
    """
    from mnist_exp.evaluate import pictures

    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in pictures.SUFFIXES)
    if not found:
        raise ConfigError(f"There are no pictures in {path}.", f"Known are {', '.join(pictures.SUFFIXES)}.")
    return found


def predict(folder: Path, paths: Sequence[Path], as_json: bool = False) -> list[str]:
    """A line for each of the pictures *paths*, by the network of the run in *folder*.

    Raises:
        ExperimentError: the run has no weights, or a file is not a picture of a digit.
    """
    import numpy as np

    from mnist_exp.evaluate import pictures

    pixels = np.stack([pictures.read(path) for path in paths])  # before torch: a wrong file is told at once
    from mnist_exp.evaluate import answers as best
    from mnist_exp.run import session as run

    about = trust.load(folder)
    found = best.probabilities(run.restore(about, folder), pixels)
    if as_json:
        return [
            json.dumps({"file": str(path), "digit": int(p.argmax()), "probabilities": [float(v) for v in p]})
            for path, p in zip(paths, found, strict=True)
        ]
    width = max(len(str(path)) for path in paths)
    names = config.classes(about.data)
    lines = [f"{path!s:<{width}}  {in_words(p, names)}" for path, p in zip(paths, found.tolist(), strict=True)]
    return [f"Network: {shown(folder)} (seed {about.seed})", *lines]


def in_words(probabilities: Sequence[float], names: Sequence[str]) -> str:
    """`7   99.1 %   (then 1: 0.6 %, 9: 0.2 %)`: the answer, and what else it may be."""
    order = sorted(range(10), key=lambda label: -probabilities[label])
    others = ", ".join(f"{names[i]}: {100 * probabilities[i]:.1f} %" for i in order[1:3])
    return f"{names[order[0]]}  {100 * probabilities[order[0]]:5.1f} %   (then {others})"


def cli() -> None:
    """Runs `main`; every error becomes a sentence and an exit code."""
    sys.exit(command.run(lambda: main(sys.argv[1:])))


if __name__ == "__main__":
    cli()
