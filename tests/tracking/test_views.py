"""A sweep in MLflow: the view that a link opens, the description, parent runs, registered models."""

import base64
import itertools
import json
import logging
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from mnist_exp.config import Config
from mnist_exp.disk import ledger
from mnist_exp.disk.files import read_json, write_json
from mnist_exp.disk.ledger import Ledger
from mnist_exp.results import names as naming
from mnist_exp.results import query as search
from mnist_exp.results.query import Query
from mnist_exp.run import session as run
from mnist_exp.tracking import model, publish, sweeps, views
from mnist_exp.tracking.publisher import Publisher
from mnist_exp.tracking.store import Store, open_store
from mnist_exp.tracking.views import Subject

DAY_MS = 86_400_000
NUMBER = itertools.count()


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests of this module: making it takes a second."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def store(uri: str) -> Iterator[Store]:
    """A store whose experiment no other test has."""
    yield open_store(uri, f"experiment-{next(NUMBER)}")
    mlflow.set_tracking_uri(None)


def tags(store: Store) -> dict[str, str]:
    found: dict[str, str] = store.client.get_experiment(store.experiment_id).tags
    return found


def view(store: Store, key: str) -> dict[str, Any]:
    """The saved view *key*, unpacked."""
    tag = json.loads(tags(store)[f"mlflow.sharedViewState.{key}"])
    return {**tag, "state": unpack(tag["state"])}


def unpack(packed: str) -> dict[str, Any]:
    """A view's state as MLflow's pages read it."""
    kind, _, text = packed.partition(";")
    assert kind == "deflate"
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return state


def made_up_run(folder: Path, state: str = "finished", accuracy: float = 0.5, **settings: Any) -> Path:
    """A run's folder without the training."""
    folder.mkdir(parents=True)
    ended = None if state == "running" else 2
    entry = Ledger(
        name=folder.name, state=state, started_ms=1, ended_ms=ended, figures=False, experiment="e", **settings
    )
    entry.params = {"hidden": "8", "lr": 0.1, "seed": 0, "val_size": 20} | entry.params
    entry.summary = {"final/val_accuracy": accuracy, "final/test_accuracy": 1 - accuracy}
    entry.write(folder)
    return folder


def made_up_sweep(folder: Path, states: list[str], points: int | None = None, **settings: Any) -> Path:
    """A sweep's folder, as the launcher leaves it, over `hidden`."""
    hidden = [str(8 * (i + 1)) for i in range(points or len(states))]
    folder.mkdir(parents=True)
    plan = {
        "format": 1,
        "id": folder.name,
        "created_ms": time.time_ns() // 1_000_000,
        "typed": [f"hidden={','.join(hidden)}"],
        "keys": ["hidden"],
        "experiment": "e",
        "points": [[f"hidden={h}"] for h in hidden],
    }
    write_json(folder / "sweep.json", plan)
    for i, state in enumerate(states):
        accuracy = 0.5 + i / 10
        made_up_run(folder / str(i), state, accuracy, sweep=folder.name, params={"hidden": hidden[i]}, **settings)
    return folder


def publish_all(folder: Path, store: Store, over: bool = True) -> None:
    """What the publisher does with a sweep."""
    for path in sorted(folder.glob("*/ledger.json")):
        publish.publish(path.parent, store, abandoned=over)
    sweeps.publish(folder, store, over=over)


def status(store: Store, run_id: str) -> str:
    found: str = store.client.get_run(run_id).info.status
    return found


# --- the view ---------------------------------------------------------------------------------------------------------


def test_a_packed_state_is_zlib_and_base64_behind_its_name() -> None:
    assert unpack("deflate;eJyrVkpUslIwrAUACeUCKQ==") == {"a": 1}
    state = views.state(Subject("s", 1, ["hidden", "lr"]), "tags.sweep = 's'")
    assert views.pack(state).startswith("deflate;eJ")
    assert unpack(views.pack(state)) == state


