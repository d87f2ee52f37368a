"""One page that holds everything about a sweep: no network, no server, nothing beside it.

A content security policy forbids every request, and all scripts but the page's own: explore.js makes the figures that
can be touched with Vega-Lite (vega.js), sort.js sorts tables. Without scripts there are tables and pictures.
"""

import base64
import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup

from mnist_exp import config, results, system
from mnist_exp.charts import search as search_charts
from mnist_exp.charts import style
from mnist_exp.charts import sweep as charts
from mnist_exp.charts.style import Picture
from mnist_exp.config import schema
from mnist_exp.config.schema import Kind
from mnist_exp.config.secrets import without_login
from mnist_exp.config.stores import uri_for
from mnist_exp.console import formats
from mnist_exp.console.terminal import on_page, shown
from mnist_exp.disk import tracked, trust
from mnist_exp.disk.files import atomic_write
from mnist_exp.disk.layout import RunFolder, State, SweepFolder
from mnist_exp.errors import ExperimentError
from mnist_exp.report import answer, board, explore
from mnist_exp.report.board import Comparison
from mnist_exp.results import names
from mnist_exp.results.ranking import LOST
from mnist_exp.search.analysis import Analysis, analyse

ROWS = 1000  # of a table at most, the best ones: half a megabyte
FAILURES = 100  # that are listed
FILES = 300  # runs at most whose curves are drawn, or whose configs are compared: a millisecond each
SEEDS = 50  # of one setting, so that six settings are distinguishable whatever their number of seeds
KEYS = 4  # that heat maps pair, those that explain most; the figures that can be touched have any two
# Where a run is stored, not what it is.
UNLISTED = schema.of(Kind.WHERE | Kind.UNLISTED)

Group = tuple[str, list[pd.DataFrame]]
"""Label and histories of a setting."""


def write(
    comparisons: Sequence[Comparison],
    out: Path | None = None,
    wait: Callable[[], object] | None = None,
    paper: Path | None = None,
) -> Path:
    """Writes the page about the runs of *comparisons*, and beside them their data (CSV) and pictures (SVG).

    Files: `report.html`, `leaderboard.csv`, `runs.csv`, and in `figures/` the pictures with `curves.csv` and
    `confusion.csv`. Of several comparisons each has all of this in a folder of its own, and the page leads to theirs.

    Args:
        out: Where the page goes; None: `report.html` in the selection's own folder.
        wait: Called when all pictures are drawn; returns when MLflow has the runs, to which the page links.
        paper: A folder that gets the pictures, too, as PNG and SVG; of several comparisons in a folder for each.

    Returns:
        The path of the page.

    Raises:
        ConfigError: `study.json` is damaged.
        OSError: the folder cannot be written.
    """
    selection = comparisons[0].selection
    out = out or SweepFolder(selection.home).page
    drawn = [_draw(comparison, paper and paper / comparison.folder) for comparison in comparisons]
    if wait:
        wait()
        comparisons = [board.tracked(comparison) for comparison in comparisons]
    board.save(comparisons)
    if len(comparisons) == 1:
        _page(comparisons[0], drawn[0], out)
        return out
    linked = []
    for comparison, pictures in zip(comparisons, drawn, strict=True):
        page = SweepFolder(comparison.home).page
        _page(comparison, pictures, page)
        link = Path(os.path.relpath(page.resolve(), out.resolve().parent)).as_posix()
        linked.append({"data": comparison.data, "link": quote(link), "answer": answer.sentence(comparison)})
    text = render({"title": selection.title, "written": _now(), "datasets": linked}, "datasets.html.j2")
    atomic_write(out, text.encode())
    return out


