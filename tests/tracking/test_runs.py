"""What MLflow shows is what the run's folder holds: all of it, once, with the status that is true."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
import trainings

from mnist_exp.charts import run as figures
from mnist_exp.config import Config
from mnist_exp.disk import journal, ledger, tracked
from mnist_exp.disk.ledger import Ledger
from mnist_exp.errors import DivergedError
from mnist_exp.run import export
from mnist_exp.tracking.runs import Presence, presence, publish
from mnist_exp.tracking.store import Store

Tiny = Callable[..., Config]
HERE = Path("outputs/runs/day/run")


@pytest.fixture
def shop(mlflow_store: Callable[[str], Store]) -> Store:
    return mlflow_store("mnist_exp")


@pytest.fixture
def finished(tiny: Tiny) -> Path:
    """A finished run that was not published."""
    config = tiny(name="mine", tags={"why": "baseline"}, tracking={"enabled": True})
    trainings.run(config, HERE, ["hidden=16", "epochs=2"])
    (HERE / "train.log").write_text("what was said\n")
    return HERE


def runs(store: Store) -> list[Any]:
    return list(store.client.search_runs([store.experiment_id]))


def histories(store: Store, run_id: str, key: str) -> list[tuple[int, float, int]]:
    return [(m.step, m.value, m.timestamp) for m in store.client.get_metric_history(run_id, key)]


def artifacts(store: Store, run_id: str) -> set[str]:
    return {file.path for file in store.client.list_artifacts(run_id)}


@pytest.mark.integration
def test_a_finished_run_is_published_completely(finished: Path, shop: Store) -> None:
    assert publish(finished, shop)
    (stored,) = runs(shop)
    entry, rows = ledger.read(finished), journal.read(finished)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "mine"
    assert (stored.info.start_time, stored.info.end_time) == (entry.started_ms, entry.ended_ms)
    assert stored.data.params == {key: str(value) for key, value in entry.params.items()}
    assert stored.data.params["lr"] == "0.001"
    for key in rows[0]["metrics"]:
        expected = [(row["epoch"], row["metrics"][key], row["time_ms"]) for row in rows]
        assert histories(shop, stored.info.run_id, key) == expected
    assert next(iter(stored.data.metrics)) == "val/accuracy"  # which MLflow compares runs by
    wrong = [(row["epoch"], 1 - row["metrics"]["val/accuracy"], row["time_ms"]) for row in rows]
    assert histories(shop, stored.info.run_id, "val/error") == wrong
    for key, value in entry.summary.items():
        assert stored.data.metrics[key] == value
    assert stored.data.metrics["final/test_accuracy"] == rows[-1]["metrics"]["test/accuracy"]
    tags = stored.data.tags
    assert (tags["why"], tags["run.id"], tags["host"], tags["state"]) == ("baseline", entry.id, entry.host, "finished")
    assert tags["version.torch"] == torch.__version__
    assert tags["mlflow.note.content"] == "hidden=16 epochs=2"
    (dataset,) = stored.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("synthetic", entry.dataset["digest"])
    wanted = {
        "config.yaml",
        "environment.txt",
        "train.log",
        "metrics.jsonl",
        "weights.safetensors",
        "figures",
        "ledger.json",
    }
    assert wanted <= artifacts(shop, stored.info.run_id) <= wanted | {"code.diff", "hits.safetensors"}
    figures = shop.client.list_artifacts(stored.info.run_id, "figures")
    assert [file.path for file in figures] == ["figures/learning_curves.png"]
    assert Path("mlruns/mnist_exp", stored.info.run_id, "artifacts/config.yaml").exists()


@pytest.mark.integration
@pytest.mark.parametrize("record", [..., None, '{"id": ', "[]", '{"rows": "2"}'])
def test_what_is_published_twice_is_stored_once(record: Any, finished: Path, shop: Store) -> None:
    """Whatever becomes of the record of what was sent."""
    publish(finished, shop)
    (before,) = runs(shop)
    if record is None:
        (finished / "mlflow.json").unlink()
    elif record is not ...:
        (finished / "mlflow.json").write_text(record)
        assert presence(finished, ledger.read(finished), shop) is Presence.LACKING
    assert publish(finished, shop)
    (after,) = runs(shop)
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    assert len(histories(shop, after.info.run_id, "test/accuracy")) == 2


@pytest.mark.integration
def test_a_run_is_published_while_it_trains(finished: Path, shop: Store) -> None:
    """The ledger says running, after one epoch; later the rest follows into the same run."""
    entry, lines = ledger.read(finished), (finished / "metrics.jsonl").read_text().splitlines(keepends=True)
    entry.state = "running"
    entry.write(finished)
    (finished / "metrics.jsonl").write_text(lines[0] + lines[1][:20])  # the second line is being written
    assert not publish(finished, shop)
    (stored,) = runs(shop)
    assert stored.info.status == "RUNNING"
    assert [step for step, _, _ in histories(shop, stored.info.run_id, "val/loss")] == [1]
    entry.state = "finished"
    entry.write(finished)
    (finished / "metrics.jsonl").write_text("".join(lines))
    assert publish(finished, shop)
    (stored,) = runs(shop)
    assert stored.info.status == "FINISHED"
    assert [step for step, _, _ in histories(shop, stored.info.run_id, "val/loss")] == [1, 2]


@pytest.mark.integration
def test_an_interrupted_call_is_made_good(finished: Path, shop: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store goes away between the epochs and the end."""
    terminate = type(shop.client).set_terminated

    def gone(*_: object, **__: object) -> None:
        raise ConnectionError("store is gone")

    monkeypatch.setattr(type(shop.client), "set_terminated", gone)
    with pytest.raises(ConnectionError):
        publish(finished, shop)
    assert runs(shop)[0].info.status == "RUNNING"
    monkeypatch.setattr(type(shop.client), "set_terminated", terminate)
    assert publish(finished, shop)
    (stored,) = runs(shop)
    assert stored.info.status == "FINISHED"
    assert len(histories(shop, stored.info.run_id, "test/accuracy")) == 2


