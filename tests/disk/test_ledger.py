"""The ledger tells the truth about a run, and only one process at a time may change it."""

import dataclasses
import fcntl
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trainings

from mnist_exp.config import Config
from mnist_exp.disk import ledger, records
from mnist_exp.disk.layout import State
from mnist_exp.disk.ledger import Ledger, reap
from mnist_exp.errors import BusyError, ExperimentError

HERE = Path("run")


@pytest.fixture(autouse=True)
def folder() -> Path:
    HERE.mkdir()
    return HERE


def test_what_is_written_is_read() -> None:
    entry = Ledger(name="n", epoch=3, params={"lr": 0.1}, summary={"final/val_accuracy": 0.9}, tags={"why": "é"})
    entry.write(HERE)
    assert ledger.read(HERE) == entry


def test_two_runs_have_two_ids() -> None:
    assert Ledger().id != Ledger().id


def test_keys_of_a_later_version_are_passed_over() -> None:
    plain = {**dataclasses.asdict(Ledger(name="n")), "colour": "red"}
    (HERE / "ledger.json").write_text(json.dumps(plain))
    assert ledger.read(HERE).name == "n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is damaged"),
        ('{"format": 1', "is damaged"),
        ("[]", "is damaged"),
        ("{}", "is damaged"),
        ("\x00" * 40, "is damaged"),
        ('{"format": 1, "params": []}', "is damaged: params is "),
        ('{"format": 1, "overrides": "hidden=8"}', 'is damaged: overrides is "hidden=8"'),
        ('{"format": 1, "state": null}', "is damaged: state is null"),
        ('{"format": 1, "state": "lost"}', "is damaged: 'lost' is not a valid State"),
        ('{"format": 1, "threads": 1025}', "is damaged: 1025 threads after epoch 0"),
        ('{"format": 1, "threads_after": {"2": 1, "x": 1}}', "is damaged: 1 threads after epoch x"),
        ('{"format": 2}', "has format 2; this version knows up to 1"),
    ],
)
def test_a_damaged_ledger_is_refused(text: str, sentence: str) -> None:
    (HERE / "ledger.json").write_text(text)
    with pytest.raises(ExperimentError, match=sentence):
        ledger.read(HERE)


def test_a_folder_without_ledger_is_no_run() -> None:
    with pytest.raises(ExperimentError, match=r"run is not a run: it has no ledger\.json"):
        ledger.read(HERE)


def test_a_held_run_is_alive_and_nobody_elses(tiny: Callable[..., Config]) -> None:
    Ledger(pid=4711, host="elsewhere").write(HERE)
    assert not records.held(HERE)
    with ledger.hold(HERE):
        assert records.held(HERE)
        with pytest.raises(BusyError, match="run is being trained by process 4711 on elsewhere") as caught:
            trainings.run(tiny(), HERE)
        assert caught.value.exit_code == 2
        assert ledger.read(HERE).state == "running"  # the refused one has changed nothing
    assert not records.held(HERE)


def test_asking_whether_a_run_is_alive_keeps_nobody_from_it() -> None:
    """However often it is asked."""
    Ledger().write(HERE)
    with ledger.hold(HERE):
        pass
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            records.held(HERE)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(300):
            with ledger.hold(HERE):
                pass
    finally:
        stop.set()
        for asker in askers:
            asker.join()