def _draw(comparison: Comparison, paper: Path | None) -> dict[str, Any]:
    """Draws the pictures of one dataset into its own folder, and *paper*; returns those sections of its page."""
    folder = SweepFolder(comparison.home).figures
    folder.mkdir(parents=True, exist_ok=True)
    histories = {index: results.history(comparison.table.loc[index]) for index in _followed(comparison)}
    searched, groups = analyse(comparison.home), _groups(comparison, histories)
    best, best_pictures = _best(comparison)
    pictures = _pictures(comparison, groups, searched) | {"best_pictures": best_pictures}
    if paper:
        paper.mkdir(parents=True, exist_ok=True)
        for picture in itertools.chain.from_iterable(pictures.values()):
            style.png(picture, paper)
            atomic_write(paper / f"{picture.name}.svg", style.svg(picture).encode())
    sections = {section: [_save(picture, folder) for picture in several] for section, several in pictures.items()}
    kept = {f"{picture.name}.svg" for several in pictures.values() for picture in several}
    for old in folder.glob("*.svg"):
        if old.name not in kept:
            system.unlink(old)  # of keys that no longer vary
    board.write_csv(pd.concat(histories, names=["run"]).reset_index("run"), folder / "curves.csv")
    if best and "confusion" in best:
        board.write_csv(pd.DataFrame(best["confusion"]), folder / "confusion.csv")
    followed = sum(len(group) for _, group in groups) if len(histories) < len(comparison.table) else 0
    facts = {"searched": searched, "followed": followed, "seeds": SEEDS, "best": best, "histories": histories}
    return sections | facts


def _save(picture: Picture, folder: Path) -> dict[str, Any]:
    """Writes *picture* to *folder*; returns it as the page shows it."""
    text = style.svg(picture)
    atomic_write(folder / f"{picture.name}.svg", text.encode())
    return {"title": picture.title, "alt": picture.alt, "svg": Markup(style.inline(text))}


def _page(comparison: Comparison, drawn: dict[str, Any], out: Path) -> None:
    shared, server = _shared(comparison.table)
    facts = _head(comparison) | _tables(comparison, server) | drawn | {"shared": shared}
    facts["embedded"] = ""
    if len(comparison.table) > 1:
        listed = {index: facts["runs"][index] for index in _listed(comparison)}
        facts["embedded"] = explore.embedded(explore.data(comparison, listed, drawn["histories"], drawn["searched"]))
    atomic_write(out, render(facts).encode())


def _now() -> str:
    return datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def render(context: dict[str, Any], name: str = "report.html.j2") -> str:
    """The text of a page. All of *context* is escaped; passwords in addresses are left out."""
    template, style = _asset(name), _asset("report.css")
    scripts = [_asset("sort.js"), *([_asset("vega.js"), _asset("explore.js")] if context.get("embedded") else [])]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    pages = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=on_page
    )
    pages.filters |= {each.__name__: each for each in (formats.whole, formats.short, formats.seconds, formats.count)}
    pages.globals |= {"longest": formats.LONGEST, "score": formats.score, "split_names": formats.SPLIT_NAMES}
    allowed = Markup(" ").join(Markup("'sha256-{}'").format(digest) for digest in digests)
    assets = {"scripts": list(map(Markup, scripts)), "style": Markup(style), "script_digests": allowed}
    return pages.from_string(template).render(**assets, **context)


def _asset(name: str) -> str:
    return resources.files("mnist_exp.report").joinpath(name).read_text(encoding="utf-8")