def test_a_view_shows_what_varies_first_and_all_runs_of_its_sweep(store: Store) -> None:
    link = views.publish_view(store, Subject("s1", DAY_MS, ["hidden", "model.dropout"]))
    assert link == f"#/experiments/{store.experiment_id}/runs?viewStateShareKey=s1&workflowType=machine_learning"
    saved = view(store, "s1")
    assert (saved["name"], saved["createdAt"]) == ("Sweep s1", DAY_MS)
    state = saved["state"]
    assert state["selectedColumns"][:4] == [
        "params.`hidden`",
        "params.`model.dropout`",
        "metrics.`val/accuracy`",
        "metrics.`test/accuracy`",
    ]
    assert state["searchFilter"] == "tags.sweep = 's1'"
    assert state["runsHiddenMode"] == "SHOW_ALL"
    kinds = [chart["type"] for chart in state["compareRunCharts"]]
    assert kinds == ["PARALLEL", "BAR"] + ["LINE"] * 5
    assert state["compareRunCharts"][0]["selectedParams"] == ["hidden", "model.dropout"]


@pytest.mark.parametrize(("val_size", "primary"), [(20, "val/accuracy"), (0, "train/accuracy")])
def test_runs_are_ordered_by_validation_never_by_test(
    store: Store, tmp_path: Path, val_size: int, primary: str
) -> None:
    folder = made_up_sweep(tmp_path / f"order-{val_size}", [], points=1)
    made_up_run(folder / "0", sweep=folder.name, params={"val_size": val_size})
    publish_all(folder, store)
    state = view(store, folder.name)["state"]
    assert (state["orderByKey"], state["orderByAsc"]) == (f"metrics.`{primary}`", False)
    assert [chart["metricKey"] for chart in state["compareRunCharts"] if chart["type"] == "BAR"] == [primary]


def test_columns_are_the_swept_params_and_what_changed_with_them() -> None:
    runs = [
        Ledger(params={"hidden": "8", "lr": 0.1, "val_size": 0, "optimizer": "sgd", "seed": 0}),
        Ledger(params={"hidden": "9", "lr": 0.2, "val_size": 0, "optimizer": "sgd", "seed": 0}),
    ]
    # `experiment` is no param; lr differs because the experiments set it.
    assert sweeps.varied(["experiment", "data.val_size", "hidden"], runs) == ["val_size", "hidden", "lr"]


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


def test_the_newest_views_are_kept_and_those_of_others_are_left_alone(store: Store) -> None:
    store.client.set_experiment_tag(
        store.experiment_id, "mlflow.sharedViewState.theirs", '{"name": "mine", "createdAt": 0, "state": "x"}'
    )
    for i in range(views.KEPT + 2):
        views.publish_view(store, Subject(f"s{i}", DAY_MS + i, ["hidden"]))
    kept = {key.removeprefix(views.TAG) for key in tags(store) if key.startswith(views.TAG)}
    assert kept == {"theirs", views.ALL} | {f"s{i}" for i in range(2, views.KEPT + 2)}


# --- the description --------------------------------------------------------------------------------------------------


def first_line(store: Store) -> str:
    return tags(store)["mlflow.note.content"].splitlines()[0]


def test_the_first_line_of_the_description_links_the_newest_sweep(store: Store) -> None:
    views.publish_view(store, Subject("new", 2, ["hidden"]))
    views.publish_view(store, Subject("old", 1, ["hidden"]))  # sent late, by sync
    line = first_line(store)
    assert line.startswith("Newest sweep: [table](#/experiments/")
    assert [key for key in ("new", "old", "all") if f"viewStateShareKey={key}&" in line] == ["new", "all"]
    assert line.count("compareRunsMode=CHART") == 2


def test_the_users_words_stay_below_the_links(store: Store) -> None:
    store.client.set_experiment_tag(store.experiment_id, "mlflow.note.content", "Why we do this.\nSecond line.")
    views.welcome(store)
    assert first_line(store).startswith("[All runs](")
    views.publish_view(store, Subject("s1", 1, ["hidden"]))
    assert first_line(store).startswith("Newest sweep")
    assert tags(store)["mlflow.note.content"].splitlines()[1:] == ["", "Why we do this.", "Second line."]


def test_a_single_run_gets_the_links_too(store: Store, tmp_path: Path) -> None:
    publish.publish(made_up_run(tmp_path / "r"), store)
    assert first_line(store).startswith("[All runs](")
    assert view(store, views.ALL)["state"]["searchFilter"] == ""


# --- parent runs ------------------------------------------------------------------------------------------------------


