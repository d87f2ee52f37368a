"""Going on with a sweep: all of it, and nothing else than it was."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import TEST, TRAIN, write_dataset
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from samples import TINY

from mnist_exp.data import fetch
from mnist_exp.disk import ledger, plan
from mnist_exp.errors import Interrupted
from mnist_exp.sweep.home import Home
from mnist_exp.sweep.job import Job

Command = Callable[..., tuple[int, str, str]]
# In this process, one after the other.
HERE = ("-m", "hydra/launcher=basic", "hydra.sweeper.report=false")


@pytest.fixture
def begun(command: Command) -> Path:
    """A sweep with two finished runs."""
    code, _, err = command(*HERE, *TINY, "epochs=1", "hidden=8,16")
    assert code == 0, err
    return home()


def home() -> Path:
    (folder,) = (path.parent for path in Path("outputs/sweeps").glob("*/*/sweep.json"))
    return folder


def states(folder: Path) -> list[str]:
    entries = [ledger.find(folder / str(number)) for number in range(len(plan.read(folder).points))]
    return [entry.state if entry else "planned" for entry in entries]


def test_points_that_resuming_added_are_part_of_the_sweep(
    begun: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = Home.launch

    def only_the_first(home: Home, jobs: list[Job], *more: Any) -> None:
        launch(home, jobs[:1], *more)
        raise Interrupted("Stopped.")

    with monkeypatch.context() as patched:
        patched.setattr(Home, "launch", only_the_first)
        code, _, err = command(*HERE, "lr=3e-2", "resume=last")
    assert (code, states(begun)) == (130, ["finished", "finished", "finished", "planned"])
    assert f"resume={begun.name}" in err
    code, out, err = command(*HERE, f"resume={begun.name}")
    assert code == 0, err
    assert "4 runs, 3 of them done already" in out
    assert states(begun) == ["finished"] * 4
    assert ledger.read(begun / "3").params["lr"] == 0.03


def test_other_images_are_reported_before_anything_starts(command: Command) -> None:
    write_dataset(Path("images"))
    images = ("data.name=small", "data.root=images", f"data.train_images={TRAIN}", f"data.test_images={TEST}")
    code, _, err = command(*HERE, *TINY, "epochs=1", "data.val_size=2", *images, "hidden=8,16")
    assert code == 0, err
    entry = ledger.read(home() / "1")
    entry.state = "killed"
    entry.write(home() / "1")
    path = Path("images", fetch.FILES[0])
    path.write_bytes(path.read_bytes()[:-1] + bytes([255 - path.read_bytes()[-1]]))
    code, _, err = command(*HERE, "resume=last")
    assert code == 2
    assert "2 runs of" in err  # the finished one, too
    assert err.count(f"the images (small) were {entry.fingerprint['data']}, now ") == 2
    assert states(home()) == ["finished", "killed"]


@pytest.mark.parametrize("search", [(), ("search=random", "n_trials=2")], ids=["grid", "search"])
def test_a_new_sweep_is_not_put_among_the_runs_of_another(search: tuple[str, ...], command: Command) -> None:
    """It would show its own settings beside the accuracies of theirs."""
    sweep = (*HERE, *TINY, "epochs=1", "hydra.sweep.dir=ss", *search)
    code, _, err = command(*sweep, "hidden=8,16")
    assert code == 0, err
    before = {path: path.read_bytes() for path in Path("ss").rglob("*") if path.is_file()}
    code, _, err = command(*sweep, "hidden=32,64")
    assert code == 2
    assert "ss has runs already" in err
    assert "-m resume=ss, or choose another folder: hydra.sweep.dir=…" in err
    assert {path: path.read_bytes() for path in Path("ss").rglob("*") if path.is_file()} == before
    (Path("ss") / "sweep.json").unlink()
    code, _, err = command(*sweep, "hidden=32,64")
    assert code == 2
    assert "help: Choose another folder" in err, "without a plan there is nothing to go on with"


@pytest.mark.parametrize("name", ["14-03-22-9f8e7d", "a b", "a'b", "c=d,e", "x;y", "007", "1e5", "null", "True"])
def test_the_command_that_goes_on_is_read_as_it_is_meant(name: str) -> None:
    """By a shell first, then by Hydra."""
    typed = shlex.split(plan.resuming(name))
    assert typed[:4] == ["python", "-m", "mnist_exp.train", "-m"]
    (override,) = OverridesParser.create().parse_overrides(typed[4:])
    assert not override.is_sweep_override()
    assert OmegaConf.create({"resume": override.value()}).resume == name
