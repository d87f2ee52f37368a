"""One page that holds everything about a sweep: no network, no server, nothing beside it.

The page forbids itself every request by a content security policy; its only script sorts tables.
"""

import base64
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, final
from urllib.parse import quote, urlsplit

import jinja2
import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup

from mnist_exp import config, results
from mnist_exp.charts import network as closeup
from mnist_exp.charts import search as searching
from mnist_exp.charts import style as drawing
from mnist_exp.charts import sweep as figures
from mnist_exp.charts.style import Picture
from mnist_exp.config.stores import uri_for
from mnist_exp.console.terminal import shown
from mnist_exp.disk import tracked, trust
from mnist_exp.disk.files import atomic_write
from mnist_exp.errors import ExperimentError
from mnist_exp.report import board as boards
from mnist_exp.report.board import WORDS, Comparison
from mnist_exp.results.names import Selection
from mnist_exp.results.ranking import LOST
from mnist_exp.search.analysis import Analysis, analyse

ROWS = 1000  # of a table at most, the best ones: half a megabyte
FAILURES = 100  # that are told at length
FILES = 300  # runs at most whose curves are drawn, or whose configs are compared: a millisecond each
SEEDS = 50  # of one setting, so that six settings are told apart whatever their number of seeds
KEYS = 8  # that heat maps pair, those that explain most: 28 maps, 20 KB each
# Where a run is stored, not what it is.
ASIDE = ("name", "tags", "tracking", "checkpoint", "threads", "seed", "data.root", "data.sha256", "data.package")

Group = tuple[str, list[pd.DataFrame]]
"""Label and histories of a setting."""


@final
@dataclass(frozen=True)
class Drawn:
    """What a page takes seconds to draw, and what the pictures were drawn of."""

    followed: int
    """Runs whose curves are drawn, if those are not all; else 0."""
    pictures: dict[str, list[Picture]]
    searched: Analysis | None
    best: dict[str, Any] | None
    best_pictures: list[Picture]
    texts: dict[str, str]
    """Each picture's SVG by its name: drawn once, for files and page."""


def write(found: Sequence[Comparison], out: Path | None = None, heard: Callable[[], object] | None = None) -> Path:
    """Writes the page about the runs of *found*, and beside them their data (CSV) and pictures (SVG).

    Files: `report.html`, `leaderboard.csv`, `runs.csv`, and in `figures/` the pictures with `curves.csv` and
    `confusion.csv`. Of several datasets each has all of this in a folder of its own, and the page leads to theirs.

    Args:
        out: Where the page goes; None: `report.html` in the selection's own folder.
        heard: Called when all pictures are drawn; returns when MLflow has heard of the runs, which the page links to.

    Returns:
        The path of the page.

    Raises:
        ConfigError: `study.json` is damaged.
        OSError: the folder cannot be written.
    """
    out = out or found[0].selection.home / "report.html"
    drawn = [_draw(each) for each in found]
    if heard:
        heard()
        found = [boards.tracked(each) for each in found]
    boards.save(found)
    if len(found) == 1:
        _page(found[0], drawn[0], out)
        return out
    linked = []
    for each, pictures in zip(found, drawn, strict=True):
        page = each.home / "report.html"
        _page(each, pictures, page)
        link = Path(os.path.relpath(page.resolve(), out.resolve().parent)).as_posix()
        linked.append({"data": each.data, "link": quote(link), "sentence": boards.sentence(each)})
    text = render({"title": found[0].selection.title, "written": _now(), "datasets": linked}, "datasets.html.j2")
    atomic_write(out, text.encode())
    return out


