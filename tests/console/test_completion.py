"""Tab completes what the commands take, in a real bash too."""

import os
import pty
import select
import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from samples import REPO

from mnist_exp.console import completion
from mnist_exp.data import __main__ as data
from mnist_exp.evaluate import __main__ as evaluate
from mnist_exp.results import names as naming

SCRIPTS = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["scripts"]
OFFERS = {"run": lambda: ["last", "best:10-00-00"], "split": lambda: ["test", "train"], "": lambda: ["--json"]}


@pytest.mark.parametrize(
    ("line", "part", "expected"),
    [
        ("x ", "", ["run=", "split=", "--json "]),
        ("x run=", "", ["last ", "best:10-00-00 "]),  # bash breaks words at =, so it replaces what follows
        ("x run=", "run=", ["run=last ", "run=best:10-00-00 "]),  # after Hydra's line, which takes = from the breaks
        ("x run=best:1", "1", ["10-00-00 "]),
        ("x run=last split=t", "t", ["test ", "train "]),
        ("x --j", "--j", ["--json "]),
        ("x seven", "seven", []),
        ("x nothing=", "", []),
    ],
)
def test_what_the_shell_is_told(line: str, part: str, expected: list[str]) -> None:
    assert completion.replies(line, part, OFFERS) == expected


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """`asked(main, "x split=")`: what a command offers at the end of that line."""

    def ask(main: Callable[[list[str]], None], line: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["bin/mnist-exp-x"])
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        with pytest.raises(SystemExit) as left:
            main(["-sc", "query=bash", "x", line.rpartition(" ")[2].rpartition("=")[2], ""])
        assert left.value.code == 0
        return capsys.readouterr().out.split()

    return ask


def test_runs_and_sweeps_are_offered_by_their_short_names(scratch: Path, asked: Callable[..., list[str]]) -> None:
    for folder in ("sweeps/day/10-00-00-abcdef/0", "runs/day/11-00-00-abcdef"):
        (scratch / "outputs" / folder).mkdir(parents=True)
    names = ["last", "best", "10-00-00-abcdef", "best:10-00-00-abcdef", "11-00-00-abcdef"]
    assert naming.offered() == names
    assert asked(evaluate.main, "x run=") == names


def test_options_come_from_conf(asked: Callable[..., list[str]]) -> None:
    assert asked(evaluate.main, "x split=t") == ["train", "test"]
    assert asked(evaluate.main, "x data=") == ["fashion_mnist", "mnist", "synthetic"]
    assert asked(data.main, "x fetch m") == ["mnist"]


def test_what_cannot_be_completed_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for script, typed, said in (
        ("mnist-exp-x", ["-sc", "install=fish"], "there are install=bash and uninstall=bash"),
        ("x/evaluate.py", ["-sc", "install=bash"], "the console scripts"),
    ):
        monkeypatch.setattr(sys, "argv", [script])
        with pytest.raises(SystemExit) as left:
            completion.serve(typed, {})
        assert left.value.code == 2
        assert said in capsys.readouterr().err


class Bash:
    """An interactive bash in a terminal of its own."""

    def __init__(self) -> None:
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], {**os.environ, "PS1": "ready>", "TERM": "dumb"})
        self.until("ready>")

    def until(self, wanted: str) -> str:
        """What it writes, up to and with *wanted*."""
        seen, deadline = "", time.monotonic() + 30
        while wanted not in seen:
            assert time.monotonic() < deadline, f"{wanted!r} did not come, but {seen!r}"
            if select.select([self.terminal], [], [], 0.1)[0]:
                seen += os.read(self.terminal, 4096).decode()
        return seen

    def type(self, keys: str, wanted: str) -> None:
        """Types *keys*, waits for *wanted*, and clears the line."""
        os.write(self.terminal, keys.encode())
        self.until(wanted)
        os.write(self.terminal, b"\x15")

    def install(self, script: str) -> None:
        """As the documents say."""
        self.type(f'eval "$({script} -sc install=bash)"; echo done: $((6 * 7))\n', "done: 42")


@pytest.fixture
def bash(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bash]:
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    for script in SCRIPTS:
        assert shutil.which(script), f"{script} is not installed: pip install -e ."
    shell = Bash()
    yield shell
    os.close(shell.terminal)  # it hangs up
    os.waitpid(shell.pid, 0)


@pytest.mark.slow  # each press of the key starts a process
@pytest.mark.parametrize("hydra_first", [False, True], ids=["alone", "beside Hydra's"])
def test_the_tab_key_in_bash(bash: Bash, scratch: Path, hydra_first: bool) -> None:
    """With bash's own word breaks, and with those that Hydra's line leaves behind."""
    (scratch / "outputs" / "sweeps" / "day" / "10-00-00-abcdef").mkdir(parents=True)
    (scratch / "seven.png").touch()
    if hydra_first:
        bash.install("mnist-exp")
        bash.type("mnist-exp hidd\t", "hidden=")
        bash.type("mnist-exp optimizer=mu\t", "optimizer=muon")
        bash.type("mnist-exp experiment=simard2003_c\t", "experiment=simard2003_cnn")
        bash.type("mnist-exp -m lr=1e-3,1e-2 data.val_s\t", "data.val_size=")
    for script in SCRIPTS:
        if script != "mnist-exp":
            bash.install(script)
    bash.type("mnist-exp-evaluate spl\t", "split=")
    bash.type("mnist-exp-evaluate split=v\t", "split=val ")
    bash.type("mnist-exp-evaluate run=best:1\t", "run=best:10-00-00-abcdef ")
    bash.type("mnist-exp-rerun run=las\t", "run=last ")
    bash.type("mnist-exp-predict sev\t", "seven.png")
    bash.type("mnist-exp-data fet\t", "fetch ")
    bash.type("mnist-exp-report --no\t", "--no-html ")
    bash.type("mnist-exp-sync --u\t", "--uri ")
    bash.type("mnist-exp-doctor --js\t", "--json ")
