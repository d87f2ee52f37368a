"""`python -m mnist_exp.evaluate`, or `mnist-exp-evaluate`: what a trained network gets right and wrong."""

import contextlib
import difflib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from mnist_exp import config
from mnist_exp.console import arguments as words
from mnist_exp.console import exits as command
from mnist_exp.console import terminal
from mnist_exp.console.terminal import console, say, shown
from mnist_exp.disk import tracked, trust
from mnist_exp.errors import ConfigError, DataError
from mnist_exp.results import names as naming

if TYPE_CHECKING:
    import numpy as np

    from mnist_exp.charts.style import Picture
    from mnist_exp.config import Config
    from mnist_exp.evaluate.answers import Answers
    from mnist_exp.tracking.publisher import Publisher

ABOUT = """\
Measures a trained network and shows its mistakes: accuracy and loss, the most confused pairs, the most confident
mistakes, calibration, and the first layer's weights. Pictures go to figures/<images>/ in the run's folder, and to
the run in MLflow."""
KEYS = {
    "run": ("last", "whose network: a folder, an MLflow run id, last, best, or best:<sweep>"),
    "split": ("test", "train, val or test"),
    "data": ("", "other images: a dataset of conf/data, or a folder of pictures; empty: those of the run"),
}
EXAMPLES = """\
  python -m mnist_exp.evaluate
  python -m mnist_exp.evaluate run=best split=val
  python -m mnist_exp.evaluate run=outputs/runs/2026-01-31/14-03-22-9f8e7d data=fashion_mnist
  python -m mnist_exp.evaluate data=scans/        subfolders 0 to 9 hold the pictures of each digit;
                                                  pictures without such folders are only told apart
  python -m mnist_exp.evaluate run=best:14-03-22 --json | jq .accuracy

exit codes: 0 measured · 2 usage, no such run, or images that are missing or damaged
"""
SPLITS = ("train", "val", "test")
SHOWN = 8  # pairs on the screen


def main(arguments: Sequence[str]) -> None:
    """Measures the network that *arguments* name.

    Raises:
        ExperimentError: there is no such run, or its weights or the images are missing or damaged.
        SystemExit: usage (2), or `--help` (0).
    """
    typed = words.read(
        arguments,
        "evaluate",
        ABOUT,
        KEYS,
        EXAMPLES,
        flags={"json": "print the measurements as one JSON object"},
        offers={"run": naming.offered, "split": lambda: SPLITS, "data": lambda: config.options("data")},
    )
    logging.basicConfig(handlers=[terminal.WarningHandler(logging.WARNING)])
    split, source = typed.values["split"], typed.values["data"]
    if split not in SPLITS:
        raise ConfigError(f"split must be one of {', '.join(SPLITS)}, but got {split!r}.", "Try split=test.")
    folder = naming.one(typed.values["run"])
    about = trust.load(folder)
    if source and Path(source).is_dir():
        _evaluate_pictures(folder, about, Path(source), "json" in typed.flags)
        return
    from mnist_exp.disk import ledger
    from mnist_exp.evaluate import answers as best

    if source and source not in config.options("data"):
        folders = [f"{path.name}/" for path in Path().iterdir() if path.is_dir()]
        near = difflib.get_close_matches(source, [*config.options("data"), *folders])
        guess = f"Did you mean {' or '.join(near)}? " if near else ""
        listed = ", ".join(config.options("data"))
        raise ConfigError(f"There is no dataset or folder called {source!r}.", f"{guess}Datasets are {listed}.")
    if source:
        from mnist_exp.config.compose import compose

        where, digest = compose([f"data={source}"]).data, ""
    else:
        here = (folder / "ledger.json").exists()  # not where the run was downloaded
        where, digest = about.data, ledger.read(folder).dataset.get("digest", "") if here else ""
    pixels, labels = best.images(where, split, digest)
    name = {"val": "validation", "train": "training"}.get(split, split)
    _present(folder, about, f"{name} images of {where.name}", f"{where.name}-{split}", pixels, labels, typed.flags)


def _evaluate_pictures(folder: Path, about: "Config", source: Path, as_json: bool) -> None:
    """Measures on labelled pictures; of unlabelled ones, says what they show."""
    import numpy as np

    from mnist_exp import predict
    from mnist_exp.evaluate import pictures

    labelled = [(path, digit) for digit in range(10) for path in _inside(source / str(digit))]
    if not labelled:
        for line in predict.predict(folder, predict.listed(source), as_json):
            console.out(line, highlight=False)
        return
    pixels = np.stack([pictures.read(path) for path, _ in labelled])
    labels = np.array([digit for _, digit in labelled])
    name = source.resolve().name
    _present(folder, about, f"pictures in {source}", name, pixels, labels, frozenset({"json"} if as_json else ()))


def _inside(folder: Path) -> list[Path]:
    """The pictures in *folder*; none where there is no such folder.

    Raises:
        ConfigError: the folder is there, but empty.
    """
    from mnist_exp import predict

    return predict.listed(folder) if folder.is_dir() else []


