"""Hydra's own contracts, on our launcher: it is Hydra's claim to judge, not ours."""

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite

from hydra_plugins.mnist_exp.local_launcher import LocalLauncher


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
