"""However the screen fails, a command goes on, and its exit code says what it came to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import sys
from mnist_exp.console import exits, terminal

def main(typed):
    with terminal.log_to("log"):
        for number in range(3):
            terminal.say(f"line {number} … ≤")
            print("warning", file=sys.stderr, flush=True)
    open("done", "w").close()

exits.command(main, prints_result=sys.argv[1] == "result")()
"""


def in_shell(line: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """*line* in a shell, where `$C` is the command."""
    Path("command.py").write_text(COMMAND)
    variables = {**os.environ, "C": f"{sys.executable} command.py", **environ}
    return subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, env=variables)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$C training > /dev/full 2>&1", 0),
        ("$C training 2>&-", 0),
        ("$C training <&- >&- 2>&-", 0),
        ("$C training 2>&1 | head -1", 0),
        ("$C result | true", 0),
        ("$C result > /dev/full", 2),
    ],
)
def test_a_screen_that_fails_ends_nothing(line: str, code: int) -> None:
    done = in_shell(line)
    assert done.returncode == code, done.stderr
    assert Path("done").exists()
    assert sum("line" in text for text in Path("log").read_text().splitlines()) == 3
    assert "Traceback" not in done.stderr
    assert ("Standard output cannot be written: No space left on device." in done.stderr) is bool(code)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("ascii", rb"line 0 \u2026 \u2264"), ("cp1252", b"line 0 \x85 \\u2264"), ("utf-8", "line 0 … ≤".encode())],
)
def test_a_screen_that_lacks_letters_gets_their_numbers(encoding: str, said: bytes) -> None:
    Path("command.py").write_text(COMMAND)
    variables = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "command.py", "training"], capture_output=True, env=variables, check=False)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, said)


@pytest.mark.not_on("win32", "a console that is closed ends all that it has started")
@pytest.mark.integration
def test_a_terminal_that_hangs_up_ends_nothing() -> None:
    code = "import os, signal; from mnist_exp.console import exits; "
    code += f"exits.command(lambda typed: os.kill(os.getpid(), {int(signal.SIGHUP)}))()"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