def _present(
    folder: Path,
    about: "Config",
    where: str,
    place: str,
    pixels: "np.ndarray",
    labels: "np.ndarray",
    flags: frozenset[str],
) -> None:
    """Measures, draws and prints."""
    figures = folder / "figures" / place
    with _mlflow(folder, about) as publisher:  # which loads mlflow on another core meanwhile
        from mnist_exp.charts import style as drawing
        from mnist_exp.evaluate import answers as best
        from mnist_exp.run import session as run

        answers = best.ask(run.restore(about, folder), pixels, labels, config.classes(about.data))
        try:
            figures.mkdir(parents=True, exist_ok=True)
            for picture in pictures_of(answers, where):
                drawing.png(picture, figures)
        except OSError as error:
            raise DataError(f"The pictures cannot be written to {figures}: {error.strerror}.") from error
        if publisher:
            publisher.follow(folder)
        facts = measured(answers)
        if "json" not in flags:
            _show(folder, about.seed, where, answers, facts)
    sent = bool(publisher and publisher.delivered)
    if "json" in flags:
        found = {"format": 1, "run": str(folder), "images_of": where, **facts, "figures": str(figures), "mlflow": sent}
        console.out(json.dumps(found, allow_nan=False), highlight=False)
    else:
        say(f"Pictures: {shown(figures)}/{', and in MLflow' if sent else ''}")


def _show(folder: Path, seed: int, where: str, answers: "Answers", facts: dict[str, Any]) -> None:
    """Prints what was measured."""
    say(f"Network: {shown(folder)} (seed {seed})")
    say(
        f"{facts['images']:,} {where}: accuracy {100 * facts['accuracy']:.2f} %, loss {facts['loss']:.4f}, "
        f"ECE {100 * facts['ece']:.2f} %"
    )
    console.print(table(answers))
    names, plural = answers.names, "s" if answers.names is config.DIGITS else ""
    for pair in facts["confused"][:SHOWN]:
        true, predicted = names[pair["true"]], names[pair["predicted"]]
        share = f"{100 * pair['share']:.1f} % of all {true}{plural}"
        say(f"  {true} taken for {predicted}: {pair['times']} times, {share}")


@contextlib.contextmanager
def _mlflow(folder: Path, about: "Config") -> Iterator["Publisher | None"]:
    """Who sends pictures of the run in *folder* to the store that has it, and at the end waits for that."""
    from mnist_exp.config.stores import uri_for, without_password
    from mnist_exp.tracking.publisher import Publisher

    record = tracked.run(folder)  # None: not tracked, or downloaded
    known = record and record.store == without_password(uri_for(about.tracking.uri))
    with Publisher(about.tracking) if known else contextlib.nullcontext() as publisher:
        yield publisher


def measured(answers: "Answers") -> dict[str, Any]:
    """What `--json` prints: shares from 0 to 1, the loss in nats, `confusion[true][predicted]`."""
    from mnist_exp.evaluate import answers as best

    matrix = answers.confusion
    return {
        "images": len(answers.true),
        "accuracy": answers.accuracy,
        "loss": answers.loss,
        "ece": answers.ece,
        "confused": [
            {"true": true, "predicted": predicted, "times": times, "share": share}
            for true, predicted, times, share in best.confused(matrix)
        ],
        "confusion": matrix.tolist(),
    }


def pictures_of(answers: "Answers", where: str) -> list["Picture"]:
    """The figures about *answers*, each only where there is something to show."""
    from mnist_exp.charts import network as closeup

    found = [closeup.confusion(answers.confusion, where, answers.names)]
    found.append(closeup.reliability(answers.calibration(), answers.ece, where))
    worst = answers.worst()
    if len(worst):
        p = answers.probabilities.max(1)[worst]
        true, predicted = answers.true[worst], answers.predicted[worst]
        found.append(closeup.mistakes(answers.images[worst], true, predicted, p, where, answers.names))
    if answers.first_layer is not None:
        found.append(closeup.first_layer(answers.first_layer))
    return found


def table(answers: "Answers") -> Table:
    """One row for each class: how many there are, how many are recognised, and how often that answer is right."""
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    kind = "digit" if answers.names is config.DIGITS else "class"
    for column in (kind, "images", "recognised", "answers", "right"):
        drawn.add_column(column, justify="right")
    matrix = answers.confusion
    for label, name in enumerate(answers.names):
        there, said, right = matrix[label].sum(), matrix[:, label].sum(), matrix[label, label]
        shares = [f"{100 * right / count:.2f} %" if count else "–" for count in (there, said)]
        drawn.add_row(name, f"{there:,}", shares[0], f"{said:,}", shares[1])
    return drawn


def cli() -> None:
    """Runs `main`; every error becomes a sentence and an exit code."""
    sys.exit(command.run(lambda: main(sys.argv[1:])))


if __name__ == "__main__":
    cli()
