"""`python -m mnist_exp.data`, or `mnist-exp-data`: gets image files, or checks them."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mnist_exp.config import Data, compose, options, sizes
from mnist_exp.console import exits, terminal
from mnist_exp.console.arguments import Key, Parser
from mnist_exp.console.terminal import console, say, shown
from mnist_exp.disk.files import atomic_write
from mnist_exp.errors import ConfigError, DataError

ABOUT = """\
Fetches the files of a dataset of conf/data, or verifies those that are here without fetching anything. Nothing is
fetched twice. For machines whose jobs have no network: fetch on one that has, into a folder that all can read.
Of images of your own, check says shape, classes, counts, mean, std and duplicates, and writes a file for conf/data."""
ROOT = Key("", "folder of the files; empty: ./data/<name> if it is there, else a per-user cache")
EXAMPLES = """\
examples
  python -m mnist_exp.data fetch
  python -m mnist_exp.data fetch mnist fashion_mnist
  python -m mnist_exp.data fetch mnist root=/shared/mnist     then train with data.root=/shared/mnist
  python -m mnist_exp.data verify
  python -m mnist_exp.data check scans/                       pictures in train/<class>/ and test/<class>/
  python -m mnist_exp.data check scans.npz write=conf/data/scans.yaml

exit codes: 0 all files are here and right · 2 usage, or a file is missing or damaged
"""
ACTIONS = ("fetch", "verify", "check")
WRITE = Key("", "with check: the YAML file to write; empty: it is printed")


def main(arguments: Sequence[str]) -> None:
    """Fetches or verifies the datasets that *arguments* name; without a name, MNIST.

    Raises:
        DataError: files are missing or damaged.
        ConfigError: there is no such action or dataset.
        SystemExit: usage (2), or `--help` (0).
    """
    parser = Parser("data", ABOUT, EXAMPLES)
    what = "what to do, and with which datasets"
    parser.add_overrides(
        {"root": ROOT, "write": WRITE}, "fetch|verify|check [name …]", what, lambda: [*ACTIONS, *options("data")]
    )
    typed = parser.read(arguments)
    action, *names = typed.names or [""]
    if action not in ACTIONS:
        what = f"There is no {action!r}" if action else "Nothing was asked for"
        raise ConfigError(f"{what}: say fetch, verify or check.", "Such as: python -m mnist_exp.data fetch")
    if action == "check":
        _survey(names, typed.write)
        return
    if typed.root and len(names) > 1:
        raise ConfigError(f"root={typed.root} is the folder of one dataset, but {len(names)} are named.")
    # All names are checked before the first download.
    wanted = [compose([f"data={name}"]).data for name in names or ["mnist"]]
    logging.basicConfig(handlers=[terminal.WarningHandler(logging.WARNING)])
    from mnist_exp.data import fetch  # torch

    faults = []
    for data in wanted:
        data.root = typed.root or data.root
        if data.name == "synthetic":
            say("synthetic: made in memory, there are no files.")
        elif action == "fetch":
            say(f"{data.name}: complete in {shown(fetch.ensure(data))}")
        else:
            faults += _verify(data)
    if faults:
        raise DataError("\n  ".join(faults), "Get them with: python -m mnist_exp.data fetch")


def _survey(names: Sequence[str], target: str) -> None:
    """Says what the images in the only one of *names* are; writes the file for conf/data to *target*."""
    if len(names) != 1 or not Path(names[0]).exists():
        raise ConfigError("check needs one folder of pictures or IDX files, or one .npz.", "Name it: check scans/")
    if target and Path(target).exists():
        raise ConfigError(f"{target} is there already.", "Choose another file: write=…")
    logging.basicConfig(handlers=[terminal.WarningHandler(logging.WARNING)])
    from mnist_exp.data import fetch, idx, splits, survey  # torch

    data, notes = survey.guess(Path(names[0]))
    notes += splits.check(data)
    folder = fetch.ensure(data)
    notes += survey.facts(data, tuple(idx.read(folder / name).numpy() for name in fetch.FILES))
    counts = f"{data.train_images:,} training and {data.test_images:,} test images of {sizes(data.shape)}"
    say(f"{counts}, {data.num_classes} classes; mean {data.mean}, std {data.std}")
    for note in notes:
        say(note)
    text = survey.text(data)
    if target:
        atomic_write(Path(target), text.encode())
        say(f"Written: {target}. In <conf>/data it is data={Path(target).stem} of train --config-dir <conf>.")
    else:
        console.out(text, highlight=False)


def _verify(data: Data) -> list[str]:
    """Reads every file of *data* and prints its state; returns a line for each fault."""
    from mnist_exp.data import fetch

    folder, files = fetch.inspect(data)
    say(f"{data.name}: {shown(folder)}")
    for name, fault in files.items():
        say(f"  {name:<26}{fault or 'right' + ('' if name in data.sha256 else ' (as far as its header tells)')}")
    return [f"{folder / name}: {fault}" for name, fault in files.items() if fault]


cli = exits.command(main)

if __name__ == "__main__":
    cli()
