"""`python -m mnist_exp.evaluate`, or `mnist-exp-evaluate`: what a trained network gets right and wrong."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from mnist_exp import config
from mnist_exp.config.guesses import likely
from mnist_exp.console import exits, terminal
from mnist_exp.console.arguments import Key, Parser
from mnist_exp.console.formats import SPLIT_NAMES, loss, percent
from mnist_exp.console.terminal import console, say, shown
from mnist_exp.disk import tracked, trust
from mnist_exp.disk.layout import RunFolder
from mnist_exp.errors import ConfigError, DataError
from mnist_exp.evaluate import RUN, predictions
from mnist_exp.results import names

if TYPE_CHECKING:
    import numpy as np

    from mnist_exp.charts.style import Picture
    from mnist_exp.config import Config, Data
    from mnist_exp.evaluate.answers import Answers
    from mnist_exp.tracking.publisher import Publisher

ABOUT = """\
Measures a trained network and shows its mistakes: accuracy and loss, the most confused pairs, the most confident
mistakes, calibration, and the first layer's weights. Pictures go to figures/<images>/ in the run's folder, and to
the run in MLflow."""
EXAMPLES = """\
examples
  python -m mnist_exp.evaluate
  python -m mnist_exp.evaluate run=best split=val
  python -m mnist_exp.evaluate run=outputs/runs/2026-01-31/14-03-22-9f8e7d data=fashion_mnist
  python -m mnist_exp.evaluate data=scans/        subfolders 0 to 9, or of the classes' names, hold their pictures;
                                                  pictures without such folders are only classified
  python -m mnist_exp.evaluate run=best:14-03-22 --json | jq .accuracy

