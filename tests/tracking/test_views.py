"""Saved views in MLflow, and the description that links to them."""

import base64
import json
import logging
import zlib
from collections.abc import Callable
from typing import Any

import mlflow
import pytest

from mnist_exp.tracking import views
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.views import Subject


@pytest.fixture
def store(mlflow_store: Callable[[str], Store]) -> Store:
    return mlflow_store("mnist_exp")


def tags(store: Store) -> dict[str, str]:
    return dict(store.client.get_experiment(store.experiment_id).tags)


def first_line(store: Store) -> str:
    return tags(store)["mlflow.note.content"].splitlines()[0]


def unpack(packed: str) -> dict[str, Any]:
    """A view's state as MLflow's pages read it."""
    kind, _, text = packed.partition(";")
    assert kind == "deflate"
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return state


def test_a_packed_state_is_zlib_and_base64_behind_its_name() -> None:
    assert unpack("deflate;eJyrVkpUslIwrAUACeUCKQ==") == {"a": 1}
    assert unpack(views.pack({"a": 1})) == {"a": 1}


@pytest.mark.parametrize("primary", ["val/accuracy", "train/accuracy"])
def test_a_view_shows_all_runs_of_its_sweep_ordered_by_its_metric(store: Store, primary: str) -> None:
    link = views.publish_view(store, Subject("s1", 86_400_000, ["hidden", "model.dropout"], primary))
    assert link == f"#/experiments/{store.experiment_id}/runs?viewStateShareKey=s1&workflowType=machine_learning"
    saved = json.loads(tags(store)["mlflow.sharedViewState.s1"])
    assert (saved["name"], saved["createdAt"]) == ("Sweep s1", 86_400_000)
    state = unpack(saved["state"])
    assert state["selectedColumns"][:3] == ["params.`hidden`", "params.`model.dropout`", f"metrics.`{primary}`"]
    assert (state["searchFilter"], state["runsHiddenMode"]) == ("tags.sweep = 's1'", "SHOW_ALL")
    assert (state["orderByKey"], state["orderByAsc"]) == (f"metrics.`{primary}`", False)
    parallel, bar, *lines = state["compareRunCharts"]
    assert (parallel["type"], parallel["selectedParams"]) == ("PARALLEL", ["hidden", "model.dropout"])
    assert (bar["type"], bar["metricKey"]) == ("BAR", primary.replace("accuracy", "error"))
    assert [line["metricKey"] for line in lines] == list(dict.fromkeys([primary, *views.METRICS]))


def test_another_minor_version_of_mlflow_gets_a_filter_and_no_view(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mlflow, "__version__", "3.99.0")
    with caplog.at_level(logging.INFO, "mnist_exp"):
        link = views.publish_view(store, Subject("s1", 1, ["hidden"]))
        views.welcome(store)
    assert "searchFilter=tags.sweep%20%3D%20%27s1%27" in link
    assert "3.99.0" in caplog.text
    assert not [key for key in tags(store) if key.startswith("mlflow.sharedViewState") or "note" in key]


@pytest.mark.integration
def test_the_newest_views_are_kept_and_those_of_others_are_left_alone(store: Store) -> None:
    theirs = '{"name": "mine", "createdAt": 0, "state": "x"}'
    store.client.set_experiment_tag(store.experiment_id, f"{views.TAG}theirs", theirs)
    for i in range(views.KEPT + 2):
        views.publish_view(store, Subject(f"s{i}", 1 + i, ["hidden"]))
    kept = {key.removeprefix(views.TAG) for key in tags(store) if key.startswith(views.TAG)}
    assert kept == {"theirs", views.ALL} | {f"s{i}" for i in range(2, views.KEPT + 2)}


def test_the_first_line_of_the_description_links_the_newest_sweep(store: Store) -> None:
    store.client.set_experiment_tag(store.experiment_id, "mlflow.note.content", "Why we do this.\nSecond line.")
    views.welcome(store)
    assert first_line(store).startswith("[All runs](")
    all_runs = json.loads(tags(store)[views.TAG + views.ALL])
    assert unpack(all_runs["state"])["searchFilter"] == ""
    views.publish_view(store, Subject("new", 2, ["hidden"]))
    views.publish_view(store, Subject("old", 1, ["hidden"]))  # sent late, by sync
    line = first_line(store)
    assert line.startswith("Newest sweep: [table](#/experiments/")
    assert [key for key in ("new", "old", "all") if f"viewStateShareKey={key}&" in line] == ["new", "all"]
    assert line.count("compareRunsMode=CHART") == 2
    assert tags(store)["mlflow.note.content"].splitlines()[1:] == ["", "Why we do this.", "Second line."]


def test_nothing_of_a_view_is_hidden_deleted_or_grouped() -> None:
    """MLflow would take a missing or a wrong one for its default, which shows less."""

    def flags(value: Any, key: str = "") -> set[tuple[str, bool]]:
        if isinstance(value, dict):
            return {flag for name, each in value.items() for flag in flags(each, name)}
        if isinstance(value, list):
            return {flag for each in value for flag in flags(each, key)}
        return {(key, value)} if isinstance(value, bool) else set()

    on = ("display", "hideEmptyCharts", "isAccordionReordered", "showAllRuns", "useGlobalLineSmoothing")
    on += ("useGlobalXaxisKey", "useGroupedValuesInCharts")
    off = ("deleted", "ignoreOutliers", "isGenerated", "isReordered", "orderByAsc", "runListHidden", "viewMaximized")
    state = views.state(Subject("s1", 1, ["hidden"]))
    assert flags(state) == {*((key, True) for key in on), *((key, False) for key in off)}
    assert [section["columns"] for section in state["compareRunSections"]] == [2, 2]
    lines = [chart for chart in state["compareRunCharts"] if chart["type"] == "LINE"]
    assert {line["scaleType"] for line in lines if line["metricKey"].endswith("/loss")} == {"log"}
    assert {line["scaleType"] for line in lines if not line["metricKey"].endswith("/loss")} == {"linear"}
    assert [line["lineSmoothness"] for line in lines] == [0] * len(lines)
