"""Our test errors beside the papers': `python -m benchmarks.papers`, once their runs are in the MLflow store.

    python -m mnist_exp.train -m experiment=lecun1998_300,lecun1998_1000 seed=0,1,2 tracking.experiment=papers
    python -m benchmarks.papers                                                     # or another MLflow experiment

A run counts for a file of conf/experiment if its command named that experiment and its settings equal the file's
present ones. docs/results.csv keeps one row for each run. This module makes the tables and the picture of
docs/results.md from it, and the lines Expect and Cost in the file's header, which also has the paper's result.
"""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from mnist_exp import results
from mnist_exp.charts import style as drawing
from mnist_exp.charts.style import Picture
from mnist_exp.config import Config, compose, params
from mnist_exp.disk.files import sha256
from mnist_exp.results import ranking
from mnist_exp.results import table as table_of

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = ROOT / "conf" / "experiment"
PAGE, ROWS = ROOT / "docs" / "results.md", ROOT / "docs" / "results.csv"
BEGIN, END = "<!-- python -m benchmarks.papers -->", "<!-- end -->"
COLUMNS = ("experiment", "seed", "error", "parameters", "epochs", "cpu_minutes", "commit", "settings")
HEADS: tuple[str, ...] = ("experiment", "paper, error %", "ours, error %", "95 % interval", "n")
HEADS += ("parameters", "epochs", "CPU minutes", "commit", "command")
OTHERS: dict[str, tuple[float, float]] = {  # for comparison: test error in percent, weights; both from the papers
    "LeNet-5, LeCun 1998": (0.95, 60_000),
    "five layers, Ciresan 2010": (0.35, 12_110_000),
}


def main() -> None:
    """Adds the runs of the store, then writes table, page, picture and headers."""
    name = sys.argv[1] if len(sys.argv) > 1 else "papers"
    rows = merged(kept(), measured(results.load(name)))
    rows.to_csv(ROWS, index=False)
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(render(text, rows), encoding="utf-8")
    drawing.png(picture(rows), ROOT / "docs" / "images")
    for experiment, runs in rows.groupby("experiment"):
        path = EXPERIMENTS / f"{experiment}.yaml"
        path.write_text(with_head(path.read_text(encoding="utf-8"), runs), encoding="utf-8")


def kept() -> pd.DataFrame:
    """The rows of docs/results.csv with the present settings of their experiment."""
    rows = pd.read_csv(ROWS, dtype={"commit": str, "settings": str}) if ROWS.exists() else pd.DataFrame(columns=COLUMNS)
    now = {name: digest(chosen(name)) for name in rows["experiment"].unique()}
    return rows[rows["settings"] == rows["experiment"].map(now)]


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each finished run in *table* with the present settings of its experiment."""
    rows = []
    for _, run in table[table["state"] == "finished"].iterrows():
        name = str(ranking.chosen(run["overrides"]).get("experiment", ""))
        if not (EXPERIMENTS / f"{name}.yaml").is_file():
            continue
        expected = settings(chosen(name))
        logged = {str(key): value for key, value in run[table_of.settings(table)].drop("seed").dropna().items()}
        logged.setdefault("hidden", Config.hidden)
        if logged != expected:
            other = sorted(key for key in logged | expected if logged.get(key) != expected.get(key))
            print(f"{run['name']}: left out, {', '.join(other)} not as in {name}.yaml", file=sys.stderr)  # noqa: T201
            continue
        error = round(100 * (1 - run["final/test_accuracy"]), 2)  # of 10,000 images: more digits would be noise
        cost = (run["parameters"], run["epoch"], round(run["cpu_seconds"] / 60, 2))
        rows.append((name, run["seed"], error, *cost, run["commit"][:7], digest(chosen(name))))
    return pd.DataFrame(rows, columns=COLUMNS)


def merged(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Both, sorted; the newer row wins for the same experiment and seed."""
    both = pd.concat([part for part in (old, new) if len(part)])
    return both.drop_duplicates(["experiment", "seed"], keep="last").sort_values(["experiment", "seed"])


def chosen(experiment: str) -> Config:
    """The present settings of *experiment*."""
    return compose([f"experiment={experiment}"])


def settings(config: Config) -> dict[str, Any]:
    """MLflow's params of a run with *config*, without its seed.

    Older runs of networks without `hidden` have its default.
    """
    said = {"hidden": Config.hidden, **params(config)}
    return {key: ranking.typed(str(value)) for key, value in said.items() if key != "seed"}


def digest(config: Config) -> str:
    """Eight hexadecimal digits that identify its settings."""
    return sha256(repr(sorted(settings(config).items())).encode())[:8]


def head(experiment: str) -> dict[str, str]:
    """Command, Paper, Expect, Cost and Source of a file in conf/experiment, each on one line."""
    text = (EXPERIMENTS / f"{experiment}.yaml").read_text(encoding="utf-8")
    comment = re.sub(r"\n#  +", " ", text.partition("\ndefaults:")[0])
    return dict(re.findall(r"^# (\w+): +(.*)$", comment, flags=re.MULTILINE))


def paper_error(experiment: str) -> float | None:
    """The published test error in percent, if any."""
    match = re.match(r"([\d.]+)( ± [\d.]+)? %", head(experiment)["Paper"])
    return float(match[1]) if match else None


def spread(values: "pd.Series[float]") -> str:
    """`1.58 ± 0.03`: mean and sample standard deviation."""
    return f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")


