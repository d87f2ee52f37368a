"""The screen may fail; training goes on."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import command, end, only_run, start, wait_for
from samples import TINY

from mnist_exp.disk import ledger

Injected = Callable[[int], None]


@pytest.mark.faults(37)
@pytest.mark.parametrize(
    ("sweep", "screen"), [(False, "> /dev/full 2>&1"), (True, ">&- 2>&-"), (True, "2>&1 | head -1")]
)
def test_training_goes_on_without_a_screen(sweep: bool, screen: str, injected: Injected) -> None:
    typed = " ".join([*TINY, *(["-m", "seed=0,1"] if sweep else [])])
    line = f"set -o pipefail; {sys.executable} -m mnist_exp.train {typed} {screen}"
    assert subprocess.run(["bash", "-c", line], capture_output=True).returncode == 0
    entries = [ledger.read(path.parent) for path in Path("outputs").rglob("ledger.json")]
    assert [entry.state for entry in entries] == ["finished"] * (1 + sweep)
    injected(1)


@pytest.mark.faults(37)
def test_a_lost_connection_ends_nothing(injected: Injected) -> None:
    process = start(*TINY, "epochs=300")
    wait_for(lambda: list(Path().rglob("metrics.jsonl")))
    os.kill(process.pid, signal.SIGHUP)
    assert end(process)[0] == 0
    assert ledger.read(only_run()).state == "finished"
    injected(1)


@pytest.mark.faults(40)
@pytest.mark.parametrize("typed", [("name=\udcff",), ("-m", "seed=0,1", "+tags.why='\udcff'"), ()])
def test_what_is_no_text_or_no_address_is_refused(typed: tuple[str, ...], injected: Injected) -> None:
    wrong = {} if typed else {"MLFLOW_TRACKING_URI": "s3://bucket"}
    code, _, err = command("data=synthetic", *typed, **wrong)
    assert code == 2
    assert err.startswith("error: ")
    assert not Path("outputs").exists()
    injected(1)
