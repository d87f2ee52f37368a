"""Optuna's own dashboard on a study of ours, in headless Chromium: `pytest -m browser`, with the extra `browser`."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import services
from kit import wait_for
from samples import TINY, script

from mnist_exp.search import study as studies

pytest.importorskip("selenium", reason="the extra `browser` is not installed")
pytest.importorskip("optuna_dashboard", reason="the extra `browser` is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium"),
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="there is no chromedriver"),
]


def listed(page: WebDriver) -> list[tuple[str, str]]:
    """Number and end of each trial that *page* shows."""
    text = page.find_element(By.TAG_NAME, "body").text
    return re.findall(r"^Trial (\d+)\n(Complete|Pruned)$", text, re.MULTILINE)


def test_optunas_dashboard_shows_each_trial_and_how_it_ended(command: Callable[..., tuple[int, str, str]]) -> None:
    here = ("-m", *TINY, "hydra/launcher=basic", "hydra.sweeper.report=false")
    code, out, err = command(*here, "search=asha", "n_trials=6", "lr=tag(log,interval(1e-6,1e-1))")
    assert code == 0, out + err
    (journal,) = Path("outputs").rglob("optuna.journal")
    expected = [(str(trial.number), trial.state.name.title()) for trial in studies.join(journal.parent).trials]
    port = services.free_port()
    dashboard = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()", "--port", str(port)]
    with (
        Path("dashboard.log").open("w") as log,
        subprocess.Popen([*dashboard, str(journal)], stdout=log, stderr=log) as server,
    ):
        try:
            wait_for(lambda: "Listening at" in Path("dashboard.log").read_text(), "it listens")
            with script("browser").chromium() as browser:
                browser.get(f"http://127.0.0.1:{port}/dashboard/studies/0/trials")
                WebDriverWait(browser, 40).until(lambda page: len(listed(page)) == len(expected))
                shown = listed(browser)
        finally:
            server.terminate()
    assert shown == expected
    assert {state for _, state in expected} == {"Complete", "Pruned"}