def _pictures(comparison: Comparison, groups: list[Group], searched: Analysis | None) -> dict[str, list[Picture]]:
    """The pictures of each section of the page; a section without data has none."""
    table, by, split = comparison.table, comparison.by, board.deciding_split(comparison.table)
    sections = ("search", "slices", "maps", "curves", "effects", "tradeoffs")
    pictures: dict[str, list[Picture]] = {section: [] for section in sections}
    several = [key for key in by if table[key].nunique() > 1]
    done = charts.finished(table, split)
    if len(done):
        shares = charts.shares(done, several, split)
        leading = sorted(several, key=lambda key: -shares[key])[:KEYS]
        pairs = [sorted((leading[i], leading[j]), key=several.index) for j in range(len(leading)) for i in range(j)]
        pictures["maps"] = [charts.heat_map(table, x, y, split) for y, x in pairs if len(done.dropna(subset=[x, y]))]
        if searched:
            pictures["search"], pictures["slices"] = search_charts.pictures(table, by, searched, split)
        elif len(done) > 2:
            pictures["effects"] = charts.main_effects(table, [*several, *board.repeated(table)], split)
    if len(comparison.board) > 1 and len(done):
        cost, clock = charts.clock(table)
        costs = cost[table["state"] == State.FINISHED].astype(float).groupby(comparison.rows).mean()
        timed = comparison.board.assign(seconds=costs)
        pictures["tradeoffs"] = charts.tradeoffs(timed, comparison.labels, split, clock)
    if groups:
        splits = _followed_splits(split)
        pictures["curves"] = [p for what in ("loss", "accuracy") for p in charts.curves(groups, what, splits)]
    return pictures


def _followed_splits(deciding: str) -> list[str]:
    """The splits whose learning curves are drawn."""
    return ["val", "train"] if deciding == "val" else ["train"]


def _followed(comparison: Comparison) -> list[Any]:
    """Index of the runs whose histories are read: some seeds of each of the best settings.

    Failed runs, which no picture shows, and runs without a folder here come last.
    """
    table = comparison.table
    last = (table["state"] == State.FAILED) | table["folder"].isna()
    runs = pd.DataFrame({"last": last, "row": comparison.rows}).sort_values(["last", "row"], kind="stable")
    return sorted(runs[runs.groupby("row").cumcount() < SEEDS].index[:FILES])


def _groups(comparison: Comparison, histories: dict[Any, pd.DataFrame]) -> list[Group]:
    """Each setting of the leaderboard that has histories to draw."""
    table, rows = comparison.table, comparison.rows
    groups: list[Group] = [(label, []) for label in comparison.labels]
    splits, failed = _followed_splits(board.deciding_split(table)), table["state"] == State.FAILED
    for index, history in histories.items():
        if not failed[index] and all(f"{split}/{what}" in history for split in splits for what in ("loss", "accuracy")):
            groups[rows[index]][1].append(history)
    return [(label, group) for label, group in groups if group]


def _best(comparison: Comparison) -> tuple[dict[str, Any] | None, list[Picture]]:
    """What the page says about the best setting's median run, and its pictures if its weights are here."""
    best = comparison.ranked.best
    if best is None:
        return None, []
    run: Any = comparison.table.loc[best.at]
    facts: dict[str, Any] = {
        "index": best.at,
        "label": comparison.labels[0],
        "seed": best.settings.get("seed"),
        "problem": "",
        "rerun": board.again(run),
        "folder": shown(run["folder"]) if run["folder"] is not None else "",
    }
    if run["folder"] is None or not RunFolder(run["folder"]).weights.exists():
        return facts | {"problem": "Its weights are not on this machine."}, []
    from mnist_exp.evaluate import answers  # torch

    try:
        measured = answers.answers(run["folder"], run["dataset"])
    except ExperimentError as error:
        return facts | {"problem": f"{error.message} {error.help}"}, []
    matrix, names = measured.confusion, measured.names
    return facts | {
        "confusion": matrix,
        "confused": [(names[t], names[g], n, share) for t, g, n, share in answers.confused(matrix)],
        "wrong": int(matrix.sum() - np.trace(matrix)),
    }, answers.figures(measured)


