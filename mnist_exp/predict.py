"""`python -m mnist_exp.predict`, or `mnist-exp-predict`: which class a picture shows."""

from collections.abc import Sequence
from pathlib import Path

from mnist_exp.console import exits
from mnist_exp.console.arguments import Parser
from mnist_exp.console.terminal import console
from mnist_exp.errors import ConfigError
from mnist_exp.evaluate import RUN, predictions
from mnist_exp.results import names

ABOUT = """\
Says which class each picture shows, and how sure the network is. Any size and colour, dark on light or light on
dark, transparent or not: one digit or object each. It is cropped, scaled and centred as MNIST's were, where
data.pictures of the run is strokes or, larger, things; else the picture is scaled."""
EXAMPLES = """\
examples
  python -m mnist_exp.predict seven.png
  python -m mnist_exp.predict run=best scans/*.jpg
  python -m mnist_exp.predict run=best:14-03-22 seven.png --json | jq .digit

exit codes: 0 every picture was read · 2 usage, no such run, or a file that is not a picture (the others are answered
all the same)
"""


def main(arguments: Sequence[str]) -> None:
    """Prints class and probabilities of each picture.

    Raises:
        ExperimentError: there is no such run; or, after the answers to the others, a file is not a picture.
        SystemExit: usage (2), or `--help` (0).
    """
    parser = Parser("predict", ABOUT, EXAMPLES)
    parser.add_overrides({"run": RUN}, "image …", "pictures, or folders of them")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each picture")
    typed = parser.read(arguments)
    if not typed.names:
        raise ConfigError("Which picture?", "Name one: python -m mnist_exp.predict image.png")
    from mnist_exp.evaluate import pictures  # numpy, Pillow

    paths = [path for name in typed.names for path in pictures.listed(Path(name))]
    for line in predictions.lines(names.one(typed.run), paths, typed.json):
        console.out(line, highlight=False)


cli = exits.command(main)

if __name__ == "__main__":
    cli()
