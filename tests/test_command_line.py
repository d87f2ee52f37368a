"""The real command line, in processes of its own: few, because each costs seconds."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY

from mnist_exp import ledger

COMMAND = [sys.executable, "-m", "mnist_exp.train", *TINY]


def test_a_typo_leaves_with_2_and_one_sentence() -> None:
    done = subprocess.run([*COMMAND, "hiden=256"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: There is no setting 'hiden' (override 'hiden=256').",
        "  help: Did you mean 'hidden'? All settings: python -m mnist_exp.train --help",
    ]


def test_m_may_stand_anywhere(command: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = command("hidden=8,-1", "-m", "lr=1e-3")
    assert code == 2
    assert "hidden must be a positive integer" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_run_says_how_to_go_on(number: int, code: int) -> None:
    """The first epochs are kept; Ctrl-C and SIGTERM differ in the exit code only."""
    command = [*COMMAND, "epochs=100000", "checkpoint.enabled=false"]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ, preexec_fn=unignored
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("Epoch 2/"):
                    process.send_signal(number)
                    break
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    assert err.startswith("error: Stopped in epoch ")
    assert "help: Go on with: python -m mnist_exp.train resume=outputs/runs/" in err
    assert "Traceback" not in err
    (folder,) = Path("outputs/runs").glob("*/*")
    entry = ledger.read(folder)
    assert entry.state == "killed"
    assert entry.epoch >= 2


def unignored() -> None:
    """A job in a shell's background inherits that Ctrl-C is ignored; a person's terminal does not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_command_leaves_without_a_search_for_garbage() -> None:
    watch = "atexit.register(lambda: print(gc.get_freeze_count() > 0))"  # what is registered first is called last
    code = f"import atexit, gc; {watch}; from mnist_exp import cli; cli.run(lambda: None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
