"""What people see: plain lines in a pipe, errors on the error stream, nothing said by colour alone."""

import io
import itertools
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from kit import wait_for
from rich.console import Console
from rich.table import Table
from samples import TINY

from mnist_exp.console import terminal
from mnist_exp.engine.events import EpochEnd
from mnist_exp.errors import ConfigError
from mnist_exp.run import one as single
from mnist_exp.run import session
from mnist_exp.sweep.display import Display

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("typed", "method"),
    [
        ("optimizer.fused=false", "closed-form gradients, torch's Adam"),
        ("+optimizer.amsgrad=true", "closed-form gradients, torch's Adam"),
        ("optimizer=muon", "autograd, mnist_exp's Muon"),
        ("model.norm=layer", "autograd"),
    ],
)
def test_the_header_says_whose_optimiser_it_is(typed: str, method: str, command: Command) -> None:
    assert command(*TINY, "epochs=1", typed)[1].splitlines()[1].endswith(f"batch 16, {method}")


def test_a_run_prints_a_header_a_line_an_epoch_and_a_result(command: Command) -> None:
    code, out, err = command(*TINY)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("hidden=16 lr=0.001 seed=0 data=synthetic")
    assert lines[1] == "mlp with 12,730 parameters, adam lr 0.001, batch 16, closed-form gradients"
    assert lines[2] == "synthetic: 100 training, 20 validation, 40 test images; cpu, 1 thread"
    number, share = r"\d+\.\d{4}", r"\d+\.\d\d %"
    for epoch, line in enumerate(lines[3:5], start=1):
        assert re.fullmatch(
            rf"Epoch {epoch}/2, Train Loss: {number}, Test Loss: {number}, val {share}, \d+\.\d+ s", line
        )
        assert len(line) <= 80
    assert re.fullmatch(rf"Final accuracy: train {share}, val {share}, test {share}", lines[5])
    assert lines[6] == "Run folder:"
    assert re.fullmatch(r"  outputs/runs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-[0-9a-f]{6}", lines[7])
    assert len(lines) == 8
    assert err == ""
    assert "\x1b" not in out
    folder = Path(lines[7].strip())
    log = (folder / "train.log").read_text()
    assert all(line in log for line in lines[:6])  # the same lines are kept
    kept = {path.name for path in folder.iterdir()}
    assert {"ledger.json", "metrics.jsonl", "config.yaml", "checkpoints", "weights.safetensors", ".hydra"} <= kept


