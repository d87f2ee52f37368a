"""Names of runs and sweeps, and the table that they become."""

import math
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_fixtures import make_run, make_sweep, track

from mnist_exp import config, results
from mnist_exp.disk import ledger
from mnist_exp.disk.files import write_json
from mnist_exp.errors import ConfigError, ExperimentError
from mnist_exp.report import board as leaderboard
from mnist_exp.results import names as naming
from mnist_exp.results import query as search
from mnist_exp.tracking.store import Store

ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An outputs folder with one run and two sweeps, in a project without an MLflow store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    outputs = tmp_path / "outputs"
    make_run(outputs / "runs" / "2026-02-01" / "09-00-00-111111", ["hidden=32", "lr=0.1"], 0.8)
    for name in ("10-00-00-aaaaaa", "10-00-00-bbbbbb"):
        sweep = make_sweep(outputs, [["hidden=64", "lr=1e-3"], ["hidden=[64,32]", "lr=1e-3"]], name)
        make_run(sweep / "0", ["hidden=64", "lr=1e-3"], 0.9)
    track(sweep / "0", ID)
    return outputs


def test_last_is_the_newest_sweep(root: Path) -> None:
    assert naming.resolve("last", root).home.name == "10-00-00-bbbbbb"


def test_a_metric_that_is_called_as_another_column_is_none(root: Path) -> None:
    """A ledger from elsewhere may hold it."""
    (folder,) = root.glob("runs/*/*")
    entry = ledger.read(folder)
    entry.summary |= {"folder": 1.0, "state": 2.0, "overrides": 3.0, "final/mine": 0.5}
    entry.write(folder)
    run = results.load(folder, root).iloc[0]
    assert (run["folder"], run["state"], run["final/mine"]) == (folder, "finished", 0.5)


def test_last_is_the_newest_run_where_there_is_no_sweep(tmp_path: Path) -> None:
    for name in ("10-00-00-aaaaaa", "11-00-00-aaaaaa"):
        make_run(tmp_path / "runs" / "2026-02-01" / name, ["lr=0.1"], 0.8)
    (tmp_path / "runs" / "2026-02-01" / "12-00-00-empty").mkdir()
    assert naming.resolve("last", tmp_path).home.name == "11-00-00-aaaaaa"


@pytest.mark.parametrize("what", ["10-00-00-aaaaaa", "10-00-00-a", "outputs/sweeps/2026-01-31/10-00-00-aaaaaa"])
def test_a_sweep_is_found_by_id_prefix_and_folder(root: Path, what: str) -> None:
    selection = naming.resolve(what, root)
    assert selection.home.name == "10-00-00-aaaaaa"
    assert [folder.name for folder in selection.folders] == ["0", "1"]


def test_the_id_of_a_sweeps_parent_run_is_the_sweeps(root: Path) -> None:
    folder = root / "sweeps" / "2026-01-31" / "10-00-00-bbbbbb"
    write_json(folder / "mlflow.json", {"run_id": "b" * 32, "experiment_id": "1"})
    selection = naming.resolve("b" * 32, root)
    assert (selection.title, selection.home) == ("Sweep 10-00-00-bbbbbb", folder)
    assert [run.name for run in selection.folders] == ["0", "1"]


def test_a_run_is_found_by_folder_and_by_mlflow_id(root: Path) -> None:
    folder = root / "sweeps" / "2026-01-31" / "10-00-00-bbbbbb" / "0"
    assert naming.resolve(folder, root).folders == [folder]
    assert naming.resolve(ID, root).folders == [folder]


def test_runs_of_another_launcher_are_found_by_folder(tmp_path: Path) -> None:
    for number in (10, 9):
        make_run(tmp_path / str(number), ["lr=0.1"], 0.8)
    assert [folder.name for folder in naming.resolve(tmp_path, tmp_path).folders] == ["9", "10"]


