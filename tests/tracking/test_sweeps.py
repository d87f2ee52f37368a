"""A sweep in MLflow: its view, its parent run, its registered model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnist_exp.config import Config, Data, compose, to_yaml
from mnist_exp.disk import ledger, tracked
from mnist_exp.disk.ledger import Ledger
from mnist_exp.disk.plan import Plan
from mnist_exp.disk.tracked import Tracked, TrackedRun
from mnist_exp.results import names, query
from mnist_exp.results.query import Query
from mnist_exp.tracking import model, runs, sweeps
from mnist_exp.tracking.publisher import Publisher
from mnist_exp.tracking.store import Store


@pytest.fixture
def store(mlflow_store: Callable[[str], Store]) -> Store:
    return mlflow_store("mnist_exp")


def make_sweep(states: list[str], points: int = 0, seeds: int = 1, **settings: Any) -> Path:
    """A sweep's folder without training: run i validates better than run i - 1, and tests worse."""
    folder = Path("outputs/sweeps/day/sweep")
    points = points or len(states)
    params = [{"hidden": 8 * (1 + i // seeds), "seed": i % seeds} for i in range(points)]
    folder.mkdir(parents=True)
    overrides = [[f"{key}={value}" for key, value in point.items()] for point in params]
    Plan(id="sweep", typed=["hidden=8,16"], keys=["hidden", "seed"], points=overrides).write(folder)
    for i, state in enumerate(states):
        entry = Ledger(name=str(i), state=state, started_ms=1, ended_ms=2, sweep="sweep", figures=False, **settings)
        entry.params = {"val_size": 20} | params[i]
        entry.summary = {"final/val_accuracy": 0.5 + i / 10, "final/test_accuracy": 0.5 - i / 10}
        (folder / str(i)).mkdir()
        entry.write(folder / str(i))
        (folder / str(i) / "config.yaml").write_text(to_yaml(compose(["data=synthetic"])))
    return folder


def change(folder: Path, number: int, **summary: float) -> Ledger:
    """Changes metrics of a run; returns its ledger."""
    entry = ledger.read(folder / str(number))
    entry.summary |= {f"final/{key}": value for key, value in summary.items()}
    entry.write(folder / str(number))
    return entry


def publish_all(folder: Path, store: Store, over: bool = True) -> Tracked:
    """Does what the publisher does with a sweep; returns the sweep's record."""
    for path in sorted(folder.glob("*/ledger.json")):
        runs.publish(path.parent, store, abandoned=over)
    sweeps.publish(folder, store, over=over)
    record = tracked.read(folder)
    assert record
    return record


def run_id(folder: Path) -> str:
    return (tracked.read(folder) or TrackedRun()).run_id


def test_columns_are_the_swept_params_and_what_changed_with_them() -> None:
    runs = [
        Ledger(params={"hidden": "8", "lr": 0.1, "val_size": 0, "optimizer": "sgd", "seed": 0}),
        Ledger(params={"hidden": "9", "lr": 0.2, "val_size": 0, "optimizer": "sgd", "seed": 0}),
    ]
    # `experiment` is no param; lr differs because the experiments set it.
    assert sweeps.varied(["experiment", "data.val_size", "hidden"], runs) == ["val_size", "hidden", "lr"]


@pytest.mark.integration
@pytest.mark.parametrize(("val_size", "primary"), [(20, "val/accuracy"), (0, "train/accuracy")])
def test_runs_are_ordered_by_validation_never_by_test(
    store: Store, monkeypatch: pytest.MonkeyPatch, val_size: int, primary: str
) -> None:
    folder = make_sweep(["finished"])
    entry = ledger.read(folder / "0")
    entry.params["val_size"] = val_size
    entry.write(folder / "0")
    subjects = []
    monkeypatch.setattr(sweeps.views, "publish_view", lambda store, subject: subjects.append(subject) or "")
    publish_all(folder, store)
    assert [subject.primary for subject in subjects] == [primary]


@pytest.mark.integration
def test_runs_are_flat_unless_asked_and_a_damaged_one_keeps_no_sweep_out_of_mlflow(store: Store) -> None:
    folder = make_sweep(["finished"] * 3)
    (folder / "0" / "ledger.json").write_text("{")
    assert "viewStateShareKey=sweep" in publish_all(folder, store).page
    runs = store.client.search_runs([store.experiment_id])
    assert [run.data.tags["sweep"] for run in runs] == ["sweep", "sweep"]
    assert not any("mlflow.parentRunId" in run.data.tags for run in runs)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("states", "points", "expected"),
    [
        (["finished", "pruned"], 2, "FINISHED"),
        (["finished", "failed", "killed"], 3, "FAILED"),
        (["finished", "killed"], 2, "KILLED"),
        (["finished"], 2, "KILLED"),
    ],
)
def test_the_parent_ends_as_its_sweep_did(store: Store, states: list[str], points: int, expected: str) -> None:
    folder = make_sweep(states, points, nested=True)
    parent = publish_all(folder, store, over=False).run_id
    assert store.client.get_run(parent).info.status == "RUNNING"
    assert publish_all(folder, store).run_id == parent
    stored = store.client.get_run(parent)
    assert (stored.info.status, stored.data.metrics) == (expected, {})
    assert "sweep" not in stored.data.tags  # the view of the sweep shows its runs only
    children = {run_id(path.parent) for path in folder.glob("*/mlflow.json")}
    assert {store.client.get_run(child).data.tags["mlflow.parentRunId"] for child in children} == {parent}
    assert {run.run_id for run in query.runs(Query(store.uri, store.experiment_id))} == children  # it is no run itself


@pytest.fixture
def versions(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[str, str]]]:
    """`versions()`: (version, id of its run) of the registered model `digits`; models are logged without files."""
    from mlflow.entities import LoggedModelOutput

    def log(exported: Path, data: Data, store: Store, run_id: str) -> str:
        logged = store.client.create_logged_model(store.experiment_id, name="model", source_run_id=run_id)
        store.client.finalize_logged_model(logged.model_id, "READY")
        store.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return f"models:/{logged.model_id}"

    monkeypatch.setattr(model, "log", log)
    search = store.client.search_model_versions
    return lambda: sorted((each.version, each.run_id) for each in search("name = 'digits'"))


Versions = Callable[[], list[tuple[str, str]]]


@pytest.mark.integration
def test_the_best_run_by_validation_is_registered_once(store: Store, versions: Versions) -> None:
    folder = make_sweep(["finished", "finished", "failed"], register="digits")  # the failed one has the highest score
    publish_all(folder, store, over=False)
    (folder / "1" / "model.pt2").touch()  # a sweep exports its best run at its end
    publish_all(folder, store, over=False)
    assert not versions()
    for _ in range(2):
        assert publish_all(folder, store).registered == "models:/digits/1"
        assert versions() == [(1, run_id(folder / "1"))]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("accuracies", "best"),
    [((0.99, 0.5, 0.8, 0.81), "2"), ((0.9, 0.9, 0.9, 0.9), "3")],  # not the luckiest; of equals by the loss
)
def test_the_registered_run_is_the_one_that_is_called_best(
    store: Store, versions: Versions, accuracies: tuple[float, ...], best: str
) -> None:
    folder = make_sweep(["finished"] * 4, seeds=2, register="digits")
    for i, accuracy in enumerate(accuracies):
        change(folder, i, val_accuracy=accuracy, val_loss=(0.4, 0.4, 0.2, 0.3)[i])
    assert names.best(names.resolve(folder)).at == folder / best
    (folder / best / "model.pt2").touch()
    publish_all(folder, store)
    assert versions() == [(1, run_id(folder / best))]


