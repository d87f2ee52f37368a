"""A run that begins with the weights of another: which ones, checked when, and no longer needed once it has begun."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import trainings
from samples import TINY

from mnist_exp import config as configs
from mnist_exp.config import Config
from mnist_exp.disk import journal, ledger
from mnist_exp.disk.files import read_json
from mnist_exp.errors import CheckpointError, ConfigError
from mnist_exp.run import session, warm

Tiny = Callable[..., Config]
Command = Callable[..., tuple[int, str, str]]
STILL = 1e-30
"""So small a rate that no weight moves."""


@pytest.fixture
def source(tiny: Tiny) -> str:
    """A finished run, as `init` has it."""
    folder = Path("outputs/runs/2026-01-31/source")
    trainings.run(tiny(seed=5), folder)
    return warm.resolved(str(folder))


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(Path(folder) / "weights.safetensors")


def same(one: str | Path, other: str | Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


@pytest.mark.integration
def test_a_run_begins_with_those_weights_also_in_a_pack(tiny: Tiny, source: str) -> None:
    trainings.run(tiny(init=source, lr=STILL), Path("alone"))
    assert same("alone", source.partition("@")[0])
    assert ledger.read(Path("alone")).params["init"] == source
    rates = [tiny(init=source, lr=lr) for lr in (STILL, 0.1)]
    outcomes = session.run_many(trainings.tasks(rates, "pack"))
    assert all(isinstance(each, session.Result) for each in outcomes)
    assert (same("pack/0", "alone"), same("pack/1", "alone")) == (True, False)
    assert Path("pack/0/pack.json").is_file()


@pytest.mark.integration
def test_it_resumes_without_its_source_and_does_not_begin_without_it(tiny: Tiny, source: str) -> None:
    config = tiny(init=source, epochs=3)
    trainings.run(config, Path("whole"))
    trainings.interrupted(config, Path("stopped"), after=1)
    shutil.rmtree(source.partition("@")[0])
    trainings.run(config, Path("stopped"))
    assert trainings.outcome(Path("stopped")) == trainings.outcome(Path("whole"))
    with pytest.raises(CheckpointError, match="those weights are gone, and this run has not begun"):
        trainings.run(config, Path("late"))


def test_the_digest_of_the_weights_is_what_counts(tiny: Tiny, source: str) -> None:
    folder, _, digest = source.partition("@")
    moved, other = tiny(init=f"elsewhere@{digest}"), tiny(init=f"{folder}@{'0' * 12}")
    assert configs.fingerprint(moved) == configs.fingerprint(tiny(init=source))
    assert len({configs.fingerprint(each) for each in (moved, other, tiny())}) == 3
    path = Path(folder, "weights.safetensors")
    path.write_bytes(safetensors.torch.save({name: tensor + 1 for name, tensor in weights(folder).items()}))
    with pytest.raises(CheckpointError, match="those weights are others now"):
        trainings.run(tiny(init=source), Path("run"))
    with pytest.raises(ConfigError, match="the weights there are others now"):
        warm.resolved(source)


@pytest.mark.integration
def test_what_does_not_fit_is_refused_before_anything_starts(source: str, command: Command) -> None:
    def refused(*typed: str) -> str:
        code, _, err = command(*TINY, *typed)
        assert code == 2
        return err

    assert "layers.0.bias has (16,) there, and (24,) here" in refused("init=source", "hidden=24")
    assert "does not fit this network" in refused("init=source", "hidden=null", "model=small_cnn")
    assert "1 of 2 points cannot run" in refused("-m", "init=source", "hidden=16,24", "hydra/launcher=basic")
    assert "No run, sweep or experiment is called 'nothing'" in refused("init=nothing")
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/warm.yaml").write_text("# @package _global_\ninit: last\n")
    file = ("-m", "--config-dir", "mine", "experiment=warm", "hydra/launcher=basic")
    assert "init=last in a file or a table may soon be another run" in refused(*file)
    (Path(source.partition("@")[0]) / "weights.safetensors").unlink()
    assert "has no trained weights: it did not finish" in refused("init=source")
    assert len(list(Path("outputs").rglob("ledger.json"))) == 1


@pytest.mark.integration
def test_the_command_says_from_where_and_a_sweep_keeps_what_last_meant(source: str, command: Command) -> None:
    code, out, _ = command(*TINY, "init=last")
    assert code == 0
    assert f"Starting from the weights of {source}." in out
    quick = ("hydra/launcher=basic", "hydra.sweeper.report=false")
    assert command("-m", *TINY, f"init={source.partition('@')[0]},null", *quick)[0] == 0
    (plan,) = Path("outputs/sweeps").glob("*/*/sweep.json")
    assert [point[-1] for point in read_json(plan)["points"]] == [f"init='{source}'", "init=null"]
    assert command(*TINY, "seed=9")[0] == 0
    shutil.rmtree(plan.parent / "1")
    assert command("-m", "resume=last", *quick)[0] == 0
    assert len(read_json(plan)["points"]) == 2
    assert len(journal.read(plan.parent / "1")) == 2
