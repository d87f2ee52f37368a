"""A run from claim to end: who may stop it, and what it leaves."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trainings

from mnist_exp.config import Config
from mnist_exp.disk import ledger, provenance
from mnist_exp.engine.events import Control, EpochEnd, Observer
from mnist_exp.errors import Interrupted
from mnist_exp.run import session
from mnist_exp.run.session import Run, Watch

Tiny = Callable[..., Config]
HERE = Path("run")


class Stopper(Observer):
    """Sends signals to this process at the end of the first epoch."""

    def __init__(self, *numbers: int) -> None:
        self.numbers, self.epochs = numbers, 0

    def on_epoch(self, event: EpochEnd) -> None:
        self.epochs = event.epoch
        for number in self.numbers:
            signal.raise_signal(number)


def watched(stopper: Stopper) -> Watch:
    def watch(about: Run, control: Control) -> list[Observer]:
        return [stopper]

    return watch


@pytest.mark.parametrize(
    ("numbers", "code"),
    [((signal.SIGINT,), 130), ((signal.SIGTERM,), 143), ((signal.SIGTERM, signal.SIGTERM), 143)],
)
def test_the_first_signal_asks_the_run_to_stop(numbers: tuple[int, ...], code: int, tiny: Tiny) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stopper = Stopper(*numbers)
    with pytest.raises(Interrupted) as stopped:
        trainings.run(tiny(epochs=5), HERE, watch=watched(stopper))
    assert stopped.value.exit_code == code
    assert stopper.epochs == 1
    entry = ledger.read(HERE)
    assert (entry.state, entry.epoch) == ("killed", 1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_ctrl_c_after_another_signal_stops_at_once(first: int, tiny: Tiny) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainings.run(tiny(epochs=5), HERE, watch=watched(Stopper(first, signal.SIGINT)))
    entry = ledger.read(HERE)
    assert (entry.state, entry.reason) == ("killed", "Stopped at once.")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_amid_the_first_stops_at_once() -> None:
    def stopping() -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), session._signals(Control(), stopping):
        signal.raise_signal(signal.SIGINT)


def test_signals_are_left_to_the_main_thread(tiny: Tiny) -> None:
    results: list[str] = []
    handler = signal.getsignal(signal.SIGINT)
    work = threading.Thread(target=lambda: results.append(trainings.run(tiny(), HERE).state))
    work.start()
    work.join()
    assert results == ["finished"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_difference_of_the_code_is_that_of_the_last_attempt(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "git", lambda: {"commit": "a" * 40, "dirty": "true", "diff": "-x\n+y\n"})
    trainings.run(tiny(), HERE)
    assert (HERE / "code.diff").read_text() == "-x\n+y\n"
    monkeypatch.setattr(provenance, "git", lambda: {"commit": "b" * 40, "dirty": "false", "diff": ""})
    trainings.run(tiny(epochs=3, force=True), HERE)
    assert not (HERE / "code.diff").exists()
    assert ledger.read(HERE).epoch == 3