@pytest.mark.integration
def test_of_two_datasets_nothing_is_registered(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_sweep(["finished", "finished"], register="never")
    for i, data in enumerate(("mnist", "kanji")):
        entry = ledger.read(folder / str(i))
        entry.params["data"] = data
        entry.write(folder / str(i))
    assert not publish_all(folder, store).registered
    assert (
        f"{folder} has runs that cannot be compared (mnist, kanji), and none is the best of all: nothing was"
        in caplog.text
    )


@pytest.mark.integration
def test_of_a_sweep_from_elsewhere_nothing_is_registered(
    store: Store, versions: Versions, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_sweep(["finished"], register="digits").rename("theirs")
    (folder / "0" / "model.pt2").touch()
    assert not publish_all(folder, store).registered
    assert not versions()
    assert "theirs is not below outputs/runs or outputs/sweeps: no model of it was registered as digits." in caplog.text


@pytest.mark.integration
def test_a_best_run_without_a_model_is_named(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_sweep(["finished"], register="never")
    assert not publish_all(folder, store).registered
    assert f"{folder / '0'} is the best run, but has no model.pt2" in caplog.text


@pytest.mark.slow
def test_the_publisher_shows_a_sweep_and_says_what_it_could_not_do(
    store: Store, tiny: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_sweep(["finished", "running"], register="nothing")
    publisher = Publisher(tiny(tracking={"enabled": True, "uri": store.uri, "experiment": "mnist_exp"}).tracking)
    publisher.sweep(folder)
    for i in range(2):
        publisher.follow(folder / str(i))
    publisher.close()
    assert publisher.delivered
    assert "viewStateShareKey=sweep&" in publisher.where_to_look(folder)[-1]
    assert "is the best run, but has no model.pt2" in caplog.text
    stored = store.client.search_runs([store.experiment_id], "tags.sweep = 'sweep'")
    assert sorted(run.info.status for run in stored) == ["FINISHED", "KILLED"]