def test_runs_are_flat_unless_asked(store: Store, tmp_path: Path) -> None:
    folder = made_up_sweep(tmp_path / "flat", ["finished", "finished"])
    publish_all(folder, store)
    found = store.client.search_runs([store.experiment_id])
    assert [run.data.tags["sweep"] for run in found] == ["flat", "flat"]
    assert not any("mlflow.parentRunId" in run.data.tags for run in found)


def test_a_damaged_run_keeps_no_sweep_out_of_mlflow(store: Store, tmp_path: Path) -> None:
    folder = made_up_sweep(tmp_path / "hurt", ["finished", "finished"])
    (folder / "0" / "ledger.json").write_text("{")
    publish_all(folder, store)
    assert "viewStateShareKey=hurt" in read_json(folder / "mlflow.json")["page"]


@pytest.mark.parametrize(
    ("states", "points", "expected"),
    [
        (["finished", "pruned"], 2, "FINISHED"),
        (["finished", "failed", "killed"], 3, "FAILED"),
        (["finished", "killed"], 2, "KILLED"),
        (["finished"], 2, "KILLED"),
    ],
)
def test_the_parent_ends_as_its_sweep_did(
    store: Store, tmp_path: Path, states: list[str], points: int, expected: str
) -> None:
    folder = made_up_sweep(tmp_path / f"n{next(NUMBER)}", states, points, nested=True)
    publish_all(folder, store, over=False)
    parent = read_json(folder / "mlflow.json")["run_id"]
    assert status(store, parent) == "RUNNING"
    publish_all(folder, store)
    assert status(store, parent) == expected
    found = store.client.get_run(parent)
    assert not found.data.metrics
    assert "sweep" not in found.data.tags  # the view of the sweep shows its runs only
    children = {read_json(path)["run_id"] for path in folder.glob("*/mlflow.json")}
    assert {store.client.get_run(run_id).data.tags["mlflow.parentRunId"] for run_id in children} == {parent}
    assert {run.run_id for run in search.runs(Query(store.uri, store.experiment_id))} == children  # it is no run itself


# --- models -----------------------------------------------------------------------------------------------------------


def versions(store: Store, name: str) -> list[tuple[str, str]]:
    """(version, id of its run), oldest first."""
    found = store.client.search_model_versions(f"name = '{name}'")
    return sorted((version.version, version.run_id) for version in found)


