"""Saved views in MLflow: for each sweep, and for all runs, the table and the charts that compare them.

By default, MLflow opens an experiment without a metric in its table and with ten runs in its charts. It stores a shared
view in a tag of the experiment. This module writes the same tags, and links to them in the first line of the
experiment's description, which is above every page. The format of the tags is MLflow's own and not documented: it is
written only for the versions in `CHECKED`.
"""

import base64
import json
import logging
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import quote

from mnist_exp.tracking.store import Store

log = logging.getLogger(__name__)

CHECKED = ("3.17",)  # minor versions of mlflow with which the pages were checked
KEPT = 20  # views of sweeps that are kept: MLflow reads all tags of an experiment each time
TAG = "mlflow.sharedViewState."
DESCRIPTION = "mlflow.note.content"
ALL = "all"  # key of the view of all runs
METRICS = ("val/accuracy", "test/accuracy", "val/loss", "test/loss", "train/loss")  # one chart of curves each
COSTS = ("model/parameters", "time/total")
MACHINE_LEARNING = "workflowType=machine_learning"


@final
@dataclass(frozen=True)
class Subject:
    """What the view of a sweep, or of all runs, depends on."""

    id: str
    """The sweep's; empty: all runs."""
    created_ms: int
    varied: Sequence[str]
    """MLflow params that differ between its runs; they become columns."""
    primary: str = "val/accuracy"
    """Metric that orders its runs, by its last value."""


ALL_RUNS = Subject("", 0, ("hidden", "lr", "optimizer", "seed"))


def publish_view(store: Store, subject: Subject) -> str:
    """Writes the view of a sweep, and the description with the links; returns the link to the view.

    Keeps the views of the `KEPT` newest sweeps. For an unknown version of mlflow it writes no view, and the returned
    link only filters.
    """
    if not _known():
        return f"#/experiments/{store.experiment_id}/runs?searchFilter={quote(_filter(subject))}&{MACHINE_LEARNING}"
    _write(store, subject)
    _write(store, ALL_RUNS)
    tags = store.client.get_experiment(store.experiment_id).tags
    views = {key.removeprefix(TAG): json.loads(value) for key, value in tags.items() if key.startswith(TAG)}
    ours = [key for key in views if views[key]["name"] == f"Sweep {key}"]
    ours.sort(key=lambda key: views[key]["createdAt"], reverse=True)
    for key in ours[KEPT:]:
        store.client.delete_experiment_tag(store.experiment_id, TAG + key)
    _describe(store, tags.get(DESCRIPTION, ""), ours[0])
    return link(store, subject.id)


def welcome(store: Store) -> None:
    """Writes the view of all runs, and its link, unless the experiment has them."""
    tags = store.client.get_experiment(store.experiment_id).tags
    if TAG + ALL in tags or not _known():
        return
    _write(store, ALL_RUNS)
    _describe(store, tags.get(DESCRIPTION, ""), "")


def link(store: Store, key: str, charts: bool = False) -> str:
    """The address of the view *key*, without the server's name."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{store.experiment_id}/runs?viewStateShareKey={quote(key)}&{MACHINE_LEARNING}{mode}"


def _known() -> bool:
    import mlflow

    if mlflow.__version__.rsplit(".", 1)[0] in CHECKED:
        return True
    log.info("mlflow %s: saved views were not checked with it, so none is written.", mlflow.__version__)
    return False


def _write(store: Store, subject: Subject) -> None:
    now, name = time.time_ns() // 1_000_000, f"Sweep {subject.id}" if subject.id else "All runs"
    view = {"name": name, "createdAt": subject.created_ms or now, "updatedAt": now, "state": pack(state(subject))}
    store.client.set_experiment_tag(store.experiment_id, TAG + (subject.id or ALL), json.dumps(view))


def _filter(subject: Subject) -> str:
    """The search filter of its runs."""
    return f"tags.sweep = '{subject.id}'" if subject.id else ""


def _describe(store: Store, text: str, newest: str) -> None:
    """Puts the links into the first line of the description *text*; other lines are the user's."""
    first, _, rest = text.partition("\n")
    if first and "viewStateShareKey=" not in first:
        rest = f"\n{text}"
    line = f"[All runs]({link(store, ALL)}), [charts]({link(store, ALL, charts=True)})"
    if newest:
        line = f"Newest sweep: [table]({link(store, newest)}), [charts]({link(store, newest, charts=True)}) | {line}"
    store.client.set_experiment_tag(store.experiment_id, DESCRIPTION, f"{line}\n{rest}" if rest else line)


def pack(state: dict[str, Any]) -> str:
    """*state* as MLflow's pages store it."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()


def state(subject: Subject) -> dict[str, Any]:
    """The state of MLflow's page: filter, order, columns and charts."""
    metrics = dict.fromkeys((subject.primary, *METRICS))  # in order, each once
    ours = {"deleted": False, "isGenerated": False}
    charts: list[dict[str, Any]] = [
        {
            "type": "PARALLEL",
            "metricSectionId": "overview",
            "selectedParams": list(subject.varied),
            "selectedMetrics": [subject.primary],
            "showAllRuns": True,
        },
        {"type": "BAR", "metricSectionId": "overview", "metricKey": subject.primary.replace("/accuracy", "/error")},
    ]
    charts += [
        {
            "type": "LINE",
            "metricSectionId": "curves",
            "displayName": metric,
            "metricKey": metric,
            "selectedMetricKeys": [metric],
            "xAxisKey": "step",
            "xAxisScaleType": "linear",
            "selectedXAxisMetricKey": "",
            "yAxisKey": "metric",
            "yAxisExpressions": [],
            "scaleType": "log" if metric.endswith("/loss") else "linear",
            "range": {},
            "lineSmoothness": 0,
            "ignoreOutliers": False,
            "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
        }
        for metric in metrics
    ]
    columns = [f"params.`{param}`" for param in subject.varied]
    columns += [f"metrics.`{metric}`" for metric in (*metrics, *COSTS)]
    return {
        "searchFilter": _filter(subject),
        "orderByKey": f"metrics.`{subject.primary}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", "runDateAndNestInfo", *columns],
        "columnWidths": {},
        "runsHiddenMode": "SHOW_ALL",  # the default shows ten
        "compareRunCharts": [
            {"uuid": f"chart-{i}", **ours, "runsCountToCompare": 20, **chart} for i, chart in enumerate(charts)
        ],
        "compareRunSections": [  # three charts in a row would be too narrow to read
            {"uuid": uuid, "name": name, "columns": 2, "display": True, "isReordered": False, **ours}
            for uuid, name in (("overview", "Overview"), ("curves", "Curves"))
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,  # or the sections that MLflow adds would come first
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
