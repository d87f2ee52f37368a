"""The ways through the code that docs/design.md shows, recorded from real runs: they stay as short as it says."""

import functools
import inspect
import io
import json
import multiprocessing
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
import trainings
from handovers import handed_over
from safetensors.torch import load_file
from samples import REPO, TINY

from mnist_exp import system
from mnist_exp.config import loading
from mnist_exp.disk import checkpoint
from mnist_exp.disk.journal import Journal
from mnist_exp.engine.closed_form import MLPStack
from mnist_exp.models import MLP
from mnist_exp.run import session
from mnist_exp.sweep.local import worker
from mnist_exp.sweep.local.pool import Pool
from mnist_exp.tracking import sender

Command = Callable[..., tuple[int, str, str]]

GRADIENT = "train.main → run.one.train → run.session.run_many → engine.loop.fit → engine.loop.update → "
GRADIENT += "engine.closed_form.gradient"
VALUE = "train._main → console.guard.on_run_start → console.guard.check_settings → config.loading.parse → "
VALUE += "config.loading.typed → config.loading.check"
WEIGHT = "train.main → run.one.train → run.session.run_many → run.claim.claim → run.build.model → run.build._make → "
WEIGHT += "models.mlp.__init__"
LOSS = "engine.loop.fit → run.writer.on_epoch → disk.journal.append"
SENT = "tracking.sender.deliver → tracking.sender.attempt → tracking.sender._send → tracking.runs.publish"
GIVEN = (
    "sweep.start.sweep → sweep.start.grid → sweep.home.launch → sweep.local.launch.launch → sweep.local.pool.begin → "
)
GIVEN += "sweep.local.pool.hand_out → sweep.local.pool.assign"
RUN = "sweep.local.worker.main → sweep.local.worker.run → sweep.local.worker.run_one → sweep.local.worker._by_hydra → "
RUN += "sweep.local.worker._train → sweep.local.worker._train_together → run.session.run_many → engine.loop.fit"
RESULT = "sweep.local.launch.launch → sweep.local.pool.follow → sweep.local.pool.listen → sweep.local.pool.on_result"
RESUME = "train.main → run.one.train → run.session.run_many → run.claim.claim → run.claim._load_checkpoint → "
RESUME += "disk.checkpoint.load_last"
WAYS = {GRADIENT, VALUE, WEIGHT, LOSS, SENT, GIVEN, RUN, RESULT, RESUME}
"""Each is recorded by a test below."""


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str], set[str]]]:
    """`record(owner, name)`: the package's functions on the stack at each call of that function, from the top down."""

    def watch(owner: Any, name: str) -> set[str]:
        ways: set[str] = set()
        function = getattr(owner, name)

        @functools.wraps(function)
        def recording(*arguments: Any, **named: Any) -> Any:
            frames = [(frame.frame.f_globals["__name__"], frame.function) for frame in reversed(inspect.stack(0)[1:])]
            called = [*frames, (function.__module__, name)]
            names = [f"{module}.{each}" for module, each in called if module.startswith("mnist_exp.")]
            ways.add(" → ".join(each.removeprefix("mnist_exp.") for each in names))
            return function(*arguments, **named)

        monkeypatch.setattr(owner, name, recording)
        return ways

    return watch


def below(ways: set[str], first: str) -> set[str]:
    """The part of each of *ways* from *first* on."""
    return {way[way.index(first) :] for way in ways if first in way}


@pytest.mark.integration
def test_from_the_command_to_the_gradient_it_is_five_calls(command: Command, record: Any) -> None:
    ways = record(MLPStack, "gradient")
    code, _, err = command(*TINY)
    assert code == 0, err
    assert below(ways, "train.main") == {GRADIENT}
    assert GRADIENT.count("→") == 5


@pytest.mark.integration
def test_a_loss_reaches_the_journal(command: Command, record: Any) -> None:
    ways = record(Journal, "append")
    code, _, err = command(*TINY)
    assert code == 0, err
    assert below(ways, "engine.loop.fit") == {LOSS}


@pytest.mark.integration
def test_a_resume_goes_the_same_way_and_finds_a_checkpoint(command: Command, record: Any) -> None:
    assert command(*TINY, "hydra.run.dir=run")[0] == 0
    ways = record(checkpoint, "load_last")
    (Path("run") / "ledger.json").write_text((Path("run") / "ledger.json").read_text().replace("finished", "killed"))
    code, _, err = command("resume=run")
    assert code == 0, err
    assert below(ways, "train.main") == {RESUME}


@pytest.mark.integration
def test_an_override_reaches_the_config_and_its_weight(command: Command, record: Any) -> None:
    values, weights = record(loading, "check"), record(MLP, "__init__")
    code, _, err = command(*TINY, "hidden=24", "hydra.run.dir=run")
    assert code == 0, err
    assert below(values, "train._main") == {VALUE}
    assert below(weights, "run.session.run_many") == {WEIGHT[WEIGHT.index("run.session.run_many") :]}
    assert WEIGHT in below(weights, "train.main")
    assert len(next(iter(load_file("run/weights.safetensors").values()))) == 24


@pytest.mark.integration
def test_a_loss_reaches_mlflow(
    tiny: Callable[..., Any], mlflow_store: Callable[[str], Any], record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings.run(tiny(tracking={"enabled": True, "figures": False}), Path("run"))
    store = mlflow_store("mine")
    ways, waits = record(type(store.client), "log_batch"), iter([False, True])
    event = SimpleNamespace(set=lambda: None, wait=lambda delay: next(waits))
    at_once = SimpleNamespace(Event=lambda: event, Thread=lambda target, daemon: SimpleNamespace(start=target))
    monkeypatch.setattr(sender, "threading", at_once)
    monkeypatch.setattr(sender, "open_store", lambda uri, experiment: store)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(["run", "run"])))
    assert sender.deliver("mine") == 0
    assert SENT in below(ways, "tracking.sender.deliver")


@pytest.mark.integration
def test_a_job_goes_from_its_override_to_a_worker_and_its_result_comes_back(command: Command, record: Any) -> None:
    given, results = record(Pool, "assign"), record(Pool, "on_result")
    code, _, err = command("-m", *TINY, "hidden=8,16", "hydra.sweeper.report=false", "hydra.launcher.pack=off")
    assert code == 0, err
    assert GIVEN in below(given, "sweep.start.sweep")
    assert below(results, "sweep.local.launch.launch") == {RESULT}


@pytest.mark.integration
def test_a_worker_runs_a_job_as_the_command_runs_a_run(record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: what listens to the driver is left out."""
    monkeypatch.setattr(worker, "_follow", lambda lifeline: None)
    monkeypatch.setattr(system, "ignore_interrupts", lambda: None)
    ways = record(session, "fit")
    common, jobs = handed_over([["hidden=8"]])
    ours, theirs = multiprocessing.Pipe()
    ours.send_bytes(cloudpickle.dumps(jobs))
    ours.close()  # it ends after this pack
    worker.main(theirs, theirs, common, 1, {})
    assert below(ways, "sweep.local.worker.main") == {RUN}


def drawn(page: str) -> dict[str, int]:
    """The ways on the design *page*, each with the number of calls that it says."""
    return {way: int(calls) for calls, way in re.findall(r"^(\d+) calls: (.+ → .+)$", page, re.MULTILINE)}


def test_the_design_page_shows_each_with_its_number_of_calls() -> None:
    page = (REPO / "docs" / "design.md").read_text()
    assert drawn(page) == {way: way.count("→") for way in WAYS}
    assert page.count(" → ") == sum(way.count("→") for way in WAYS)


@pytest.mark.integration
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
