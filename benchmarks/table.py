"""Results as tables: in the terminal, as JSON, and in README.md between its two markers."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import measure
from benchmarks.measure import Benchmark, Spread

if TYPE_CHECKING:
    from mnist_exp.charts.style import Picture

HERE = Path(__file__).resolve().parent
RESULTS, README = HERE / "results", HERE / "README.md"
IMAGES = HERE.parent / "docs" / "images"
BEGIN, END = "<!-- results: python -m benchmarks table -->", "<!-- end of results -->"
ORDER = (
    *("step", "epoch", "train", "grid", "hundred", "startup", "memory", "growth", "accuracy", "time_to_accuracy"),
    "search",
    "packed_search",
    "race",
    "limits",
    "busy",
    "thousand",
    "ten_thousand",
    "live",
)


def show(benchmark: Benchmark, environment: dict[str, Any]) -> None:
    """Prints one benchmark."""
    console = Console()
    console.print(f"\n[bold]{benchmark.title}[/bold] ({unit(benchmark.unit)})", highlight=False)
    printed = Table("", "what", "median", "lowest", "highest", "n", box=box.SIMPLE_HEAD)
    for row in rows(benchmark):
        printed.add_row(*row)
    console.print(printed)
    for note in benchmark.notes:
        console.print(f"  {note}", highlight=False, markup=False)
    console.print(f"  {machine(environment)}", highlight=False, markup=False)


def rows(benchmark: Benchmark) -> list[list[str]]:
    """Case, what, median, lowest, highest and n of every cost and ratio; only the first row of a case has its name."""
    lines = []
    for case in benchmark.cases:
        entries = [(name, cost, "") for name, cost in case.costs.items()]
        entries += [(name, ratio, " x") for name, ratio in case.ratios.items()]
        for i, (name, spread, tail) in enumerate(entries):
            digits = 4 if benchmark.unit == "%" and not tail else 3
            lines.append([case.label if i == 0 else "", name, *numbers(spread, tail, digits), str(len(spread.values))])
    return lines


def numbers(spread: Spread, tail: str, digits: int = 3) -> list[str]:
    """Median, lowest and highest with *digits* significant digits, four from 100 on."""
    return [f"{value:.{4 if value >= 100 else digits}g}{tail}" for value in (spread.median, spread.low, spread.high)]


def unit(short: str) -> str:
    """A unit in full."""
    return {"s": "seconds", "us": "microseconds", "%": "percent"}.get(short, short)


def machine(environment: dict[str, Any]) -> str:
    """The machine and the versions in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    return (
        f"{environment['date']}, commit {environment['commit']}; {environment['cpu']}, {environment['cores']} cores, "
        f"{environment['memory_gib']} GiB, {environment['system']}; Python {environment['python']}, {versions}"
    )


def folder(environment: dict[str, Any]) -> Path:
    """The folder of results of one kind of machine: `results/amd-epyc` for an AMD EPYC."""
    name = re.sub(r"\([^)]*\)|\bprocessor\b", " ", environment["cpu"].lower())
    return RESULTS / "-".join(re.findall(r"[a-z0-9.]+", name))


def keep(benchmark: Benchmark) -> None:
    """Prints *benchmark* and writes it to `results/<machine>/<name>.json`."""
    plain = benchmark.to_json()
    path = folder(plain["environment"]) / f"{benchmark.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    show(benchmark, plain["environment"])


def finish(benchmark: Benchmark, kept: bool, picture: "Picture | None" = None) -> None:
    """Prints *benchmark*; what is *kept* is written, too, its *picture* as `docs/images/<name>.png`."""
    if not kept:
        show(benchmark, measure.environment())
        return
    keep(benchmark)
    if picture:  # a page colours a picture as its text; alone it needs a background
        picture.figure.savefig(IMAGES / f"{benchmark.name}.png", dpi=110, facecolor="white")


def markdown(plain: dict[str, Any]) -> str:
    """One benchmark from `results/` as a section of the README."""
    benchmark = measure.from_json(plain)
    lines = [f"### {benchmark.title}: {plain['environment']['cpu']}", "", f"In {unit(benchmark.unit)}.", ""]
    lines += ["| case | what | median | lowest | highest | n |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(benchmark)]
    lines += ["", *(f"- {note}" for note in benchmark.notes), f"- {machine(plain['environment'])}", ""]
    return "\n".join(lines)


def render(text: str, results: list[dict[str, Any]]) -> str:
    """*text* with *results* between its markers, sorted by `ORDER`, then by processor."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    body = "\n".join(markdown(plain) for plain in sorted(results, key=sort_key))
    return f"{before}{BEGIN}\n\n{body}\n{END}{after}"


def sort_key(plain: dict[str, Any]) -> tuple[int, str]:
    """By position in `ORDER`, then by processor."""
    return ORDER.index(plain["name"]), plain["environment"]["cpu"]


def kept() -> list[dict[str, Any]]:
    """Everything in `results/`."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*/*.json"))]
    return [plain for plain in results if plain.get("name") in ORDER]


def update_readme(results: list[dict[str, Any]]) -> None:
    """Writes *results* into the README beside this file."""
    README.write_text(render(README.read_text(encoding="utf-8"), results), encoding="utf-8")