def test_a_run_shows_its_result_before_it_waits_for_mlflow(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    publisher = MagicMock(**{"where_to_look.return_value": ["Look at the run.", "here"]})
    publisher.__exit__ = lambda *error: said.extend(capsys.readouterr().out.splitlines())
    monkeypatch.setattr(single, "Publisher", lambda tracking: publisher)
    code, out, err = command(*TINY, "tracking=mlflow")
    assert code == 0, err
    assert [line.partition(": ")[0] for line in said[-3:-1]] == ["Final accuracy", "Run folder:"]
    assert out == "Look at the run.\n  here\n"


def test_two_runs_in_one_second_have_two_folders(command: Command) -> None:
    folders = {command(*TINY, "epochs=1")[1].splitlines()[-1] for _ in range(2)}
    assert len(folders) == 2


def test_a_failed_run_says_so_on_the_error_stream(command: Command) -> None:
    code, out, err = command(*TINY, "lr=1e30")
    assert code == 1
    assert err.startswith("error: The loss is not finite somewhere in steps 1 to 7. Lower lr, now 1e30.")
    assert "Final accuracy" not in out


def test_a_run_that_is_stopped_at_once_ends_with_the_command_that_goes_on(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its folder lies elsewhere, with what is not taken from there."""

    def second(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "fit", second)
    for folder, further in (("outputs/runs/day/one", []), ("elsewhere/one", ["data.root=images"])):
        code, _, err = command(*TINY, "data.root=images", f"hydra.run.dir={folder}")
        assert code == 130
        assert err.startswith("error: Stopped at once.\n  help: Go on with:\n")
        assert err.splitlines()[-1].split() == ["python", "-m", "mnist_exp.train", f"resume={folder}", *further]


def test_without_validation_nothing_is_said_about_it(command: Command) -> None:
    code, out, _ = command(*TINY, "data.val_size=0", "epochs=1")
    assert code == 0
    assert "Val Loss" not in out
    assert "120 training, 0 validation" in out


def test_in_a_pipe_a_line_that_changes_is_printed_seldom_and_where_no_program_reads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with terminal.changing() as show:
        for second in range(200):
            now[0] = second
            show(f"{min(second // 10, 15)} of 20")
    assert capsys.readouterr() == ("", "0 of 20\n6 of 20\n12 of 20\n15 of 20\n")


def test_in_a_terminal_a_line_that_changes_is_drawn_again_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=screen, force_terminal=True, width=20))
    monkeypatch.setattr(terminal, "redraws", lambda: True)
    with terminal.changing():
        pass
    assert screen.getvalue() == ""
    with terminal.changing() as show:
        show("1 of 2")
        show("2 of 2, and much more than fits")
    drawn = screen.getvalue()
    assert "1 of 2" in drawn
    assert "2 of 2, and much mo…" in drawn
    assert drawn.endswith("\x1b[2K")  # erased


def test_the_epoch_line_begins_as_the_beginners_script_had_it() -> None:
    metrics = {"train/loss": 0.28749, "test/loss": 0.1422, "train/accuracy": 0.9, "test/accuracy": 0.97826}
    event = EpochEnd(lane=0, epoch=1, step=9, metrics={**metrics, "time/epoch": 1.234}, time_ms=0, best=True)
    assert single.epoch_line(event, 10) == ("Epoch 1/10, Train Loss: 0.2875, Test Loss: 0.1422, test 97.83 %, 1.2 s")


class Screen(io.StringIO):
    """A terminal, as far as rich can tell."""

    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, until: str = "", **environ: str) -> str:
    """What `terminal` prints where colours are possible: an error and the bar, *until* that shows."""
    for name, value in {"TERM": "xterm-256color", **environ}.items():
        monkeypatch.setenv(name, value)
    screen = Screen()
    monkeypatch.setattr(terminal, "errors", Console(file=screen, soft_wrap=True))
    monkeypatch.setattr(terminal, "console", Console(file=screen, soft_wrap=True))
    terminal.complain(ConfigError("lr must be > 0.", "Try lr=1e-3."))
    steps = itertools.count()
    with terminal.progress(lambda: 10, lambda: next(steps)):
        wait_for(lambda: until in screen.getvalue())
    return screen.getvalue()


def test_a_terminal_gets_colours_and_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[1;31merror:" in drawn(monkeypatch, until="4/10 steps")


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    out = drawn(monkeypatch, NO_COLOR="1")
    assert "\x1b[1;31m" not in out
    assert "error: lr must be > 0." in re.sub(r"\x1b\[[0-9;]*m", "", out)


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, TERM="dumb") == "error: lr must be > 0.\n  help: Try lr=1e-3.\n"


@pytest.mark.parametrize("name", ["FORCE_COLOR", "JPY_PARENT_PID"], ids=["a log with colours", "a notebook"])
def test_what_keeps_every_line_gets_no_bar(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "FORCE_COLOR":
        monkeypatch.setattr(Screen, "isatty", lambda screen: False)
    out = drawn(monkeypatch, **{name: "1"})
    assert "\x1b[1;31merror:" in out
    assert "steps" not in out


def test_square_brackets_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("hidden=[512,256] [bold]not bold[/]")
    terminal.complain(ConfigError("got [red]x[/]", "[i]try[/]"))
    out, err = capsys.readouterr()
    assert out == "hidden=[512,256] [bold]not bold[/]\n"
    assert err == "error: got [red]x[/]\n  help: [i]try[/]\n"


def test_a_log_record_is_one_line_whatever_a_run_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.log_to(tmp_path / "train.log"):
        terminal.say("hidden=8\nevil \x1b[31m\u2028é\t.")
        terminal.complain(ConfigError("a\nb", "c"))
    first, second = (tmp_path / "train.log").read_text().splitlines()
    assert first.endswith(r"INFO mnist_exp: hidden=8\nevil \x1b[31m\u2028é\t.".replace(r"\t", "\t"))
    assert second.endswith(r"error: a\nb c")
    assert capsys.readouterr().out == first.partition("mnist_exp: ")[2].expandtabs(8) + "\n"


def test_a_table_obeys_no_name_in_it_and_shows_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("\x1b]0;title\x07", box=None)
    table.add_row("\x1b[2J\u202ereversed", "http://me:hunter22@host/x")
    terminal.console.print(table)
    out = capsys.readouterr().out
    assert r"\x1b]0;" in out
    assert r"\x1b[2J" in out
    assert "http://…@host/x" in out
    assert not set("\x1b\x07\u202e") & set(out)


def test_a_traceback_has_lines_of_its_own() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "it\nfailed", (), sys.exc_info())
    first, *rest = terminal.LogFormatter().format(record).splitlines()
    assert first.endswith(r"ERROR x: it\nfailed")
    assert rest[-1] == "ValueError: no"


def test_warnings_of_libraries_are_one_line_on_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("some.library", logging.WARNING, "file.py", 1, "low on %s", ("disk",), None)
    terminal.WarningHandler().emit(record)
    assert capsys.readouterr() == ("", "warning: low on disk\n")


@pytest.mark.parametrize("split", ["val", "train"])
def test_a_sweeps_line_says_which_accuracy_it_shows(split: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without validation images it is that of training."""
    display = Display(total=1, fixed=set())
    display.started(0, ["lr=1"])
    display.epoch(0, 1, 1, {"train/accuracy": 0.5, f"{split}/accuracy": 0.25})
    display.finished(0, ["lr=1"], 0.25)
    assert f"] lr=1  {split} 25.00 %" in capsys.readouterr().out
    assert f"best {split} 25.00 % (lr=1)" in display.status()