def _draw(found: Comparison) -> Drawn:
    """See `write`: the pictures of one dataset, also as files in its own folder."""
    home = found.home
    (home / "figures").mkdir(parents=True, exist_ok=True)
    histories = {index: results.history(found.table.loc[index]) for index in _followed(found)}
    labels = [boards.label(row, found.by) for row in found.board.to_dict("records")]
    searched, groups = analyse(home), _groups(found, labels, histories)
    pictures = _pictures(found, labels, groups, searched)
    best, best_pictures = _best(found, labels)
    for old in (home / "figures").glob("*.svg"):
        old.unlink()  # of keys that no longer vary
    everything = [*itertools.chain(*pictures.values()), *best_pictures]
    texts = {picture.name: drawing.svg(picture) for picture in everything}
    for name, text in texts.items():
        atomic_write(home / "figures" / f"{name}.svg", text.encode())
    boards.write_csv(pd.concat(histories, names=["run"]).reset_index("run"), home / "figures" / "curves.csv")
    if best and "confusion" in best:
        boards.write_csv(pd.DataFrame(best["confusion"]), home / "figures" / "confusion.csv")
    followed = sum(len(group) for _, group in groups) if len(histories) < len(found.table) else 0
    return Drawn(followed, pictures, searched, best, best_pictures, texts)


def _page(found: Comparison, drawn: Drawn, out: Path) -> None:
    """See `write`: the page of one dataset."""
    context = _context(found, drawn.pictures, drawn.best, drawn.best_pictures, drawn.texts)
    page = render(context | {"searched": drawn.searched, "followed": drawn.followed, "seeds": SEEDS})
    atomic_write(out, page.encode())


def _now() -> str:
    return datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def render(context: dict[str, Any], name: str = "report.html.j2") -> str:
    """The text of a page. Whatever *context* holds is escaped, and passwords in addresses are left out."""
    template = resources.files("mnist_exp.report").joinpath(name).read_text(encoding="utf-8")
    script = resources.files("mnist_exp.report").joinpath("sort.js").read_text(encoding="utf-8")
    style = resources.files("mnist_exp.report").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    pages = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_discreet
    )
    pages.filters |= {"value": boards.value, "seconds": boards.seconds, "count": boards.count}
    pages.globals |= {"score": boards.score}
    assets = {"script": Markup(script), "style": Markup(style), "script_digest": digest}
    return pages.from_string(template).render(**assets, **context)


def _discreet(text: Any) -> Any:
    """*text* without the password of an address such as postgresql://user:password@host."""
    if isinstance(text, Markup) or not isinstance(text, str):
        return text
    return re.sub(r"(://[^/\s:@]*):[^/\s@]*@", r"\1:…@", text)


def _pictures(
    compared: Comparison, labels: list[str], groups: list[Group], searched: Analysis | None
) -> dict[str, list[Picture]]:
    """The pictures of each section of the page; a section without data has none."""
    table, board, by = compared.table, compared.board, compared.by
    judged = boards.judge(table)
    found: dict[str, list[Picture]] = {"search": [], "maps": [], "curves": [], "effects": [], "tradeoffs": []}
    several = [key for key in by if table[key].nunique() > 1]
    done = figures.finished(table, judged)
    if len(done):
        shares = {key: figures.explained(done[f"final/{judged}_accuracy"], done[key]) or 0.0 for key in several}
        leading = sorted(several, key=lambda key: -shares[key])[:KEYS]
        pairs = [sorted((leading[i], leading[j]), key=several.index) for j in range(len(leading)) for i in range(j)]
        found["maps"] = [figures.heat_map(table, x, y, judged) for y, x in pairs if len(done.dropna(subset=[x, y]))]
        if searched:
            found["search"] = searching.pictures(table, by, searched, judged)
        elif len(done) > 2:
            found["effects"] = figures.main_effects(table, [*several, *_seeds(table)], judged)
    if len(board) > 1 and len(done):
        found["tradeoffs"] = figures.tradeoffs(board, labels, judged)
    if groups:
        splits = _followed_splits(judged)
        found["curves"] = [p for what in ("loss", "accuracy") for p in figures.curves(groups, what, splits)]
    return found


def _followed_splits(judged: str) -> list[str]:
    """Those whose learning curves are drawn."""
    return ["val", "train"] if judged == "val" else ["train"]


