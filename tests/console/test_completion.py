"""Tab completes what the commands take, in a real bash too."""

import functools
import io
import os
import pty
import select
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import argcomplete
import pytest
from samples import REPO

from mnist_exp.config import options
from mnist_exp.console.arguments import Key, Parser
from mnist_exp.data import __main__ as data
from mnist_exp.evaluate import __main__ as evaluate
from mnist_exp.report import __main__ as report
from mnist_exp.results import names

SCRIPTS = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["scripts"]
BREAKS = " \t\n\"'><=;|&(:"  # where bash breaks words; Hydra's line takes = from them
KEYS = {"run": Key("last", "", lambda: ["last", "best:10-00-00"]), "split": Key("test", "", lambda: ["test", "train"])}
Ask = Callable[..., list[str]]


class Finder(argcomplete.CompletionFinder):
    """Leaves file descriptor 9 alone, which is pytest's here."""

    def _init_debug_stream(self) -> None: ...


def offers(arguments: list[str]) -> None:
    """A command that takes all kinds of words."""
    parser = Parser("x", "", "")
    parser.add_overrides(KEYS, "image …")
    parser.add_argument("--json", action="store_true")
    parser.read(arguments)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`ask(main, "x split=")`: what a command offers at the end of that line, in bash."""

    def ask(main: Callable[[list[str]], None], line: str, breaks: str = BREAKS) -> list[str]:
        answer = io.StringIO()
        into = {"exit_method": sys.exit, "output_stream": answer}
        monkeypatch.setattr(argcomplete, "autocomplete", functools.partial(Finder(), **into))
        for name, value in {
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_COMP_WORDBREAKS": breaks,
            "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
        }.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as left:
            main([])
        assert left.value.code == 0
        return list(filter(None, answer.getvalue().split("\v")))

    return ask


@pytest.mark.parametrize(
    ("line", "breaks", "expected"),
    [
        ("x ", BREAKS, ["-h", "--help", "--version", "--json", "run=", "split="]),
        ("x run=", BREAKS, ["last", "best:10-00-00"]),  # bash replaces what follows the break
        ("x run=", BREAKS.replace("=", ""), ["run=last", "run=best:10-00-00"]),
        ("x run=best:1", BREAKS, ["10-00-00"]),
        ("x run=last split=t", BREAKS, ["test", "train"]),
        ("x run=last --json split=te", BREAKS, ["test"]),
        ("x seven.png --json spl", BREAKS, ["split="]),
        ("x --j", BREAKS, ["--json"]),
        ("x seven", BREAKS, []),
        ("x nothing=", BREAKS, []),
    ],
)
def test_what_the_shell_gets(line: str, breaks: str, expected: list[str], ask: Ask) -> None:
    assert ask(offers, line, breaks) == expected


def test_runs_and_sweeps_are_offered_by_their_short_names(scratch: Path, ask: Ask) -> None:
    for folder in ("sweeps/day/10-00-00-abcdef/0", "runs/day/11-00-00-abcdef"):
        (scratch / "outputs" / folder).mkdir(parents=True)
    short = ["last", "best", "10-00-00-abcdef", "best:10-00-00-abcdef", "11-00-00-abcdef"]
    assert names.offered() == short
    assert ask(evaluate.main, "x run=") == short
    assert ask(report.main, "x --json 1") == ["10-00-00-abcdef", "11-00-00-abcdef"]


def test_options_come_from_conf(ask: Ask) -> None:
    assert ask(evaluate.main, "x split=t") == ["train", "test"]
    assert ask(evaluate.main, "x data=") == options("data")
    assert ask(data.main, "x fetch m") == ["mnist"]


@pytest.mark.integration
def test_completing_loads_nothing_heavy(scratch: Path) -> None:
    """It happens at each press of the key."""
    heavy = "('torch', 'mlflow', 'matplotlib', 'optuna', 'pandas', 'numpy')"
    code = (
        "import functools, sys, argcomplete; from mnist_exp.evaluate.__main__ import main; "
        "argcomplete.autocomplete = functools.partial(argcomplete.autocomplete, exit_method=sys.exit)\n"
        f"try: main([])\nfinally: sys.stderr.write(' '.join(name for name in {heavy} if name in sys.modules))"
    )
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": "answer", "COMP_LINE": "x data=", "COMP_POINT": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "synthetic" in Path("answer").read_text()


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
        line = f"{script} -sc install=bash" if script == "mnist-exp" else f"register-python-argcomplete {script}"
        self.type(f'eval "$({line})"; echo done: $((6 * 7))\n', "done: 42")


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
    bash.type("mnist-exp-evaluate run=last --json split=v\t", "split=val ")
    bash.type("mnist-exp-rerun run=las\t", "run=last ")
    bash.type("mnist-exp-predict sev\t", "seven.png")
    bash.type("mnist-exp-data fet\t", "fetch ")
    bash.type("mnist-exp-report --no\t", "--no-html ")
    bash.type("mnist-exp-sync --u\t", "--uri ")
    bash.type("mnist-exp-doctor --js\t", "--json ")
