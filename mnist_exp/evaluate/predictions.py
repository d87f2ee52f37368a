"""Which class each picture shows, by one network, a line for each."""

import json
from collections.abc import Sequence
from pathlib import Path

from mnist_exp import config
from mnist_exp.console.formats import percent
from mnist_exp.console.terminal import shown
from mnist_exp.disk import trust


def lines(folder: Path, paths: Sequence[Path], as_json: bool = False) -> list[str]:
    """A line for each of the pictures *paths*, by the network of the run in *folder*.

    Raises:
        ExperimentError: the run has no weights, or a file is not a picture.
    """
    import numpy as np

    from mnist_exp.evaluate import pictures

    settings = trust.load(folder)
    # Before torch: a wrong file is reported at once.
    pixels = np.stack([pictures.read(path, settings.data) for path in paths])
    from mnist_exp.evaluate.answers import probabilities
    from mnist_exp.run import export

    names = config.classes(settings.data)
    rows = zip(paths, probabilities(export.restore(settings, folder), pixels), strict=True)
    if as_json:
        records = (
            {"file": str(path), "digit": int(p.argmax()), "class": names[p.argmax()], "probabilities": p.tolist()}
            for path, p in rows
        )
        return [json.dumps(each) for each in records]
    width = max(len(str(path)) for path in paths)
    head = f"Network: {shown(folder)} (seed {settings.seed})"
    return [head, *(f"{path!s:<{width}}  {sentence(p.tolist(), names)}" for path, p in rows)]


def sentence(probabilities: Sequence[float], names: Sequence[str]) -> str:
    """`7   99.1 %   (then 1: 0.6 %, 9: 0.2 %)`: the answer, and what else it may be."""
    first, *others = sorted(range(len(names)), key=lambda label: -probabilities[label])[:3]
    then = ", ".join(f"{names[label]}: {percent(probabilities[label], 1)}" for label in others)
    return f"{names[first]}  {percent(probabilities[first], 1):>7}   (then {then})"