def _followed(found: Comparison) -> list[Any]:
    """Index of the runs whose histories are read: of the best settings, of each some seeds.

    Those that failed, which no picture shows, and those whose files are elsewhere come last.
    """
    last = (found.table["state"] == "failed") | found.table["folder"].isna()
    runs = pd.DataFrame({"last": last, "row": found.rows}).sort_values(["last", "row"], kind="stable")
    return sorted(runs[runs.groupby("row").cumcount() < SEEDS].index[:FILES])


def _groups(found: Comparison, labels: list[str], histories: dict[Any, pd.DataFrame]) -> list[Group]:
    """Each setting of the leaderboard that has histories to draw."""
    groups: list[Group] = [(label, []) for label in labels]
    splits = _followed_splits(boards.judge(found.table))
    rows, failed = found.rows, found.table["state"] == "failed"
    for index, history in histories.items():
        if not failed[index] and all(f"{split}/loss" in history for split in splits):
            groups[rows[index]][1].append(history)
    return [(label, group) for label, group in groups if group]


def _best(found: Comparison, labels: list[str]) -> tuple[dict[str, Any] | None, list[Picture]]:
    """What the page says of the best setting's median run, with its pictures if its weights are here."""
    best_run = found.ranked.best
    if best_run is None:
        return None, []
    index = best_run.at
    run: Any = found.table.loc[index]
    about: dict[str, Any] = {
        "index": index,
        "label": labels[0],
        "seed": best_run.settings.get("seed"),
        "problem": "",
        "rerun": config.command(run["overrides"]),
    }
    about["folder"] = shown(run["folder"]) if run["folder"] is not None else ""
    if run["folder"] is None or not (run["folder"] / "weights.safetensors").exists():
        return about | {"problem": "Its weights are not on this machine."}, []
    from mnist_exp.evaluate import answers as best  # torch

    try:
        answers = best.answers(run["folder"], run["dataset"])
    except ExperimentError as error:
        return about | {"problem": f"{error.message} {error.help}"}, []
    worst = answers.worst()
    matrix = answers.confusion
    pictures = [closeup.confusion(matrix, names=answers.names)]
    if len(worst):
        p, seen = answers.probabilities.max(1)[worst], answers.images[worst]
        pictures.append(closeup.mistakes(seen, answers.true[worst], answers.predicted[worst], p, names=answers.names))
    if answers.first_layer is not None:
        pictures.append(closeup.first_layer(answers.first_layer))
    return about | {
        "confusion": matrix,
        "confused": [(answers.names[t], answers.names[g], n, share) for t, g, n, share in best.confused(matrix)],
        "wrong": int(matrix.sum() - np.trace(matrix)),
    }, pictures


def _context(
    found: Comparison,
    pictures: dict[str, list[Picture]],
    best: dict[str, Any] | None,
    best_pictures: list[Picture],
    texts: dict[str, str],
) -> dict[str, Any]:
    """All that the template shows; *texts* has each picture's SVG by its name."""
    selection, table, board, by = found.selection, found.table, found.board, found.by
    sweep = selection.sweep
    shared, uri = _shared(table)
    facts = boards.summary(found)
    line = config.command(sweep.typed, sweep=True) if sweep else ""
    waiting = {state: facts["states"].get(state, 0) for state in ("planned", "running", "killed", "damaged")}
    drawn = {section: [_shown(p, texts) for p in drawings] for section, drawings in pictures.items()}
    lost = table[table["state"].isin(LOST)]
    top, listed = board.head(ROWS), _listed(found)
    runs = _runs(table, {*top["best"], *listed} - {-1}, uri)
    return {
        "title": found.title,
        "command": line,
        "resume": sweep.again if sweep else "",
        "unfinished": {state: n for state, n in waiting.items() if n},
        "written": _now(),
        "started": table["started"].min(),
        "facts": facts,
        "sentence": boards.sentence(found),
        "judged": boards.judge(table),
        "words": WORDS,
        "splits": [s for s in boards.SPLITS if f"{s}_mean" in board],
        "by": by,
        "varied": [(key, [boards.value(v) for v in drawing.scale(table[key]).values]) for key in [*by, *_seeds(table)]],
        "shared": shared,
        "sampled": FILES if table["folder"].notna().sum() > FILES else 0,
        "settings": len(board),
        "board": top.to_dict("records"),
        "runs": runs,
        "listed": [runs[index] for index in listed],
        "view": _view(selection, uri),
        "lost": len(lost),
        "failures": boards.failures(lost.head(FAILURES)),
        "home": shown(found.home),
        "best": best,
        "best_pictures": [_shown(p, texts) for p in best_pictures],
        **drawn,
    }


