"""The table under "Measured" in README.md, made from `results/` and docs/results.csv, never by hand."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd

from benchmarks import papers
from benchmarks.measure import from_json

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- measured: python -m benchmarks table -->", "<!-- end of measured -->"


COMMANDS = ("thousand", "ten_thousand")
"""Benchmarks that are commands of their own."""


Results = dict[str, dict[str, Any]]
"""The results of one machine, as in `results/<machine>/`, by name."""


@final
@dataclass(frozen=True)
class Row:
    """One line: a measured quantity and its wording."""

    what: str
    benchmark: str
    case: str
    said: str
    """A format string, with a field for each of *names*: its median, from the lowest to the highest machine's."""
    names: tuple[str, ...]

    def line(self, machines: list[Results]) -> str:
        """As Markdown; empty if no machine measured it."""
        measured = [medians for results in machines if (medians := self.medians(results))]
        if not measured:
            return ""
        figure = self.said.format(*(span(each) for each in zip(*measured, strict=True)))
        command = f"python -m benchmarks{'.' if self.benchmark in COMMANDS else ' '}{self.benchmark}"
        return f"| {self.what} | {figure} | `{command}` |"

    def medians(self, results: Results) -> list[float]:
        """One for each of *names*, in one machine's *results*; none if it was not measured there."""
        if self.benchmark not in results:
            return []
        result = from_json(results[self.benchmark])
        case = next(case for case in result.cases if case.label.startswith(self.case))
        spreads = {**case.costs, **case.ratios}
        return [spreads[name].median for name in self.names] if set(self.names) <= spreads.keys() else []


def span(values: Iterable[float]) -> str:
    """The lowest and the highest of *values*; one of them if they look alike."""
    ordered = sorted(values)
    return " to ".join(dict.fromkeys(f"{value:.3g}" for value in (ordered[0], ordered[-1])))


EXPERIMENTS = {
    "beginner": "the script of the tutorial",
    "mlp128": "the same network, with a recipe that a search found",
    "strong_cnn": "five pooled convolutions",
}
WHOLE = "a run of ten epochs, against {0}"
GRID = "a grid of twelve such runs, against {0}"
FASTER = "{0} times faster"
ROWS = (
    Row(WHOLE.format("`DataLoader`"), "train", "epochs", FASTER, ("DataLoader / ours",)),
    Row(WHOLE.format("Lightning"), "train", "epochs", FASTER, ("Lightning / ours",)),
    Row(GRID.format("Lightning, one by one"), "grid", "12", FASTER, ("Lightning, serial / ours",)),
    Row(GRID.format("in-memory PyTorch under joblib"), "grid", "12", FASTER, ("in-memory PyTorch, joblib / ours",)),
    Row("a sweep of 1,000 tiny runs", "thousand", "1,000", "{0} s", ("until the last",)),
)


def update(results: list[dict[str, Any]]) -> None:
    """Writes the table of *results*, as `results/*/*.json` hold them, into README.md."""
    text = README.read_text(encoding="utf-8")
    README.write_text(render(text, results, pd.read_csv(papers.ROWS)), encoding="utf-8")


def render(text: str, results: list[dict[str, Any]], rows: "pd.DataFrame") -> str:
    """*text* with the table between its markers: accuracies, then times over all kinds of machines."""
    machines: dict[str, Results] = {}
    for plain in results:
        machines.setdefault(plain["environment"]["cpu"], {})[plain["name"]] = plain
    lines = ["| what | figure | command |", "| --- | --- | --- |", *accuracies(rows)]
    lines += filter(None, (row.line(list(machines.values())) for row in ROWS))
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    return "\n".join([f"{before}{BEGIN}", "", *lines, "", f"{END}{after}"])


def accuracies(rows: "pd.DataFrame") -> list[str]:
    """Test accuracies of some recipes, from the rows of docs/results.csv."""
    lines = []
    for name, what in EXPERIMENTS.items():
        runs = rows[rows["experiment"] == name]
        if len(runs):
            seeds = ",".join(map(str, sorted(runs["seed"])))
            said = papers.summary(100 - runs["error"])
            command = f"python -m mnist_exp.train -m experiment={name} seed={seeds}"
            lines.append(f"| {what}, test accuracy | {said} | `{command}` |")
    return lines
