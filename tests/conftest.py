"""Shared fixtures: a scratch folder per test, no network, an unchanged repository, short configs."""

import itertools
import logging
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import isolated
import pytest
import torch
import trainings
import warm
from data_fixtures import write_dataset
from hooks import hook
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from samples import REPO, TINY, once

from mnist_exp import config as configs
from mnist_exp import train
from mnist_exp.config import Config
from mnist_exp.config.stores import uri_for
from mnist_exp.data import fetch
from mnist_exp.tracking import database as databases
from mnist_exp.tracking import store
from mnist_exp.tracking.store import Store

pytest_plugins = ["cases", "fault_record"]

LEVELS = {logger: logger.level for logger in (logging.getLogger(), logging.getLogger("hydra"))}
"""What each test begins and ends with."""

# Tests in the background of a shell ignore Ctrl-C, and the commands that they start inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the machine is shared. No database: it would be in the repository. The same examples each time, but where
# others are asked for: --hypothesis-profile=deep, with --hypothesis-seed=1 the same again.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=25, database=None, derandomize=True)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=1000, database=None)
hypothesis.settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """Has commands start warm from here on, in this environment: libraries that tests import set variables, too."""
    warm.install(warm.always(dict(os.environ)))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """With `--durations`, the seconds of all tests of each folder, too."""
    seconds: Counter[str] = Counter()
    for report in itertools.chain(*terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            seconds[Path(report.nodeid.partition("::")[0]).parent.name] += report.duration
    if config.getoption("durations") is not None and seconds:
        folders = ", ".join(f"{folder} {total:.0f}" for folder, total in seconds.most_common())
        terminalreporter.write_line(f"Seconds of tests by folder: {folders}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leaves out what the simulated system lacks."""
    for systems, reason in (mark.args for mark in item.iter_markers("not_on")):
        if os.environ.get("MNIST_EXP_ELSEWHERE") in systems.split():
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of each test, empty; hides caches of the user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    # Child processes import this checkout's package, installed or not.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]))
    if "MNIST_EXP_ELSEWHERE" in os.environ:  # they are on that system, too
        monkeypatch.setenv("PYTHONPATH", hook()["PYTHONPATH"])
    for name in ("MLFLOW_TRACKING_URI", *isolated.OTHERS):  # MLflow sets the first
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks connections to other machines."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests do not reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(autouse=True)
def global_state() -> Iterator[None]:
    """Restores what a run changes in its process: variables, Hydra's registers, log handlers, torch's settings."""
    variables = {*os.environ}
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    before = {logger: list(logger.handlers) for logger in LEVELS}
    for logger, level in LEVELS.items():  # a module's fixture, which began before, may have changed one
        logger.setLevel(level)
    torch.set_num_threads(1)  # at these sizes more threads are slower
    # Registered by `train`; to register it again takes half of a small test's time.
    schema = ConfigStore.instance().repo["_schema.yaml"]
    yield
    GlobalHydra.instance().clear()
    ConfigStore.instance().repo["_schema.yaml"] = schema
    for logger, handlers in before.items():
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(LEVELS[logger])
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_flush_denormal(False)
    for name in {*os.environ} - variables:  # torch's compiler sets some, and with them commands start cold
        del os.environ[name]


@pytest.fixture(autouse=True, scope="session")
def composed_once() -> Iterator[None]:
    """Has Hydra compose a command of this process once, not first to ask for `hydra.mode`, which no test's file sets.

    It is a third of what a small command costs. Commands in processes of their own run as they are.
    """
    ask = Hydra.get_mode

    def mode(self: Hydra, config_name: str | None, overrides: list[str], **others: Any) -> Any:
        asked = any("hydra.mode" in word for word in overrides)
        return ask(self, config_name, overrides, **others) if asked else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", mode)
        yield


@pytest.fixture(autouse=True, scope="session")
def untouched_repository() -> Iterator[None]:
    """Asserts that no test left a file in the repository."""
    before = _files()
    yield
    assert _files() == before, "a test wrote into the repository"


def _files() -> set[str]:
    ours = ("mnist_exp", "conf", "tests", "docs", "outputs", "hydra_plugins")  # a benchmark writes beside its program
    folders = [REPO / name for name in ours if (REPO / name).is_dir()]
    files = {str(p) for folder in folders for p in folder.rglob("*") if "__pycache__" not in p.parts}
    return files | {
        str(p) for p in REPO.iterdir() if not p.name.startswith((".pytest", ".mypy", ".ruff", ".hypothesis"))
    }


@pytest.fixture
def composed() -> Callable[..., Config]:
    """`composed("hidden=8")`: the config of a command line, parsed and checked."""

    def make(*overrides: str) -> Config:
        with initialize_config_dir(configs.conf_dir(), version_base="1.3"):
            return configs.parse(compose("train", list(overrides)))

    return make


@pytest.fixture(scope="session")
def _tiny() -> Any:
    with initialize_config_dir(configs.conf_dir(), version_base="1.3"):
        cfg = compose("train", list(TINY))
    OmegaConf.set_struct(cfg, False)  # a test may set other keywords of a group
    return cfg


@pytest.fixture
def tiny(_tiny: Any) -> Callable[..., Config]:
    """`tiny(epochs=3, data={"val_size": 0})`: the smallest experiment, with some settings changed."""

    def make(**settings: Any) -> Config:
        return configs.parse(OmegaConf.merge(_tiny, settings))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def finished(_finished: Path, tiny: Callable[..., Config]) -> Callable[[str | Path], Path]:
    """`finished("theirs")`: a folder of that name with the smallest experiment, which is trained once for all tests."""

    def copy(folder: str | Path) -> Path:
        if not _finished.exists():
            trainings.run(tiny(), _finished)
        return Path(shutil.copytree(_finished, folder))

    return copy


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`command("hidden=8")` runs the command line in this process; returns exit code, output and error output."""

    def call(*typed: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mnist-exp", *once(*typed)])
        GlobalHydra.instance().clear()
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            train.cli()
        code = left.value.code
        assert code is None or isinstance(code, int)
        return (code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces torchvision's downloads with a small dataset; lists the requested ones."""
    asked: list[str] = []

    def download(scratch: Path, dataset: str) -> None:
        asked.append(dataset)
        write_dataset(scratch)

    monkeypatch.setattr(fetch, "_from_torchvision", download)
    monkeypatch.setattr(fetch, "SHARED", Path("nowhere"))
    return asked


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database to copy: creating its tables takes a second."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    databases.make(path)
    return path


@pytest.fixture
def mlflow_store(store_template: Path, scratch: Path) -> Callable[[str], Store]:
    """`mlflow_store("name")`: that experiment in a store in the test's folder."""
    shutil.copyfile(store_template, scratch / "mlflow.db")
    return lambda experiment: store.open_store(uri_for(None), experiment)