@pytest.mark.not_on("win32", "there is no lock to share: who asks for so long is taken for the holder")
def test_those_who_ask_do_not_take_each_other_for_the_holder() -> None:
    Ledger().write(HERE)
    ledger.hold(HERE).release()
    with (HERE / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not records.held(HERE)


def test_what_is_not_running_is_not_held_to_be_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner may come just then."""
    Ledger(state=State.FINISHED).write(HERE)
    monkeypatch.setattr(ledger, "hold", lambda folder: pytest.fail("it was held"))
    reap(HERE)


def test_a_run_gives_its_hold_back_however_it_ends(tiny: Callable[..., Config]) -> None:
    with pytest.raises(ExperimentError):
        trainings.run(tiny(lr=1e30), HERE)
    assert not records.held(HERE)
    trainings.run(tiny(), Path("other"))
    assert not records.held(Path("other"))


HOLD = """
import sys, time
from pathlib import Path
from mnist_exp.disk import ledger
with ledger.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_holds_nothing() -> None:
    """The kernel gives the lock back, so that a run which says `running` is seen to be dead."""
    entry = Ledger(epochs=4)
    entry.write(HERE)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(HERE)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert records.held(HERE)
            reap(HERE)
            assert ledger.read(HERE).state == "running"  # it lives
        finally:
            holder.kill()
    reap(HERE)
    entry = ledger.read(HERE)
    assert (entry.state, entry.reason) == ("killed", "Its process died without a word.")
    assert entry.ended_ms == pytest.approx(time.time() * 1000, abs=60_000)


@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED, State.PRUNED, State.KILLED])
def test_what_has_ended_is_not_ended_again(state: State) -> None:
    entry = Ledger(state=state, ended_ms=5)
    entry.write(HERE)
    reap(HERE)
    assert ledger.read(HERE) == entry


@pytest.mark.parametrize("text", [None, "{"])
def test_reaping_passes_over_what_is_no_run(text: str | None) -> None:
    if text is not None:
        (HERE / "ledger.json").write_text(text)
    reap(HERE)
    reap(Path("nowhere"))
    assert not records.held(HERE)


def test_a_finished_run_has_written_down_everything(tiny: Callable[..., Config]) -> None:
    result = trainings.run(tiny(name="mine", tags={"why": "test"}), HERE, ["hidden=16"])
    entry = ledger.read(HERE)
    assert (entry.state, entry.reason, entry.epoch, entry.epochs) == ("finished", "", 2, 2)
    assert (entry.name, entry.overrides, entry.parameters) == ("mine", ["hidden=16"], 785 * 16 + 170)
    assert entry.params["lr"] == 1e-3
    assert entry.params["hidden"] == "16"
    assert entry.tags["why"] == "test"
    assert set(entry.fingerprint) == {"config", "code", "data"}
    assert entry.dataset["name"] == "synthetic"
    assert entry.summary == result.summary
    assert entry.started_ms <= (entry.ended_ms or 0)
    assert 0 < entry.seconds <= entry.summary["time/total"] + 1e-9
    assert entry.summary["time/total_cpu"] > 0
    assert entry.summary["best/val_accuracy"] >= entry.summary["final/val_accuracy"] == result.objective


@pytest.mark.parametrize(
    "wrong",
    [
        '"a": ' + "[" * 100_000 + "]" * 100_000,
        '"seconds": 1e999',
        '"seconds": 1e301',
        '"seconds": NaN',
        '"seconds": "long"',
        '"started_ms": 1' + "0" * 20,
        '"summary": {"final/val_accuracy": "x"}',
        '"tags": {"git.commit": 5}',
        '"overrides": [1]',
        '"ended_ms": {}',
        '"dataset": []',
        '"ended_ms": 9223372036854775807',
        '"summary": {"final/val_accuracy": 1e308}',
        '"summary": {"final/test_accuracy": -1}',
        '"started_ms": -1',
        '"seconds": -1.5',
        '"epochs": -1',
        r'"name": "\ud800"',
        r'"tags": {"\udfff": "x"}',
    ],
)
def test_a_ledger_of_other_types_or_numbers_is_damaged(wrong: str, tmp_path: Path) -> None:
    """Whoever reads it need not expect them; one from elsewhere may hold anything."""
    ledger.Ledger().write(tmp_path)
    text = (tmp_path / "ledger.json").read_text()
    (tmp_path / "ledger.json").write_text(text.rstrip().removesuffix("}") + f", {wrong}}}")
    with pytest.raises(ExperimentError, match=r"ledger\.json is damaged: ") as caught:
        ledger.read(tmp_path)
    assert len(caught.value.message) < 300


def test_a_reason_is_recorded_without_secrets(scratch: Path) -> None:
    """It may be another program's, with the address that it did not reach."""
    entry = Ledger()
    entry.write(scratch)
    ledger.reap(scratch, "OperationalError: postgresql://me:hunter2@host/db, password=hunter2")
    assert "hunter2" not in (scratch / "ledger.json").read_text()
    assert ledger.read(scratch).reason.startswith("OperationalError: postgresql://…@host/db")