def _seeds(table: pd.DataFrame) -> list[str]:
    return ["seed"] if "seed" in table and table["seed"].nunique() > 1 else []


def _shown(picture: Picture, texts: dict[str, str]) -> dict[str, Any]:
    return {"title": picture.title, "alt": picture.alt, "svg": Markup(drawing.inline(texts[picture.name]))}


def _listed(found: Comparison) -> list[Any]:
    """Index of the runs that the page lists: all in their order, or if that is too much those of the best settings."""
    if len(found.table) <= ROWS:
        return list(found.table.index)
    return [run.at for setting in found.ranked.settings for run in setting.runs][:ROWS]


def _runs(table: pd.DataFrame, wanted: set[Any], uri: str) -> dict[Any, dict[str, Any]]:
    """What the page says of the *wanted* runs, and the page of each in MLflow."""
    told = ["number", "name", "state", "epoch", "seconds", "run_id", "experiment_id"]
    told += [f"final/{split}_accuracy" for split in boards.SPLITS]
    rows: dict[Any, Any] = table.loc[sorted(wanted), told].to_dict("index")
    return {index: row | {"link": _link(row, uri)} for index, row in rows.items()}


def _shared(table: pd.DataFrame) -> tuple[list[tuple[str, str]], str]:
    """The config that all runs share, as keys and values, and the MLflow store that they name.

    Of more runs than `FILES` so many are asked, at even distances.
    """
    folders = list(table["folder"].dropna())
    asked: Any = np.unique(np.linspace(0, len(folders) - 1, FILES).round().astype(int)) if folders else []
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
    shared: dict[str, Any] | None = None
    for path in (folders[i] / "config.yaml" for i in asked):
        if not path.exists():
            continue
        flat = config.flatten(yaml.load(path.read_bytes(), loader))
        shared = flat if shared is None else {k: v for k, v in shared.items() if k in flat and flat[k] == v}
    shared = shared or {}
    uri = uri_for(shared.get("tracking.uri") if all(map(trust.own, folders[:1])) else None)
    plain = {k: v for k, v in shared.items() if not any(k == a or k.startswith(f"{a}.") for a in ASIDE)}
    return [(key, "null" if v is None else config.compact(v)) for key, v in plain.items()], uri


def _link(run: dict[str, Any], uri: str) -> str:
    """The run's page in MLflow; empty if it is not tracked."""
    if not run["run_id"]:
        return ""
    page = f"#/experiments/{run['experiment_id']}/runs/{run['run_id']}?workflowType=machine_learning"
    return f"{_server(uri)}/{page}"


def _view(selection: Selection, uri: str) -> str:
    """The saved view of a sweep in MLflow; empty if there is none."""
    record = tracked.sweep(selection.home) if selection.sweep else None  # None: not tracked, or not yet
    return f"{_server(uri)}/{record.page}" if record and record.page else ""


def _server(uri: str) -> str:
    """Where a browser finds the store *uri*: its server, or `mlflow ui` in the project's folder."""
    if not uri.startswith(("http://", "https://")):
        return "http://127.0.0.1:5000"
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
