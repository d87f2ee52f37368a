"""`python -m mnist_exp.report`, or `mnist-exp-report`: compares runs that are done, or two sweeps."""

import json
from collections.abc import Sequence
from pathlib import Path

from mnist_exp.console import exits, terminal
from mnist_exp.console.arguments import Parser
from mnist_exp.console.terminal import shown
from mnist_exp.errors import ConfigError
from mnist_exp.results import names

ABOUT = """\
Shows which setting of a sweep is best, and writes a page with pictures beside its runs. Of two sweeps it shows how
their settings differ and whose best one is better."""
EXAMPLES = """\
what can be
  last                    the newest sweep, else the newest run (the default)
  best, best:<sweep>      the best run of the newest sweep, or of that one: its best setting's median run
  a sweep's id            or the beginning of one: 14-03-22
  a folder                of a sweep or of a run
  an MLflow experiment    all its runs, wherever they were trained
  an MLflow run id
run=… before it, as other commands have it, changes nothing; runs that cannot be compared have several leaderboards

examples
  python -m mnist_exp.report
  python -m mnist_exp.report 14-03-22 --out sweep.html
  python -m mnist_exp.report best
  python -m mnist_exp.report outputs/sweeps/2026-01-31/14-03-22-9f8e7d --no-html
  python -m mnist_exp.report 14-03-22 last                  what differs, and which is better
  python -m mnist_exp.report last --figures paper/figures
  python -m mnist_exp.report mnist_exp --json --no-html | jq '.leaderboard[0]'
"""


def main(arguments: Sequence[str]) -> None:
    """Prints the leaderboard and writes the page.

    Raises:
        ExperimentError: there is no such sweep, or its files cannot be read or written.
    """
    parser = Parser("report", ABOUT, EXAMPLES)
    what = parser.add_argument("what", nargs="*", help="which runs [last]; two: compared with each other")
    what.completer = lambda **_: names.offered()  # type: ignore[attr-defined]  # see `Parser.add_overrides`
    parser.add_argument("--json", action="store_true", help="print the leaderboard as JSON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the page goes [report.html beside the runs]")
    parser.add_argument("--no-html", action="store_true", help="only print: write no page, pictures or CSV")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write the pictures there, too, as PNG and SVG")
    options = parser.read(arguments)
    if options.out and options.no_html:
        parser.error("--out names a page, but --no-html asks for none")
    if options.figures and options.no_html:
        parser.error("--figures asks for pictures, but --no-html for none")
    if len(options.what) > 2:
        parser.error("one name is a report, two are a comparison, and more are neither")
    selection, *other = (names.resolve(name.removeprefix("run=")) for name in options.what or ["last"])
    from mnist_exp.report import board, text, versus  # pandas: not for --help

    if other:
        if options.out or options.figures:
            parser.error("--out and --figures are for a page, and a comparison of two has none")
        facts = versus.compare(selection, *other)
        versus.show(facts) if not options.json else terminal.console.print_json(json.dumps(facts, allow_nan=False))
        return

    comparisons = board.compare(selection)
    text.show(comparisons, options.json)
    if options.no_html:
        return
    from mnist_exp.report import page

    try:
        path = page.write(comparisons, options.out, paper=options.figures)
    except OSError as error:
        raise ConfigError(f"The report cannot be written: {error}", "Choose another place with --out FILE.") from error
    (terminal.errors if options.json else terminal.console).print(f"Report:\n  {shown(path)}", markup=False)


cli = exits.command(main)

if __name__ == "__main__":
    cli()
