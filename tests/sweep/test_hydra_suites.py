"""Hydra's own contracts, on our plugins: it is Hydra's claim to judge, not ours.

The suites bring applications of their own. Only the local launcher takes those; the others and both sweepers check
every point as a config of ours before anything starts.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import version
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from hydra.test_utils.test_utils import TSweepRunner
from hydra.version import VersionBase
from omegaconf import OmegaConf
from samples import TINY

from hydra_plugins.mnist_exp.launchers import LocalLauncher
from hydra_plugins.mnist_exp.sweepers import GridSweeper, OptunaSweeper
from mnist_exp import config, train

TINY_FIXED = [setting for setting in TINY if not setting.startswith("hidden=")]


@pytest.fixture(autouse=True)
def first_version_base() -> Iterator[None]:
    """The suites expect jobs to change folder, as before Hydra 1.2; importing our entry point asks for 1.3.

    In whatever order and process they run, they find Hydra as it was before the first of them.
    """
    Plugins.instance()  # registers all of them: what a test registers is forgotten after it
    before = VersionBase.instance().version_base
    VersionBase.instance().version_base = getattr(version, "__compat_version__", before)  # forgotten by Hydra 1.4
    yield
    VersionBase.instance().version_base = before  # the suites put another instance in place of the first


def test_discovered() -> None:
    assert LocalLauncher.__name__ in [x.__name__ for x in Plugins.instance().discover(Launcher)]


@pytest.mark.slow
@pytest.mark.parametrize(("launcher_name", "overrides"), [("local", [])])
class TestLocalLauncher(LauncherTestSuite):
    """Hydra's contract."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [({}, ["-m", "hydra/launcher=local"])],
)
class TestLocalLauncherIntegration(IntegrationTestSuite):
    """Hydra's contract, through the real command line."""


@pytest.mark.parametrize("sweeper", [GridSweeper, OptunaSweeper])
def test_sweepers_are_discovered(sweeper: type[Sweeper]) -> None:
    assert sweeper.__name__ in [x.__name__ for x in Plugins.instance().discover(Sweeper)]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_grid_sweeper_two_by_three(hydra_sweep_runner: TSweepRunner, launcher: str, tmp_path: Path) -> None:
    """What `BatchedSweeperTestSuite` asks, of our application; here all jobs are one batch."""
    version.setbase("1.3")
    typed = ["seed=0,1", "hidden=4,8,16"]
    sweep = hydra_sweep_runner(
        calling_file=None,
        calling_module="mnist_exp.train",
        task_function=inspect.unwrap(train.main),
        config_path=config.conf_dir(),
        config_name="train",
        overrides=[*typed, *TINY_FIXED, f"hydra/launcher={launcher}"],
        temp_dir=tmp_path,
    )
    with sweep:
        assert OmegaConf.load(tmp_path / "multirun.yaml").hydra.overrides.task == [*typed, *TINY_FIXED]
        returns = list(sweep.returns or [])
        assert [r.overrides[:2] for r in returns] == [[f"seed={s}", f"hidden={h}"] for s in (0, 1) for h in (4, 8, 16)]
        assert [(r.cfg.seed, r.cfg.hidden) for r in returns] == [(s, h) for s in (0, 1) for h in (4, 8, 16)]
        for number, done in enumerate(returns):
            assert 0.0 <= done.return_value <= 1.0
            assert OmegaConf.load(tmp_path / str(number) / ".hydra" / "overrides.yaml") == done.overrides