@pytest.fixture
def pretend_to_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logged models without files: what is tested is which one is registered."""
    from mlflow.entities import LoggedModelOutput

    def log(exported: Path, store: Store, run_id: str) -> str:
        logged = store.client.create_logged_model(store.experiment_id, name="model", source_run_id=run_id)
        store.client.finalize_logged_model(logged.model_id, "READY")
        store.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return f"models:/{logged.model_id}"

    monkeypatch.setattr(model, "log", log)


@pytest.mark.usefixtures("pretend_to_log")
def test_of_equally_accurate_runs_the_one_that_was_exported_is_registered(store: Store, tmp_path: Path) -> None:
    name = f"tied-{uuid.uuid4().hex}"
    folder = made_up_sweep(tmp_path / "tied", ["finished", "finished"], register=name)
    for number in range(2):
        entry = ledger.read(folder / str(number))
        entry.summary |= {"final/val_accuracy": 0.9, "final/val_loss": 0.5 - 0.1 * number}
        entry.write(folder / str(number))
    best = naming.best(naming.resolve(folder))
    (best / "model.pt2").touch()
    publish_all(folder, store)
    assert versions(store, name) == [(1, read_json(best / "mlflow.json")["run_id"])]


@pytest.mark.usefixtures("pretend_to_log")
def test_the_best_run_by_validation_is_registered_once(store: Store, tmp_path: Path) -> None:
    name = f"best-{uuid.uuid4().hex}"
    folder = made_up_sweep(tmp_path / "best", ["finished", "finished", "failed"], register=name)
    publish_all(folder, store, over=False)
    (folder / "1" / "model.pt2").touch()  # a sweep exports its best run afterwards
    publish_all(folder, store, over=False)
    assert not versions(store, name)
    publish_all(folder, store)
    best = read_json(folder / "1" / "mlflow.json")["run_id"]  # the failed one scored higher, "0" higher on test
    assert versions(store, name) == [(1, best)]
    assert read_json(folder / "mlflow.json")["registered"] == f"models:/{name}/1"
    publish_all(folder, store)
    assert versions(store, name) == [(1, best)]


@pytest.mark.usefixtures("pretend_to_log")
def test_the_median_run_of_the_best_setting_is_registered(store: Store, tmp_path: Path) -> None:
    """Previously the luckiest run, here of a setting that is second."""
    name, folder = f"median-{uuid.uuid4().hex}", tmp_path / "seeds"
    folder.mkdir()
    points = [[f"hidden={hidden}", f"seed={seed}"] for hidden in (8, 16) for seed in range(2)]
    plan = {"format": 1, "id": "seeds", "created_ms": 1, "typed": [], "keys": ["hidden", "seed"], "points": points}
    write_json(folder / "sweep.json", plan)
    for i, accuracy in enumerate((0.99, 0.5, 0.8, 0.81)):
        params = {"hidden": (8, 16)[i // 2], "seed": i % 2}
        made_up_run(folder / str(i), accuracy=accuracy, sweep="seeds", register=name, params=params)
        (folder / str(i) / "model.pt2").touch()
    publish_all(folder, store)
    assert versions(store, name) == [(1, read_json(folder / "2" / "mlflow.json")["run_id"])]


def test_of_two_datasets_nothing_is_registered(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = made_up_sweep(tmp_path / "both", ["finished", "finished"], register="never")
    for i, data in enumerate(("mnist", "kanji")):
        entry = ledger.read(folder / str(i))
        entry.params["data"] = data
        entry.write(folder / str(i))
    publish_all(folder, store)
    assert "both has runs of several datasets (mnist, kanji), and none is the best of all: nothing was" in caplog.text
    assert "registered" not in read_json(folder / "mlflow.json")


def test_a_best_run_without_a_model_is_named(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = made_up_sweep(tmp_path / "none", ["finished"], register="never")
    publish_all(folder, store)
    assert f"{folder / '0'} is the best run, but has no model.pt2" in caplog.text
    assert "registered" not in read_json(folder / "mlflow.json")


@pytest.mark.filterwarnings("ignore:.*AnyType:UserWarning")  # from mlflow.genai, which mlflow.pyfunc imports
def test_a_single_run_registers_a_model_that_predicts(
    store: Store, tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)  # mlflow would import it, slowly, where it is there

    name = f"single-{uuid.uuid4().hex}"
    config = tiny(checkpoint={"model": True}, tracking={"enabled": True, "register": name})
    run.run(config, tmp_path / "run")
    assert publish.publish(tmp_path / "run", store)
    note = read_json(tmp_path / "run" / "mlflow.json")
    assert note["registered"] == f"models:/{name}/1"
    assert versions(store, name) == [(1, note["run_id"])]
    loaded = mlflow.pyfunc.load_model(note["registered"])
    assert loaded.predict(np.zeros((3, 1, 28, 28), np.float32)).shape == (3, 10)


# --- data -------------------------------------------------------------------------------------------------------------


def test_the_dataset_links_to_its_page(store: Store, tmp_path: Path) -> None:
    page = "https://example.org/digits"
    folders = {
        page: made_up_run(tmp_path / "a", dataset={"name": "digits", "digest": "d1", "source": page}),
        "": made_up_run(tmp_path / "b", dataset={"name": "made up", "digest": "d2"}),
    }
    for source, folder in folders.items():
        publish.publish(folder, store)
        (used,) = store.client.get_run(read_json(folder / "mlflow.json")["run_id"]).inputs.dataset_inputs
        loaded = mlflow.data.get_source(used.dataset)
        assert getattr(loaded, "url", "") == source


# --- the process ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_publisher_shows_a_sweep_and_says_what_it_could_not_do(
    store: Store, tmp_path: Path, tiny: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    experiment = store.client.get_experiment(store.experiment_id).name
    config = tiny(tracking={"enabled": True, "uri": store.uri, "experiment": experiment})
    folder = made_up_sweep(tmp_path / "sent", ["finished", "running"], register="nothing")
    publisher = Publisher(config.tracking)
    publisher.sweep(folder)
    for i in range(2):
        publisher.follow(folder / str(i))
    publisher.close()
    assert publisher.delivered
    assert "viewStateShareKey=sent&" in publisher.where_to_look(folder)
    assert "is the best run, but has no model.pt2" in caplog.text
    found = store.client.search_runs([store.experiment_id], "tags.sweep = 'sent'")
    assert sorted(run.info.status for run in found) == ["FINISHED", "KILLED"]
