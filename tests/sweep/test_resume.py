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
from mnist_exp.results import names
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


@pytest.mark.integration
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


@pytest.mark.integration
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


@pytest.mark.integration
@pytest.mark.parametrize("search", [(), ("search=random", "n_trials=2")], ids=["grid", "search"])
def test_a_new_sweep_is_not_put_among_the_runs_of_another(search: tuple[str, ...], command: Command) -> None:
    """It would show its own settings beside the accuracies of theirs."""
    sweep = (*HERE, *TINY, "epochs=1", "hydra.sweep.dir=ss", *search)
    code, _, err = command(*sweep, "hidden=8,16")
    assert code == 0, err
    before = contents(Path("ss"))
    code, _, err = command(*sweep, "hidden=32,64")
    assert code == 2
    assert "ss has runs already" in err
    assert "Choose another folder: hydra.sweep.dir=…\n    or go on with that one:\n" in err
    assert contents(Path("ss")) == before
    (Path("ss") / "sweep.json").unlink()
    code, _, err = command(*sweep, "hidden=32,64")
    assert code == 2
    assert "help: Choose another folder" in err, "without a plan there is nothing to go on with"


@pytest.mark.integration
def test_nothing_but_a_resume_gets_into_the_folder_of_a_sweep(command: Command) -> None:
    assert command(*HERE, *TINY, "epochs=1", "hydra.sweep.dir=ss", "hidden=8,16")[0] == 0
    before = contents(Path("ss"))
    for typed in (["hydra.run.dir=ss"], ["hydra.run.dir=ss/7"], ["-m", "hydra.sweep.dir=ss/7"]):
        code, _, err = command(*TINY, *typed)
        assert code == 2
        assert "Choose another" in err
    assert contents(Path("ss")) == before


@pytest.mark.integration
def test_a_run_that_exists_is_not_changed_by_a_refused_one(command: Command) -> None:
    assert command(*TINY, "hydra.run.dir=rd")[0] == 0
    before = {path: data for path, data in contents(Path("rd")).items() if path.name != "train.log"}
    code, _, err = command(*TINY, "hydra.run.dir=rd", "hidden=99")
    assert code == 2
    assert "hidden was 16, now 99" in err
    assert {path: data for path, data in contents(Path("rd")).items() if path.name != "train.log"} == before


@pytest.mark.integration
@pytest.mark.parametrize(
    "wrong",
    [("hidden=-1,8",), ("hydra.launcher.workers=0",), ("search=random", "+hydra.sweeper.sampler.foo=3")],
    ids=lambda typed: typed[0],
)
def test_a_refused_sweep_leaves_no_folder(wrong: tuple[str, ...], command: Command) -> None:
    Path("mine").mkdir()
    for where in ((), ("hydra.sweep.dir=mine",)):
        code, _, _ = command("-m", *TINY, "hidden=8,16", *wrong, *where)
        assert code == 2
        assert [*Path().rglob("*")] in ([Path("mine")], [Path("mine"), Path("mine/.lock")])


@pytest.mark.integration
def test_a_refused_resume_of_a_search_changes_nothing(command: Command) -> None:
    search = ("-m", *TINY, "epochs=1", "search=random", "hydra.sweeper.report=false", "hydra.sweep.dir=ss")
    assert command(*search, "n_trials=2", "hidden=8,16", "lr=interval(1e-3,1e-1)")[0] == 0
    before = contents(Path("ss"))
    for wrong, reason in {
        "hidden=8,64": "hidden was 8, 16 in the trials so far, and would be 8, 64.",
        "lr=interval(1e-3,1)": "lr was 0.001 to 0.1 in the trials so far, and would be 0.001 to 1.0.",
        "hydra.launcher.workers=0": "workers",
        "+hydra.sweeper.sampler.foo=3": "foo",
    }.items():
        code, _, err = command("-m", "resume=ss", wrong, "n_trials=3")
        assert code == 2, err
        assert reason in " ".join(err.split())
        assert contents(Path("ss")) == before
    code, _, err = command("-m", "resume=ss", "n_trials=3")
    assert code == 0, err
    assert states(Path("ss")) == ["finished"] * 3


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["14-03-22-9f8e7d", "a b", "a'b", "c=d,e", "x;y", "007", "1e5", "null", "True"])
def test_the_command_that_goes_on_is_read_as_it_is_meant(name: str) -> None:
    """By a shell first, then by Hydra."""
    typed = shlex.split(names.resuming(Path(name)))
    assert typed[:4] == ["python", "-m", "mnist_exp.train", "-m"]
    (override,) = OverridesParser.create().parse_overrides(typed[4:])
    assert not override.is_sweep_override()
    assert OmegaConf.create({"resume": override.value()}).resume == name


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("outputs/sweeps/2026-01-31/14-03-22-9f8e7d", "14-03-22-9f8e7d"),
        ("outputs/mine", "outputs/mine"),
        ("sub/ss", "sub/ss"),
        ("/elsewhere/ss", "/elsewhere/ss"),
        ("last", "./last"),
        ("best:x", "./best:x"),
    ],
)
def test_a_sweep_is_named_by_its_id_only_where_that_is_looked_for(folder: str, name: str, scratch: Path) -> None:
    assert names.resuming(Path(folder)) == names.resuming(scratch / folder)
    (override,) = OverridesParser.create().parse_overrides(shlex.split(names.resuming(Path(folder)))[4:])
    assert override.value() == name


def test_where_a_sweep_from_elsewhere_ran_is_printed_only_if_it_is_a_choice() -> None:
    """Hydra would read the path of any file there."""
    forged = "../../../tmp/x/evil"
    assert names.resuming(Path("theirs"), forged) == names.resuming(Path("theirs"))
    assert "cluster=slurm" in names.resuming(Path("theirs"), "slurm").split()
    assert "cluster=mine" in names.resuming(Path("outputs/sweeps/2026-01-31/14-03-22-9f8e7d"), "mine").split()


@pytest.mark.integration
def test_the_printed_command_goes_on_with_a_sweep_elsewhere(command: Command) -> None:
    """With what is not taken from there."""
    write_dataset(Path("images"))
    images = ("data.name=small", "data.root=images", f"data.train_images={TRAIN}", f"data.test_images={TEST}")
    far = ("hydra.sweep.dir=sub/ss", "epochs=1", "data.val_size=2")
    code, _, err = command(*HERE, *TINY, *far, *images, "lr=0.1,1e30")
    assert code == 1, err
    typed = shlex.split(err.rpartition("All of them again:\n")[2])[4:]
    assert {"resume=sub/ss", "data.root=images"} <= set(typed)
    code, _, err = command(*HERE, *typed)
    assert code == 1, err
    assert "1 of 2 runs did not finish" in err