exit codes: 0 measured · 2 usage, no such run, or images that are missing or damaged
"""
SPLITS = ("train", "val", "test")
KEYS = {
    "run": RUN,
    "split": Key("test", "train, val or test", lambda: SPLITS),
    "data": Key(
        "",
        "other images: a dataset of conf/data, or a folder of pictures; empty: those of the run",
        lambda: config.options("data"),
    ),
}
COLUMNS = ("images", "recognised", "answers", "right")  # of the table of classes


@final
@dataclass(frozen=True)
class Labelled:
    """Images with their classes, on which a network is measured."""

    title: str
    """What they are: `test images of mnist`."""
    folder: str
    """Name of the folder of their figures: `mnist-test`."""
    pixels: "np.ndarray"
    """(n, channel, height, width), 0 to 255."""
    labels: "np.ndarray"
    """(n,)"""


def main(arguments: Sequence[str]) -> None:
    """Measures the network that *arguments* name.

    Raises:
        ExperimentError: there is no such run, or its weights or the images are missing or damaged.
        SystemExit: usage (2), or `--help` (0).
    """
    parser = Parser("evaluate", ABOUT, EXAMPLES)
    parser.add_overrides(KEYS)
    parser.add_argument("--json", action="store_true", help="print the measurements as one JSON object")
    typed = parser.read(arguments)
    logging.basicConfig(handlers=[terminal.WarningHandler(logging.WARNING)])
    if typed.split not in SPLITS:
        raise ConfigError(f"split must be one of {', '.join(SPLITS)}, but got {typed.split!r}.", "Try split=test.")
    folder = names.one(typed.run)
    settings = trust.load(folder)
    if not (typed.data and Path(typed.data).is_dir()):
        _present(folder, settings, _dataset(folder, settings, typed.data, typed.split), typed.json)
    elif images := _pictures(Path(typed.data), settings.data):
        _present(folder, settings, images, typed.json)
    else:
        from mnist_exp.evaluate import pictures

        for line in predictions.lines(folder, pictures.listed(Path(typed.data)), typed.json):
            console.out(line, highlight=False)


def _dataset(folder: Path, settings: "Config", name: str, split: str) -> Labelled:
    """One split of the dataset *name* of conf/data; without a name, of that of the run in *folder*."""
    if name and name not in config.options("data"):
        folders = [f"{path.name}/" for path in Path().iterdir() if path.is_dir()]
        guess = likely(name, [*config.options("data"), *folders])
        listed = ", ".join(config.options("data"))
        raise ConfigError(f"There is no dataset or folder called {name!r}.", f"{guess}Datasets are {listed}.")
    from mnist_exp.disk import ledger
    from mnist_exp.evaluate import answers

    if name:
        source, digest = config.compose([f"data={name}"]).data, ""
        has, known = (f"{d.num_classes} classes of images of {config.sizes(d.shape)}" for d in (source, settings.data))
        if has != known:
            raise ConfigError(f"{source.name} has {has}, but the network knows {known}.")
    else:
        trained_here = RunFolder(folder).ledger.exists()  # a downloaded run has no ledger
        source, digest = settings.data, ledger.read(folder).dataset.get("digest", "") if trained_here else ""
    title = f"{SPLIT_NAMES[split]} images of {source.name}"
    return Labelled(title, f"{source.name}-{split}", *answers.images(source, split, digest))


def _pictures(folder: Path, source: "Data") -> Labelled | None:
    """The pictures in the subfolders of *folder* that are called as labels or classes of *source*; None without one.

    Raises:
        ConfigError: a subfolder is empty.
    """
    import numpy as np

    from mnist_exp.evaluate import pictures

    classes = enumerate(config.classes(source))
    subfolders = [(label, folder / each) for label, name in classes for each in dict.fromkeys((str(label), name))]
    labelled = [(path, label) for label, inside in subfolders if inside.is_dir() for path in pictures.listed(inside)]
    if not labelled:
        return None
    pixels = np.stack([pictures.read(path, source) for path, _ in labelled]).reshape(-1, *source.shape)
    labels = np.array([label for _, label in labelled])
    return Labelled(f"pictures in {folder}", folder.resolve().name, pixels, labels)


def _present(folder: Path, settings: "Config", images: Labelled, as_json: bool) -> None:
    figures = RunFolder(folder).figures / images.folder
    with _mlflow(folder, settings) as publisher:  # which loads mlflow on another core meanwhile
        from mnist_exp.charts import style
        from mnist_exp.evaluate.answers import ask
        from mnist_exp.run import export

        network = export.restore(settings, folder)
        answers = ask(network, images.pixels, images.labels, config.classes(settings.data))
        try:
            figures.mkdir(parents=True, exist_ok=True)
            for picture in pictures_of(answers, images.title):
                style.png(picture, figures)
        except OSError as error:
            raise DataError(f"The pictures cannot be written to {figures}: {error.strerror}.") from error
        if publisher:
            publisher.follow(folder)
        facts = measured(answers)
        if not as_json:
            say(f"Network: {shown(folder)} (seed {settings.seed})")
            _show(images.title, answers, facts)
    sent = bool(publisher and publisher.delivered)
    if as_json:
        head = {"format": 1, "run": str(folder), "images_of": images.title}
        report = head | facts | {"figures": str(figures), "mlflow": sent}
        console.out(json.dumps(report, allow_nan=False), highlight=False)
    else:
        say(f"Pictures: {shown(figures)}/{', and in MLflow' if sent else ''}")


def _show(title: str, answers: "Answers", facts: dict[str, Any]) -> None:
    say(
        f"{facts['images']:,} {title}: accuracy {percent(facts['accuracy'])}, loss {loss(facts['loss'])}, "
        f"ECE {percent(facts['ece'])}"
    )
    if answers.uneven:
        balanced, f1 = percent(facts["balanced_accuracy"]), percent(facts["macro_f1"])
        say(f"Classes are uneven: balanced accuracy {balanced}, macro F1 {f1}")
    what, plural = ("digit", "s") if set(answers.names) <= set("0123456789") else ("class", "")
    terminal.table([what, *COLUMNS], list(_by_class(answers)))
    for pair in facts["confused"]:
        true, predicted = answers.names[pair["true"]], answers.names[pair["predicted"]]
        say(f"  {true} taken for {predicted}: {pair['times']} times, {percent(pair['share'], 1)} of all {true}{plural}")


def _mlflow(folder: Path, settings: "Config") -> "AbstractContextManager[Publisher | None]":
    """Sends pictures of the run in *folder*, if the store of *settings* has that run; waits for that at the end."""
    from mnist_exp.config.secrets import without_login
    from mnist_exp.config.stores import uri_for
    from mnist_exp.tracking.publisher import Publisher

    record = tracked.read(folder)  # None: not tracked, or downloaded
    known = record and record.store == without_login(uri_for(settings.tracking.uri))
    return Publisher(settings.tracking) if known else nullcontext()


def measured(answers: "Answers") -> dict[str, Any]:
    """What `--json` prints: shares from 0 to 1, the loss in nats, `confusion[true][predicted]`."""
    from mnist_exp.evaluate.answers import confused

    names = ("true", "predicted", "times", "share")
    return {
        "images": len(answers.true),
        **{key: getattr(answers, key) for key in ("accuracy", "balanced_accuracy", "macro_f1", "loss", "ece")},
        "confused": [dict(zip(names, pair, strict=True)) for pair in confused(answers.confusion)],
        "confusion": answers.confusion.tolist(),
    }


def pictures_of(answers: "Answers", title: str) -> list["Picture"]:
    """The figures about *answers* to the images called *title*, each only where there is something to show."""
    from mnist_exp.charts import network
    from mnist_exp.evaluate.answers import figures

    confusion, *others = figures(answers, title)
    return [confusion, network.reliability(answers.calibration(), answers.ece, title), *others]


def _by_class(answers: "Answers") -> Iterator[list[str]]:
    """The name of each class, its images, the share of them recognised, its answers, the share of them right."""
    matrix = answers.confusion
    for label, name in enumerate(answers.names):
        images, given, right = matrix[label].sum(), matrix[:, label].sum(), matrix[label, label]
        shares = [percent(right / total) if total else "–" for total in (images, given)]
        yield [name, f"{images:,}", shares[0], f"{given:,}", shares[1]]


cli = exits.command(main)

if __name__ == "__main__":
    cli()
