"""The ways through the code that docs/design.md shows, recorded from real runs: they stay as short as it says."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from samples import REPO, TINY

from mnist_exp.disk import checkpoint
from mnist_exp.disk.journal import Journal
from mnist_exp.engine.closed_form import MLPStack
from mnist_exp.run import session

Command = Callable[..., tuple[int, str, str]]

GRADIENT = "train.main → run.one.train → run.session.run_many → engine.loop.fit → engine.loop.update → "
GRADIENT += "engine.closed_form.gradient"
LOSS = "engine.loop.fit → run.writer.on_epoch → disk.journal.append"
RESUME = "train.main → run.one.train → run.session.run_many → run.claim.claim → run.claim._load_checkpoint → "
RESUME += "disk.checkpoint.load_last"


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str], set[str]]]:
    """`record(owner, name)`: the package's functions on the stack at each call of that function, from the top down."""

    def watch(owner: Any, name: str) -> set[str]:
        ways: set[str] = set()
        function = getattr(owner, name)

        def recording(*arguments: Any) -> Any:
            frames = [(frame.frame.f_globals["__name__"], frame.function) for frame in reversed(inspect.stack(0)[1:])]
            called = [*frames, (function.__module__, name)]
            names = [f"{module}.{each}" for module, each in called if module.startswith("mnist_exp.")]
            ways.add(" → ".join(each.removeprefix("mnist_exp.") for each in names))
            return function(*arguments)

        monkeypatch.setattr(owner, name, recording)
        return ways

    return watch


def below(ways: set[str], first: str) -> set[str]:
    """The part of each of *ways* from *first* on."""
    return {way[way.index(first) :] for way in ways if first in way}


def test_from_the_command_to_the_gradient_it_is_five_calls(command: Command, record: Any) -> None:
    ways = record(MLPStack, "gradient")
    code, _, err = command(*TINY)
    assert code == 0, err
    assert below(ways, "train.main") == {GRADIENT}
    assert GRADIENT.count("→") == 5


def test_a_loss_reaches_the_journal(command: Command, record: Any) -> None:
    ways = record(Journal, "append")
    code, _, err = command(*TINY)
    assert code == 0, err
    assert below(ways, "engine.loop.fit") == {LOSS}


def test_a_resume_goes_the_same_way_and_finds_a_checkpoint(command: Command, record: Any) -> None:
    assert command(*TINY, "hydra.run.dir=run")[0] == 0
    ways = record(checkpoint, "load_last")
    (Path("run") / "ledger.json").write_text((Path("run") / "ledger.json").read_text().replace("finished", "killed"))
    code, _, err = command("resume=run")
    assert code == 0, err
    assert below(ways, "train.main") == {RESUME}


@pytest.mark.parametrize("way", [GRADIENT, LOSS, RESUME])
def test_the_design_page_shows_them(way: str) -> None:
    assert way in (REPO / "docs" / "design.md").read_text()


def test_the_design_page_names_functions_that_exist() -> None:
    """Also in the ways that no test above records."""
    page = (REPO / "docs" / "design.md").read_text()
    steps = set(itertools.chain(*(line.split(" → ") for line in page.splitlines() if " → " in line)))
    for step in filter(lambda step: step.count(".") >= 1, steps):
        module, _, function = step.rpartition(".")
        source = (REPO / "mnist_exp" / f"{module.replace('.', '/')}.py").read_text()
        assert f"def {function}(" in source, step


def test_meta_a_longer_way_is_seen(command: Command, record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one more function of the package between."""
    ways = record(MLPStack, "gradient")
    space: dict[str, Any] = {"__name__": "mnist_exp.run.session", "run_many": session.run_many}
    exec("def detour(*arguments, **named): return run_many(*arguments, **named)", space)
    monkeypatch.setattr(session, "run_many", space["detour"])
    code, _, err = command(*TINY)
    assert code == 0, err
    assert below(ways, "train.main") == {
        GRADIENT.replace("run.session.run_many", "run.session.detour → run.session.run_many")
    }
