"""Going on with a run: never with something else than it was, never a second time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_exp import ledger, provenance, run
from mnist_exp.config import Config
from mnist_exp.errors import ConfigError
from mnist_exp.events import Control, Observer
from mnist_exp.files import sha256

Tiny = Callable[..., Config]
Command = Callable[..., tuple[int, str, str]]
HERE = Path("run")


def test_a_finished_run_is_never_run_again(tiny: Tiny) -> None:
    first = run.run(tiny(), HERE)
    before = {path: path.read_bytes() for path in HERE.rglob("*") if path.is_file()}

    def watch(about: run.Run, control: Control) -> list[Observer]:
        raise AssertionError("it trains again")

    assert run.run(tiny(), HERE, watch=watch) == first
    assert {path: path.read_bytes() for path in HERE.rglob("*") if path.is_file()} == before


def test_another_config_is_refused_and_named(tiny: Tiny) -> None:
    run.run(tiny(), HERE)
    with pytest.raises(
        ConfigError, match=r"run was made with something else: batch_size was 16, now 8; lr was"
    ) as caught:
        run.run(tiny(batch_size=8, lr=0.01), HERE)
    assert caught.value.help == "force=true goes on all the same."
    assert not ledger.alive(HERE)
    assert ledger.read(HERE).state == "finished"


def test_what_does_not_change_the_result_may_change(tiny: Tiny) -> None:
    first = run.run(tiny(), HERE)
    assert run.run(tiny(name="other", tags={"why": "x"}, threads=2), HERE) == first


def test_other_code_is_refused_unless_forced(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run.run(tiny(), HERE)
    monkeypatch.setattr(provenance, "code_fingerprint", lambda: "another")
    with pytest.raises(ConfigError, match="the code has changed"):
        run.run(tiny(), HERE)
    assert run.run(tiny(force=True), HERE) == first


def test_more_epochs_go_on_from_the_last(tiny: Tiny) -> None:
    constant = {"floor": 1.0}  # a rate that falls depends on how many epochs there will be
    run.run(tiny(schedule=constant), HERE)
    result = run.run(tiny(epochs=4, force=True, schedule=constant), HERE)
    run.run(tiny(epochs=4, schedule=constant), Path("whole"))
    one, other = (sha256((folder / "weights.safetensors").read_bytes()) for folder in (HERE, Path("whole")))
    assert one == other
    assert (result.state, ledger.read(HERE).epoch) == ("finished", 4)


@pytest.mark.parametrize("typed", ["resume=nowhere", "resume=last"])
def test_resuming_nothing_is_explained(typed: str, command: Command) -> None:
    code, out, err = command(typed)
    assert (code, out) == (2, "")
    assert "There is no run in " in err
    assert "Give the folder of a run, such as outputs/runs/<date>/<time>-<id>." in err