def test_an_ambiguous_name_lists_what_it_could_be(root: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        naming.resolve("10-00-00", root)
    assert "10-00-00-aaaaaa" in caught.value.help
    assert "10-00-00-bbbbbb" in caught.value.help


@pytest.mark.parametrize("what", ["10-00-00-abaaaa", "", "f" * 32])
def test_an_unknown_name_is_a_sentence(root: Path, what: str) -> None:
    with pytest.raises(ConfigError, match=r"No run|Neither"):
        naming.resolve(what, root)


def test_a_near_miss_is_guessed(root: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        naming.resolve("10-00-00-aaaaab", root)
    assert "Did you mean 10-00-00-aaaaaa" in caught.value.help


def test_no_runs_at_all_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        naming.resolve("last", tmp_path)
    assert "python -m mnist_exp.train" in caught.value.help


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2}', "[]"])
def test_a_damaged_sweep_names_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ExperimentError, match=r"sweep\.json"):
        naming.resolve(tmp_path, tmp_path)


def test_load_has_a_typed_row_for_each_run_also_the_planned(root: Path) -> None:
    table = results.load("10-00-00-bbbbbb", root)
    assert list(table["state"]) == ["finished", "planned"]
    assert list(table["hidden"]) == [64, "[64,32]"]
    assert list(table["lr"]) == [0.001, 0.001]
    assert table.loc[0, "final/val_accuracy"] == 0.9
    assert pd.isna(table.loc[1, "final/val_accuracy"])
    assert table.loc[0, "run_id"] == ID
    assert str(table.loc[0, "started"]) == "2023-11-14 22:13:20+00:00"
    assert isinstance(table.loc[0, "epochs"], int)  # though the planned run has none


def test_history_has_a_row_for_each_epoch(root: Path) -> None:
    table = results.load("10-00-00-bbbbbb", root)
    history = results.history(table.iloc[0])
    assert list(history["epoch"]) == [1, 2, 3]
    assert history["val/accuracy"].iloc[-1] == 0.9
    assert results.history(table.iloc[1]).empty


def test_a_running_run_counts_as_killed_when_nobody_holds_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "0", ["lr=0.1"], 0.5, state="running")
    assert results.load(run).loc[0, "state"] == "killed"
    with ledger.hold(run):
        assert results.load(run).loc[0, "state"] == "running"


def test_a_command_can_be_pasted_into_a_shell() -> None:
    line = config.command(["hidden=[64,32]", "name=it's mine"])
    echoed = subprocess.run(["bash", "-c", line.replace("python -m", "printf '%s\\n'", 1)], capture_output=True)
    assert echoed.stdout.decode().splitlines()[1:] == ["hidden=[64,32]", "name=it's mine"]


@pytest.mark.integration
@pytest.mark.parametrize("through", ["file", "client"])
def test_an_experiment_is_read_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: str) -> None:
    from mnist_exp.tracking.runs import publish
    from mnist_exp.tracking.store import open_store

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store = open_store(uri, "trial")
    code = {"git.commit": "abc", "git.dirty": "true"}
    made = [tmp_path / name for name in ("r0", "r1")]
    folders = [make_run(f, [f"hidden={h}"], 0.9, figures=False, tags=code) for f, h in zip(made, (64, 32), strict=True)]
    for folder in folders:
        publish(folder, store)
    if through == "client":
        monkeypatch.setattr(search, "runs", search._from_client)
    table = results.load("trial", tmp_path / "outputs")
    assert sorted(table["hidden"]) == [32, 64]
    for known in (table, results.load(tmp_path / "r0")):  # the store and the folder say the same
        assert (known.loc[0, "cpu_seconds"], known.loc[0, "commit"]) == (9.0, "abc-dirty")
    assert list(table["state"]) == ["finished", "finished"]
    assert list(table["final/val_accuracy"]) == [0.9, 0.9]
    assert list(table["epoch"]) == [3, 3]
    assert list(results.history(table.iloc[0])["epoch"]) == [1, 2, 3]  # from the run's artifacts
    run_id = str(table.loc[1, "run_id"])
    assert list(results.load(run_id, tmp_path / "outputs")["run_id"]) == [run_id]