def _head(comparison: Comparison) -> dict[str, Any]:
    """What was run, how far it is, and what came out."""
    table, sweep, facts = comparison.table, comparison.selection.sweep, board.summary(comparison)
    unfinished = (State.PLANNED, State.RUNNING, State.KILLED, State.DAMAGED)
    return {
        "title": comparison.title,
        "command": config.command(sweep.typed, sweep=True) if sweep and trust.own(comparison.selection.home) else "",
        "resume": names.resuming(comparison.selection.home, sweep.cluster) if sweep else "",
        "unfinished": {state: n for state in unfinished if (n := facts["states"].get(state, 0))},
        "written": _now(),
        "started": table["started"].min(),
        "facts": facts,
        "name": comparison.selection.title,
        "answer": answer.sentence(comparison),
        "step": answer.next_step(comparison),
        "background": answer.background(comparison),
        "home": shown(comparison.home),
    }


def _tables(comparison: Comparison, server: str) -> dict[str, Any]:
    """The leaderboard, what varies, what was lost, and the list of runs, with links to MLflow's *server*."""
    table, by, top, listed = comparison.table, comparison.by, comparison.board.head(ROWS), _listed(comparison)
    runs = _runs(table, {*top["best"], *listed} - {-1}, server)
    varied = {key: style.scale(table[key]).values for key in [*by, *board.repeated(table)]}
    lost, home = table[table["state"].isin(LOST)], comparison.selection.home
    record = tracked.read(home) if comparison.selection.sweep else None  # None: not tracked, or not yet
    return {
        "deciding": board.deciding_split(table),
        "splits": board.measured(table),
        "by": by,
        "varied": [(key, [formats.value(value) for value in values]) for key, values in varied.items()],
        "sampled": FILES if table["folder"].notna().sum() > FILES else 0,
        "settings": len(comparison.board),
        "board": top.to_dict("records"),
        "runs": runs,
        "listed": [runs[index] for index in listed],
        "view": f"{server}/{record.page}" if record and record.page else "",
        "lost": len(lost),
        "failures": board.failures(lost.head(FAILURES)),
    }


def _listed(comparison: Comparison) -> list[Any]:
    """Index of the runs that the page lists: all in their order, or if that is too much those of the best settings."""
    if len(comparison.table) <= ROWS:
        return list(comparison.table.index)
    return [run.at for setting in comparison.ranked.groups for run in setting.runs][:ROWS]


def _runs(table: pd.DataFrame, wanted: set[Any], server: str) -> dict[Any, dict[str, Any]]:
    """What the page says about the *wanted* runs, and the page of each in MLflow; an empty one: it is not tracked."""
    columns = ["number", "name", "state", "epoch", "seconds", "run_id", "experiment_id"]
    columns += [f"final/{split}_accuracy" for split in board.SPLITS]
    rows: dict[Any, Any] = table.loc[sorted(wanted), columns].to_dict("index")
    for row in rows.values():
        page = tracked.address(row["experiment_id"], row["run_id"])
        row["link"] = f"{server}/{page}" if row["run_id"] else ""
    return rows


def _shared(table: pd.DataFrame) -> tuple[list[tuple[str, str]], str]:
    """The config that all runs share, as keys and values, and where a browser finds the MLflow store that they name.

    That is its server, or `mlflow ui` in the project's folder.

    Reads `FILES` runs at most, at even distances.
    """
    folders = list(table["folder"].dropna())
    sample: Any = np.unique(np.linspace(0, len(folders) - 1, FILES).round().astype(int)) if folders else []
    shared: dict[str, Any] | None = None
    for path in (RunFolder(folders[i]).config for i in sample):
        try:
            flat = config.settings_of(path)
        except (OSError, ValueError, yaml.YAMLError, AttributeError):
            continue
        shared = flat if shared is None else {k: v for k, v in shared.items() if k in flat and flat[k] == v}
    shared = shared or {}
    uri = uri_for(shared.get("tracking.uri") if all(map(trust.own, folders[:1])) else None)
    server = without_login(uri).rstrip("/") if uri.startswith(("http://", "https://")) else "http://127.0.0.1:5000"
    plain = {k: v for k, v in shared.items() if not schema.within(k, UNLISTED)}
    return [(key, "null" if v is None else config.compact(v)) for key, v in plain.items()], server
