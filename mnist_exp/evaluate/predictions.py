"""Which class each picture shows, by one network, a line for each."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import config
from mnist_exp.config import Config
from mnist_exp.console.formats import percent
from mnist_exp.console.terminal import shown
from mnist_exp.disk import trust
from mnist_exp.errors import DataError

if TYPE_CHECKING:
    import numpy as np


def lines(folder: Path, paths: Sequence[Path], as_json: bool) -> Iterator[str]:
    """A line for each of the pictures *paths*, by the network of the run in *folder*.

    Raises:
        ExperimentError: the run has no weights; or, after the lines of the others, files are not pictures.
    """
    from mnist_exp.evaluate import pictures

    settings = trust.load(folder)
    pixels: dict[Path, np.ndarray] = {}
    faults: list[DataError] = []
    for path in paths:  # before torch: wrong files are reported at once if there are no others
        try:
            pixels[path] = pictures.read(path, settings.data)
        except DataError as error:
            faults.append(error)
    if pixels:
        yield from _answered(folder, settings, pixels, as_json)
    if faults:
        text = "\n  ".join(error.message for error in faults)
        raise DataError(text, faults[0].help) from faults[0]


def _answered(folder: Path, settings: Config, pixels: "dict[Path, np.ndarray]", as_json: bool) -> list[str]:
    import numpy as np

    from mnist_exp.evaluate.answers import probabilities
    from mnist_exp.run import export

    network, names = export.restore(settings, folder), config.classes(settings.data)
    rows = zip(pixels, probabilities(network, np.stack(list(pixels.values()))), strict=True)
    if as_json:
        records = (
            {"file": str(path), "digit": int(p.argmax()), "class": names[p.argmax()], "probabilities": p.tolist()}
            for path, p in rows
        )
        return [json.dumps(each) for each in records]
    width = max(len(str(path)) for path in pixels)
    head = f"Network: {shown(folder)} (seed {settings.seed})"
    return [head, *(f"{path!s:<{width}}  {sentence(p.tolist(), names)}" for path, p in rows)]


def sentence(probabilities: Sequence[float], names: Sequence[str]) -> str:
    """`7   99.1 %   (then 1: 0.6 %, 9: 0.2 %)`: the answer, and what else it may be."""
    first, *others = sorted(range(len(names)), key=lambda label: -probabilities[label])[:3]
    then = ", ".join(f"{names[label]}: {percent(probabilities[label], 1)}" for label in others)
    return f"{names[first]}  {percent(probabilities[first], 1):>7}   (then {then})"