def interval(values: "pd.Series[float]") -> str:
    """`1.55 to 1.61`: where the mean over all seeds is with 95 % confidence, by Student's t; empty for one value."""
    if len(values) < 2:
        return ""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * values.std() / len(values) ** 0.5
    return f"{values.mean() - half:.2f} to {values.mean() + half:.2f}"


def summary(values: "pd.Series[float]") -> str:
    """`98.43 ± 0.08 % (n=5), 95 % interval of the mean 98.33 to 98.53`."""
    within = interval(values)
    return f"{spread(values)} % (n={len(values)})" + (f", 95 % interval of the mean {within}" if within else "")


def seeds(runs: pd.DataFrame) -> str:
    """`seeds 0 to 2`, of *runs*."""
    listed = sorted(int(seed) for seed in runs["seed"])
    return f"seeds {listed[0]} to {listed[-1]}" if len(listed) > 1 else f"seed {listed[0]}"


def minutes(runs: pd.DataFrame) -> str:
    """Mean processor time of a run in minutes; `?` for old runs, which logged none."""
    mean = runs["cpu_minutes"].mean()
    return f"{mean:.1f}" if mean else "?"


def with_head(text: str, runs: pd.DataFrame) -> str:
    """*text* of an experiment's file, with the measurements in its lines Expect and Cost."""
    expect = f"test accuracy {spread(100 - runs['error'])} % (n={len(runs)}, {seeds(runs)})"
    cost = f"{minutes(runs)} minutes of one core, {runs['epochs'].max()} epochs"
    text = re.sub(r"^# Expect:.*(\n#  +.*)*", f"# Expect:  {expect}", text, flags=re.MULTILINE)
    return re.sub(r"^# Cost:.*(\n#  +.*)*", f"# Cost:    {cost}", text, flags=re.MULTILINE)


def render(text: str, rows: pd.DataFrame) -> str:
    """*text* of docs/results.md with the table of *rows*, and the sources, between its markers."""
    lines = [
        f"| {' | '.join(HEADS)} |",
        f"| --- |{' ---: |' * 7} --- | --- |",
    ]
    names = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))
    lines += [_line(name, rows[rows["experiment"] == name]) for name in names]
    lines += ["", "## Sources", "", *(f"- **{name}**: {_source(head(name))}" for name in names)]
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    return f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}"


def _line(experiment: str, runs: pd.DataFrame) -> str:
    paper = paper_error(experiment)
    cells = [f"[{experiment}](../conf/experiment/{experiment}.yaml)", "" if paper is None else f"{paper:.2f}"]
    if runs.empty:
        return f"| {' | '.join([*cells, 'not run here', *[''] * 7])} |"
    command = f"python -m mnist_exp.train -m experiment={experiment} seed={','.join(map(str, runs['seed']))}"
    cells += [spread(runs["error"]), interval(runs["error"]), str(len(runs))]
    cells += [f"{runs['parameters'].max():,}", str(runs["epochs"].max())]
    cells += [minutes(runs), ", ".join(runs["commit"].unique()), f"`{command}`"]
    return f"| {' | '.join(cells)} |"


def _source(said: dict[str, str]) -> str:
    return f"{said['Paper']}. {said['Source']}"


@drawing.drawn
def picture(rows: pd.DataFrame) -> Picture:
    """Test error over parameters, both logarithmic: the papers' points hollow, ours filled with their spread."""
    ours, published = drawing.COLOURS[:2]
    hollow: dict[str, Any] = {"color": published, "markerfacecolor": "white", "linestyle": "", "marker": "o"}
    figure = Figure(figsize=(8, 5.4))
    axes = figure.subplots()
    labels: list[tuple[float, float, str]] = [(x, error, label) for label, (error, x) in OTHERS.items()]
    for x, error, _ in labels:
        axes.plot(x, error, **hollow)
    for name, runs in rows.groupby("experiment"):
        x, error, paper = runs["parameters"].max(), runs["error"].mean(), paper_error(str(name))
        if paper is not None:
            axes.plot([x, x], [paper, error], color=drawing.MUTED, linewidth=0.8, zorder=1)
            axes.plot(x, paper, **hollow)
        axes.errorbar(x, error, runs["error"].std() if len(runs) > 1 else np.nan, fmt="o", color=ours)
        labels.append((x, error, str(name)))
    for x, error, label in apart(labels):
        text = axes.annotate(label, (x, error), xytext=(7, 0), textcoords="offset points", va="center", fontsize=7.5)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})
    axes.plot([], [], "o", color=ours, label="ours, mean ± standard deviation")
    axes.plot([], [], **hollow, label="published")
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="test error, %", xlim=(4e4, 5e7))
    ticks = [0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)
    drawing.plain_ticks(axes.xaxis)
    axes.legend()
    return Picture("results", "Test error against parameters", "Test error over the number of parameters.", figure)


def apart(labels: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """*labels* (x, y, text), each moved down until it overlaps none above it.

    Down, because the lines to the papers' points mostly go up.
    """
    placed: list[tuple[float, float, str]] = []
    for x, y, text in sorted(labels, key=lambda label: -label[1]):
        for other, above, _ in placed:  # highest first
            if abs(np.log10(x / other)) < 0.6 and y > above / 1.08:
                y = above / 1.08
        placed.append((x, y, text))
    return placed


if __name__ == "__main__":
    main()
