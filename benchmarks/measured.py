"""The tables under "Measured" in README.md, made from `results/` and docs/results.csv, never by hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd

from benchmarks import papers
from benchmarks.measure import Spread, from_json
from benchmarks.table import machine, sort_key

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
    """A format string, with a field for each of *names*: its median, or of an accuracy what `papers.summary` says."""
    names: tuple[str, ...]

    def line(self, machines: list[Results]) -> str:
        """As Markdown, with a column for each machine; empty if no machine measured it."""
        cells = [self.cell(results) for results in machines]
        command = f"python -m benchmarks{'.' if self.benchmark in COMMANDS else ' '}{self.benchmark}"
        return f"| {self.what} | {' | '.join(cells)} | `{command}` |" if any(cells) else ""

    def cell(self, results: Results) -> str:
        """The figure in one machine's *results*; empty if it was not measured there."""
        if self.benchmark not in results:
            return ""
        result = from_json(results[self.benchmark])
        case = next(case for case in result.cases if case.label.startswith(self.case))
        spreads: dict[str, Spread] = {**case.costs, **case.ratios}
        if not set(self.names) <= spreads.keys():
            return ""
        if result.unit == "%":
            return self.said.format(*(papers.summary(pd.Series(spreads[name].values)) for name in self.names))
        return self.said.format(*(f"{spreads[name].median:.3g}" for name in self.names))


EXPERIMENTS = {
    "beginner": "the script that this began with",
    "mlp128": "the same network with the recipe that a search found",
    "simard2003_mlp800_elastic": "800 units, elastic distortions",
    "small_cnn": "small CNN, 3 epochs",
    "strong_cnn": "five pooled convolutions, 12 epochs",
}
STEP = "one training step of 784-{0}-10 against its five matrix products"
WHOLE = "whole command with `epochs=10`, tracking and export included, against {0}"
GRID = "4 × 3 grid of 10 epochs, start-up, tracking and report included, against {0}"
FASTER, AS_LONG = "{0} times faster", "{0} times"
ROWS = (
    Row(
        "default network, test accuracy",
        "accuracy",
        "validation",
        "{0}",
        ("ours, schedule=cosine (the default)",),
    ),
    *(Row(STEP.format(hidden), "step", f"hidden={hidden}, 2", AS_LONG, ("ours / floor",)) for hidden in (128, 512)),
    Row(WHOLE.format("`DataLoader`"), "train", "epochs", FASTER, ("DataLoader / ours",)),
    Row(WHOLE.format("Lightning"), "train", "epochs", FASTER, ("Lightning / ours",)),
    Row(GRID.format("its matrix products on all cores"), "grid", "12", AS_LONG, ("ours / floor, one process a core",)),
    Row(GRID.format("Lightning, serially"), "grid", "12", FASTER, ("Lightning, serial / ours",)),
    Row(GRID.format("PyTorch in memory under joblib"), "grid", "12", FASTER, ("in-memory PyTorch, joblib / ours",)),
    Row(GRID.format("the same runs under joblib"), "grid", "12", FASTER, ("ours, joblib / ours",)),
    Row(
        "a hundred points at `hidden=64` packed, against unpacked", "hundred", "100", FASTER, ("ours, pack=off / ours",)
    ),
    Row(
        "start to first step against `import torch`",
        "startup",
        "default",
        AS_LONG,
        ("ours, to the first step / import torch",),
    ),
    Row(
        "a sweep of 1,000 tiny runs",
        "thousand",
        "1,000",
        "first job after {0} s, all done after {1} s",
        ("until the first job", "until the last"),
    ),
    Row("leaderboard of 10,000 runs, from the store", "ten_thousand", "10,000", "{0} s", ("leaderboard",)),
)


def update(results: list[dict[str, Any]]) -> None:
    """Writes the tables of *results*, as `results/*/*.json` hold them, into README.md."""
    text = README.read_text(encoding="utf-8")
    README.write_text(render(text, results, pd.read_csv(papers.ROWS)), encoding="utf-8")


def render(text: str, results: list[dict[str, Any]], rows: "pd.DataFrame") -> str:
    """*text* with the tables between its markers: accuracies, then times, with a column for each kind of machine."""
    machines: dict[str, Results] = {}
    for plain in sorted(results, key=lambda plain: sort_key(plain)[::-1]):  # by machine
        machines.setdefault(plain["environment"]["cpu"], {})[plain["name"]] = plain
    lines = ["| what | figure | command |", "| --- | --- | --- |", *accuracies(rows)]
    machines = {cpu: results for cpu, results in machines.items() if any(row.cell(results) for row in ROWS)}
    if machines:
        lines += ["", f"| what | {' | '.join(machines)} | command |", f"| ---{' | ---' * len(machines)} | --- |"]
        lines += filter(None, (row.line(list(machines.values())) for row in ROWS))
        lines += ["", "Times: medians of rounds in which all contenders took turns.", ""]
        lines += [f"- {machine(list(results.values())[-1]['environment'])}" for results in machines.values()]
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