@pytest.mark.integration
def test_a_failed_run_says_why(tiny: Tiny, shop: Store) -> None:
    with pytest.raises(DivergedError):
        trainings.run(tiny(lr=1e30), HERE)
    assert publish(HERE, shop)
    (stored,) = runs(shop)
    assert stored.info.status == "FAILED"
    assert stored.data.tags["reason"].startswith("The loss is not finite somewhere in steps 1 to 7.")


@pytest.mark.integration
@pytest.mark.parametrize(("state", "status"), [("killed", "KILLED"), ("pruned", "KILLED"), ("failed", "FAILED")])
def test_the_status_shows_how_it_ended(state: str, status: str, shop: Store) -> None:
    HERE.mkdir(parents=True)
    Ledger(state=state, ended_ms=time.time_ns() // 1_000_000, name=state).write(HERE)
    assert publish(HERE, shop)
    assert [stored.info.status for stored in runs(shop)] == [status]


def test_a_run_from_elsewhere_that_does_not_say_when_it_ended_did_at_its_start(shop: Store) -> None:
    HERE.mkdir(parents=True)
    Ledger(state="finished", experiment="mnist_exp", started_ms=7, summary={"final/val_accuracy": 0.5}).write(HERE)
    assert publish(HERE, shop)
    (stored,) = runs(shop)
    assert (stored.info.status, stored.info.end_time) == ("FINISHED", 7)


@pytest.mark.integration
def test_a_run_whose_process_died_is_killed(shop: Store) -> None:
    HERE.mkdir(parents=True)
    Ledger(name="dead").write(HERE)
    assert not publish(HERE, shop)  # someone may still come back to it
    assert [stored.info.status for stored in runs(shop)] == ["RUNNING"]
    assert publish(HERE, shop, abandoned=True)
    (stored,) = runs(shop)
    assert stored.info.status == "KILLED"
    assert stored.data.tags["reason"] == "Its process died without a word."


def test_a_resumed_run_is_running_again(shop: Store) -> None:
    HERE.mkdir(parents=True)
    entry = Ledger(state="killed", ended_ms=time.time_ns() // 1_000_000)
    entry.write(HERE)
    publish(HERE, shop)
    entry.state, entry.ended_ms = "running", None
    entry.write(HERE)
    assert not publish(HERE, shop)
    (stored,) = runs(shop)
    assert stored.info.status == "RUNNING"


@pytest.mark.integration
def test_a_run_that_was_forced_to_other_settings_is_another_run(tiny: Tiny, shop: Store) -> None:
    trainings.run(tiny(epochs=1), HERE)
    publish(HERE, shop)
    trainings.run(tiny(epochs=2, lr=0.1, force=True), HERE)
    assert publish(HERE, shop)
    older, newer = sorted(runs(shop), key=lambda stored: "forced" in stored.data.tags)  # they began at the same time
    assert (older.data.params["lr"], newer.data.params["lr"]) == ("0.001", "0.1")
    assert "lr was 0.001, now 0.1" in newer.data.tags["forced"]
    assert [step for step, *_ in histories(shop, newer.info.run_id, "train/loss")] == [1, 2]


def test_a_folder_that_never_became_a_run_is_passed_over(shop: Store) -> None:
    HERE.mkdir(parents=True)
    assert not publish(HERE, shop)
    assert publish(HERE, shop, abandoned=True)
    assert runs(shop) == []


# mlflow's own module of Python functions is imported here, and warns about a type hint of its own.
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
@pytest.mark.slow  # torch's compiler and mlflow's model loader take some seconds
def test_the_model_can_be_loaded_and_served(
    tiny: Tiny, shop: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # mlflow.pytorch takes in Lightning where it is installed, which may be for another torch; a model needs none.
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    monkeypatch.setitem(sys.modules, "lightning", None)
    config = tiny(tracking={"enabled": True}, checkpoint={"model": True})
    trainings.run(config, HERE)
    publish(HERE, shop)
    (stored,) = runs(shop)
    (output,) = stored.outputs.model_outputs
    uri = f"models:/{output.model_id}"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 1, 28, 28)).astype(np.float32)
    expected = export.restore(config, HERE)(torch.from_numpy(pixels)).detach().numpy()
    capsys.readouterr()
    network = mlflow.pytorch.load_model(uri)
    assert "WARNING" not in capsys.readouterr().err  # such as of another torch
    np.testing.assert_allclose(network(torch.from_numpy(pixels)).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    served = mlflow.pyfunc.load_model(uri)
    assert served.metadata.signature.inputs.inputs[0].shape == (-1, 1, 28, 28)
    np.testing.assert_allclose(served.predict(pixels), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.integration
def test_the_environment_lists_what_is_installed(finished: Path, shop: Store) -> None:
    publish(finished, shop)
    text = (finished / "environment.txt").read_text()
    assert text.startswith("# Python 3.")
    assert f"{os.cpu_count()} cores" in text
    assert f"\ntorch=={metadata.version('torch')}\n" in text  # as pip freeze has it


@pytest.mark.integration
def test_pictures_that_come_later_reach_the_run_once(finished: Path, shop: Store) -> None:
    """As `evaluate` makes them; a picture that was drawn anew replaces the old one."""
    publish(finished, shop)
    (stored,) = runs(shop)
    pictures = finished / "figures" / "mnist-test"
    pictures.mkdir()
    for content in (b"one", b"two"):
        (pictures / "confusion.png").write_bytes(content)
        os.utime(pictures / "confusion.png", ns=(len(content), content[0]))
        assert presence(finished, ledger.read(finished), shop) is Presence.LACKING
        assert publish(finished, shop)
        assert presence(finished, ledger.read(finished), shop) is Presence.WHOLE
        sent = Path("mlruns/mnist_exp", stored.info.run_id, "artifacts/figures/mnist-test/confusion.png")
        assert sent.read_bytes() == content
    assert len(runs(shop)) == 1


@pytest.mark.parametrize("page", ["https://example.org/digits", ""])
def test_the_dataset_links_to_its_page(page: str, shop: Store) -> None:
    HERE.mkdir(parents=True)
    dataset = {"name": "digits", "digest": "d"} | ({"source": page} if page else {})
    Ledger(name="r", dataset=dataset).write(HERE)
    publish(HERE, shop)
    (used,) = runs(shop)[0].inputs.dataset_inputs
    assert getattr(mlflow.data.get_source(used.dataset), "url", "") == page


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:.*AnyType:UserWarning")  # from mlflow.genai, which mlflow.pyfunc imports
def test_a_model_from_elsewhere_is_not_logged(shop: Store, tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever loads it from MLflow may run what is in it."""
    theirs = Path("theirs")
    trainings.run(tiny(checkpoint={"model": True}, tracking={"enabled": True, "register": "single"}), theirs)
    assert publish(theirs, shop)
    record = tracked.read(theirs)
    assert record is not None
    assert (record.model, record.registered) == ("", "")
    assert shop.client.search_registered_models() == []
    assert "theirs is not below outputs/runs or outputs/sweeps: no model of it was registered as single" in caplog.text


@pytest.mark.integration
@pytest.mark.parametrize("state", ["finished", "running"])
def test_a_record_from_elsewhere_sends_nothing_to_another_run(state: str, finished: Path, shop: Store) -> None:
    """It names a run of the user's; where it names its own it counts."""
    publish(finished, shop)
    (mine,) = runs(shop)
    theirs = Path("theirs")
    theirs.mkdir()
    entry = Ledger(name="theirs", ended_ms=time.time_ns() // 1_000_000)
    record = tracked.read(finished)
    assert record
    for path in (finished / "metrics.jsonl", finished / "config.yaml"):
        (theirs / path.name).write_bytes(path.read_bytes())
    entry.state = "finished"
    entry.write(theirs)
    tracked.write(theirs, dataclasses.replace(record, id=entry.id, rows=0, state=state))
    assert presence(theirs, entry, shop) is Presence.LACKING
    tracked.write(theirs, dataclasses.replace(record, id=entry.id, rows=0, state=state))
    assert publish(theirs, shop)
    own = tracked.read(theirs)
    assert own
    assert own.run_id != mine.info.run_id
    assert publish(theirs, shop)
    assert tracked.read(theirs) == own
    assert presence(theirs, entry, shop) is Presence.WHOLE
    assert [run.info.run_name for run in runs(shop)].count("theirs") == 1


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")  # mlflow's own, at its first import
def test_a_single_run_registers_a_model_that_predicts(shop: Store, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)  # mlflow would import it, slowly, if it is installed
    trainings.run(tiny(checkpoint={"model": True}, tracking={"enabled": True, "register": "single"}), HERE)
    assert publish(HERE, shop)
    record = tracked.read(HERE)
    assert record
    assert record.registered == "models:/single/1"
    (version,) = shop.client.search_model_versions("name = 'single'")
    assert (version.version, version.run_id) == (1, record.run_id)
    loaded = mlflow.pyfunc.load_model(record.registered)
    assert loaded.predict(np.zeros((3, 1, 28, 28), np.float32)).shape == (3, 10)


@pytest.mark.integration
def test_a_name_with_dollars_is_drawn_as_it_is(tiny: Tiny, shop: Store) -> None:
    trainings.run(tiny(name=r"$\foo$", tracking={"enabled": True}), HERE)
    assert publish(HERE, shop)
    (stored,) = runs(shop)
    assert stored.info.run_name == r"$\foo$"
    assert "figures" in artifacts(shop, stored.info.run_id)


@pytest.mark.integration
def test_a_picture_that_cannot_be_drawn_keeps_nothing_back(
    finished: Path, shop: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr(figures, "learning_curves", broken)
    assert publish(finished, shop)
    assert [stored.info.status for stored in runs(shop)] == ["FINISHED"]
    assert "could not be drawn: no ink" in caplog.text


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")  # mlflow's own, at its first import
def test_the_model_of_a_run_is_ready_and_its_own(tiny: Tiny, shop: Store) -> None:
    trainings.run(tiny(checkpoint={"model": True}, tracking={"enabled": True, "figures": False}), HERE)
    assert publish(HERE, shop)
    (stored,) = runs(shop)
    (logged,) = shop.client.search_logged_models([shop.experiment_id])
    assert logged.status == "READY"
    assert logged.source_run_id == stored.info.run_id
    assert [output.model_id for output in stored.outputs.model_outputs] == [logged.model_id]
    record = tracked.read(HERE)
    assert record is not None
    assert record.model == f"models:/{logged.model_id}"
