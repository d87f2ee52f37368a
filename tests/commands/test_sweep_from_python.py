"""A sweep from Python is the command's, and its errors are exceptions; a trained network is a module again."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import kit
import pytest
import torch
from samples import REPO, TINY, once

import mnist_exp
from mnist_exp import results
from mnist_exp.disk import plan, trust
from mnist_exp.errors import CheckpointError, ConfigError, SweepError
from mnist_exp.run import export


@pytest.mark.integration
def test_a_sweep_returns_its_table_under_a_running_event_loop(capsys: pytest.CaptureFixture[str]) -> None:
    async def cell() -> object:
        return mnist_exp.sweep(once(*TINY, "hidden=8,16"))

    runs = asyncio.run(cell())
    assert runs.equals(results.load())  # type: ignore[attr-defined]
    assert [*runs["hidden"]] == [8, 16]  # type: ignore[index]
    home = kit.only_sweep()
    assert plan.read(home).typed == once(*TINY, "hidden=8,16")  # nothing but what was typed
    assert home.parts[:2] == ("outputs", "sweeps")
    assert "[2/2] hidden=" in capsys.readouterr().out


@pytest.mark.slow  # several sweeps
def test_it_goes_on_with_resume_in_another_folder_and_another_thread() -> None:
    async def elsewhere(*typed: str) -> object:
        return await asyncio.to_thread(mnist_exp.sweep, [*typed], "mine")

    asyncio.run(elsewhere(*once(*TINY, "hidden=8")))
    again = asyncio.run(elsewhere("resume=last", "hidden=8,16"))
    assert [*again["hidden"]] == [8, 16]  # type: ignore[index]
    assert len([*Path("mine/sweeps").glob("*/*")]) == 1
    assert not Path("outputs").exists()


@pytest.mark.integration
def test_a_refusal_is_the_commands_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="There is no setting 'hiden'") as caught:
        mnist_exp.sweep(once(*TINY, "hiden=8,16"))
    assert caught.value.__notes__ == [
        "help: Did you mean 'hidden'? All settings: python -m mnist_exp.train --help all",
    ]
    with pytest.raises(ConfigError, match="No run, sweep or experiment is called 'nothing'"):
        mnist_exp.sweep(["resume=nothing"])
    with pytest.raises(ConfigError, match="hidden"):
        mnist_exp.sweep(["hidden=8", "hidden=16"])
    assert not Path("outputs").exists()
    assert "error:" not in capsys.readouterr().out  # the exception says it


@pytest.mark.slow  # several sweeps
def test_failed_runs_are_an_error_that_says_where_the_others_are() -> None:
    with pytest.raises(SweepError, match="1 of 2 runs did not finish") as caught:
        mnist_exp.sweep(once(*TINY, "lr=1e-3,1e30"))
    (line,) = (note for note in caught.value.__notes__ if "results.load" in note)
    assert [*eval(line.partition(": ")[2])["state"]] == ["finished", "failed"]


@pytest.mark.integration
def test_a_dry_run_has_no_table() -> None:
    assert mnist_exp.sweep([*TINY, "--dry-run"]).empty
    assert not Path("outputs").exists()


SCRIPT = f"import mnist_exp\nmnist_exp.sweep({[*kit.LONG, kit.OFF, 'seed=0,1', 'hydra.launcher.pack=off']!r})\n"


@pytest.mark.slow  # processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill"])
def test_a_sweep_stops_with_the_script_that_started_it(number: int) -> None:
    """One without `if __name__ == "__main__"`, which the workers would run again."""
    Path("script.py").write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, "script.py"], stderr=subprocess.PIPE, text=True)
    kit.wait_for(lambda: len(kit.runs()) == 2)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=240)
    kit.wait_for(lambda: not kit.processes())
    assert kit.states() == ["killed", "killed"]
    if number == signal.SIGINT:
        assert "mnist_exp.errors.Interrupted: The sweep was stopped." in err
        assert "Go on with:\npython -m mnist_exp.train -m resume=" in err


@pytest.mark.integration
def test_a_trained_network_is_a_module_that_takes_pixels() -> None:
    result = mnist_exp.train_from(once(*TINY, "seed=3"))
    torch.manual_seed(5)
    numbers = torch.get_rng_state()
    network = mnist_exp.load_model(result.folder)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert not network.training
    pixels = torch.randint(256, (3, 1, 28, 28)).float()
    assert torch.allclose(network(pixels).sum(1), torch.ones(3))
    expected = export.restore(trust.load(result.folder), result.folder)(pixels)
    for name in ("last", "best", result.folder.name):
        assert torch.equal(mnist_exp.load_model(name)(pixels), expected)


@pytest.mark.integration
def test_a_network_that_is_not_there_is_a_sentence_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="There are no runs") as caught:
        mnist_exp.load_model()
    assert caught.value.__notes__ == ["help: Train one first: python -m mnist_exp.train"]
    result = mnist_exp.train_from(TINY)
    (result.folder / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no trained weights"):
        mnist_exp.load_model(result.folder)


def test_importing_the_package_loads_nothing_heavy() -> None:
    text = (
        "import sys, mnist_exp; print([n for n in ('torch', 'hydra', 'pandas', 'mlflow', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