@pytest.mark.parametrize("through", ["file", "client"])
def test_a_run_of_the_store_that_is_none_is_damaged(
    mlflow_store: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch, through: str
) -> None:
    """Whoever can write to the store can log what no run of ours has: as in a ledger, it counts as damaged."""
    store = mlflow_store("trial")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    accuracies = {"whole": 0.5, "none": math.nan, "percent": 97.8, "less": -1.0, "huge": 1e300, "infinite": math.inf}
    for name, accuracy in accuracies.items():
        run_id = store.client.create_run(store.experiment_id, run_name=name).info.run_id
        store.client.log_metric(run_id, "final/val_accuracy", accuracy)
        store.client.log_param(run_id, "hidden", "9" * 400)
        store.client.set_terminated(run_id)
    for column, value in {"start_time": 2**62, "artifact_uri": "http://[::", "name": b"\xff"}.items():
        run_id = store.client.create_run(store.experiment_id).info.run_id
        with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as database, database:
            database.execute(f"UPDATE runs SET {column} = ? WHERE run_uuid = ?", (value, run_id))
    if through == "client":
        monkeypatch.setattr(search, "runs", search._from_client)
    table = results.load("trial")
    accuracy = table["final/val_accuracy"]
    assert list(table[table["state"] == "finished"]["name"]) == ["whole", "none"]
    assert list(accuracy.dropna()) == [0.5]
    damaged = table[table["state"] == "damaged"]
    assert "In MLflow final/val_accuracy is 97.8, which is no share." in set(damaged["reason"])
    assert len(damaged) == 7
    (board,) = leaderboard.compare(naming.resolve("trial"))
    assert len(board.board) == 1


def test_a_run_that_begins_while_the_store_is_read_is_left_out(
    mlflow_store: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, select = mlflow_store("trial"), search._select
    old = store.client.create_run(store.experiment_id).info.run_id

    def beside(uri: str, sql: str, *values: str) -> Any:
        if "FROM params" in sql:
            new = store.client.create_run(store.experiment_id).info.run_id
            store.client.log_param(new, "lr", 1)
            store.client.log_metric(new, "train/loss", 1)
        return select(uri, sql, *values)

    monkeypatch.setattr(search, "_select", beside)
    assert [run.run_id for run in search.runs(search.Query(store.uri, store.experiment_id))] == [old]


def test_a_setting_that_is_null_in_one_run_tells_it_from_others(tmp_path: Path) -> None:
    """One that a run does not have, as a planned one, does not."""
    for i, clip in enumerate((None, 3)):
        folder = make_run(tmp_path / str(i), ["lr=0.1"], 0.9)
        entry = ledger.read(folder)
        entry.params |= {"training.clip": clip} | ({} if i else {"hidden": 8})
        entry.write(folder)
    (board,) = leaderboard.compare(naming.resolve(tmp_path))
    assert board.by == ["training.clip"]
    assert list(board.board["n"]) == [1, 1]


def test_a_broken_store_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(ExperimentError, match=r"mlflow\.db cannot be read"):
        naming.resolve("trial", tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize("heavy", ["torch", "mlflow", "matplotlib"])
def test_loading_results_stays_light(heavy: str) -> None:
    code = f"import sys, mnist_exp.results, mnist_exp.report.board; print({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.integration
def test_the_experiments_of_a_server_are_asked_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnist_exp.tracking.store import open_store

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    store = open_store(uri, "trial")
    monkeypatch.setattr(search, "database", lambda uri: None)
    assert search.experiments(uri)["trial"] == store.experiment_id


def test_a_database_without_its_driver_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for driver in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, driver, None)
    uri = "postgresql://user:secret@127.0.0.1:1/x"
    for ask in (lambda: search.experiments(uri), lambda: search.runs(search.Query(uri, run_id="0" * 32))):
        with pytest.raises(ExperimentError, match=r"store postgresql://127\.0\.0\.1:1/x cannot be read: .*psycopg"):
            ask()


def test_a_run_without_an_epoch_has_cost_nothing(tmp_path: Path) -> None:
    table = results.load(make_run(tmp_path / "r0", ["lr=0.1"], None, state="failed"))
    assert (table.loc[0, "cpu_seconds"], table.loc[0, "seconds"]) == (0.0, 0.0)
