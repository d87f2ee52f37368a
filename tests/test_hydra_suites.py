"""Hydra's own contracts, on our launcher: it is Hydra's claim to judge, not ours."""

from collections.abc import Iterator

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from hydra.version import VersionBase, __compat_version__

from hydra_plugins.mnist_exp.local_launcher import LocalLauncher


@pytest.fixture(autouse=True)
def first_version_base() -> Iterator[None]:
    """The suites expect jobs to change folder, as before Hydra 1.2; importing our entry point asks for 1.3."""
    base = VersionBase.instance()
    before, base.version_base = base.version_base, __compat_version__
    yield
    base.version_base = before


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
