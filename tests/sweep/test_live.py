"""The page of a running sweep follows it, and a fault there is none of the sweep."""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kit
import pytest
from report_fixtures import make_run, make_sweep, write_report
from samples import TINY, once

from mnist_exp.sweep import live
from mnist_exp.sweep.home import Home


@pytest.fixture
def folder() -> Path:
    """A sweep of which one run has ended, and one has not begun."""
    home = make_sweep(Path("outputs"), [["hidden=8"], ["hidden=16"]])
    make_run(home / "0", ["hidden=8"], 0.9)
    return home


def page(folder: Path) -> str:
    path = folder / "report.html"
    return path.read_text() if path.is_file() else ""


@pytest.mark.integration
def test_a_page_that_is_renewed_is_the_report_and_what_renews_it(folder: Path) -> None:
    live.renew(folder, 7.2)
    text = page(folder)
    assert 'content="8"' in text
    assert live.BANNER in text
    assert text.index("<script>(() =>") < text.index("Content-Security-Policy")  # which would forbid it
    assert text.index("<meta charset") < 1024
    kit.clean()
    live.settle(folder)
    settled = page(folder)
    write_report(folder)

    def timeless(page: str) -> list[str]:
        return [line for line in page.splitlines() if "Report written" not in line]

    assert timeless(settled) == timeless(page(folder))
    live.settle(folder)  # a page that is not renewed stays
    live.settle(Path("nowhere"))
    (folder / "report.html").write_bytes(b"\xff")  # and what is no text
    live.settle(folder)


@pytest.mark.integration
def test_the_process_writes_again_goes_on_after_a_fault_and_settles(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, written = threading.Event(), []
    renew = live.renew

    def sometimes(folder: Path, seconds: float) -> None:
        written.append(seconds)
        if len(written) == 1:
            raise OSError("the disk is full")
        renew(folder, seconds)
        assert live.BANNER in page(folder)
        if len(written) == 3:
            ended.set()

    monkeypatch.setattr(live, "renew", sometimes)
    monkeypatch.setattr(live, "SHORTEST", 0.3)
    monkeypatch.setattr(live, "SHARE", 1000)
    monkeypatch.setattr(live.system, "step_back", lambda: None)
    monkeypatch.setattr(live.os, "read", lambda *_: ended.wait(60))
    monkeypatch.setattr(sys, "argv", ["live", str(folder)])
    live.main()
    assert len(written) >= 3
    assert page(folder)
    assert live.BANNER not in page(folder)
    assert capsys.readouterr().out == "The page could not be renewed: the disk is full\n"


def test_it_costs_no_more_than_its_share_of_the_machine() -> None:
    assert live.pause(busy=1.5, cores=2) == pytest.approx(37.5)  # of 75 seconds of two cores, 2 %
    assert live.pause(busy=0.01, cores=64) == live.SHORTEST


@pytest.mark.integration
def test_when_its_driver_is_killed_the_page_rests(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mnist_exp.sweep.live", str(folder.resolve())], stdin=subprocess.PIPE
    )
    assert process.stdin
    kit.wait_for(lambda: live.BANNER in page(folder))
    process.stdin.close()
    assert process.wait(240) == 0
    assert page(folder)
    assert live.BANNER not in page(folder)
    kit.clean()


def swept(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Path], None]) -> None:
    """The jobs of the next sweep begin after *meanwhile*."""
    launch = Home.launch
    monkeypatch.setattr(live, "FIRST", 0)

    def late(home: Home, jobs: Any, total: int = 0) -> Sequence[Any]:
        meanwhile(home.folder)
        return launch(home, jobs, total)

    monkeypatch.setattr(Home, "launch", late)


@pytest.mark.integration
def test_a_sweep_has_its_page_before_it_ends(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(folder: Path) -> None:
        kit.wait_for(lambda: live.BANNER in page(folder))
        assert "2 planned" in page(folder)

    swept(monkeypatch, meanwhile)
    code, out, err = command("-m", *TINY[:-1], "tracking=off", "seed=0,1", "hydra/launcher=basic")
    assert (code, err) == (0, "")
    home = kit.only_sweep()
    assert f"To follow it in a browser, in a moment:\n  {home / 'report.html'}\n" in out
    assert live.BANNER not in page(home)
    assert "2 finished" in page(home)
    kit.clean()
    assert not kit.processes()


@pytest.mark.integration
def test_the_page_of_a_sweep_that_is_stopped_rests(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(folder: Path) -> None:
        kit.wait_for(lambda: live.BANNER in page(folder))
        raise KeyboardInterrupt

    swept(monkeypatch, meanwhile)
    code, _, err = command("-m", *TINY, "seed=0,1", "hydra/launcher=basic")
    assert code == 130
    assert "Go on with:\n    python -m mnist_exp.train -m resume=" in err
    home = kit.only_sweep()
    assert page(home)
    assert live.BANNER not in page(home)
    kit.clean()
    assert not kit.processes()


@pytest.mark.integration
def test_a_page_that_cannot_be_written_is_a_warning(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(folder: Path) -> None:
        (folder / "report.html").mkdir()
        kit.wait_for(lambda: list(folder.glob("figures/*")))
        kit.wait_for(lambda: not list(folder.glob(".report*")))

    swept(monkeypatch, meanwhile)
    code, _, err = command("-m", *once(*TINY, "seed=0,1", "hydra/launcher=basic"))
    assert code == 0
    assert "warning: The page could not be renewed: [Errno 21] Is a directory" in err


@pytest.mark.integration
def test_a_sweep_without_a_report_has_none(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FIRST", 0)
    monkeypatch.setattr(live.Renewer, "start", lambda self: pytest.fail("it was started"))
    code, out, _ = command("-m", *TINY, "seed=0,1", "hydra/launcher=basic", kit.QUIET)
    assert code == 0
    assert "To follow it" not in out
