"""A page that is renewed, in headless Chromium: `pytest -m browser`."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_fixtures import make_run, make_sweep
from samples import script

from mnist_exp.sweep import live
from mnist_exp.ui.mlflow import MLflow
from mnist_exp.ui.server import Server

pytest.importorskip("selenium", reason="the extra `browser` is not installed")
from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium"),
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="there is no chromedriver"),
]
pages = script("browser")


@pytest.fixture
def folder() -> Path:
    """A sweep of which one run has ended."""
    home = make_sweep(Path("outputs"), [["hidden=8"], ["hidden=16"]])
    make_run(home / "0", ["hidden=8"], 0.9)
    return home


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium with a window that is lower than the page."""
    with pages.chromium(1000, 400) as driver:
        yield driver


@pytest.fixture(params=["file", "served"])
def address(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The page as a file, and as `mnist_exp.ui` serves it."""
    path = folder / "report.html"
    if request.param == "file":
        yield path.resolve().as_uri()
        return
    with Server(0, Path("outputs"), MLflow(wanted=False)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.address + path.relative_to("outputs").as_posix()
        server.shutdown()


def test_it_follows_the_sweep_keeps_its_place_and_then_rests(
    folder: Path, address: str, browser: webdriver.Chrome
) -> None:
    def shows(text: str) -> None:
        WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException]).until(
            lambda driver: text in driver.find_element(By.TAG_NAME, "body").text
        )

    live.renew(folder, 1)
    browser.get(address)
    shows("1 finished")
    shows("This sweep is running")
    browser.execute_script("scrollTo(0, 200)")
    make_run(folder / "1", ["hidden=16"], None, state="failed", reason="It broke.")
    live.renew(folder, 1)
    shows("It broke.")
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script("return scrollY") == 200)
    live.settle(folder)
    WebDriverWait(browser, 60).until(lambda driver: "This sweep is running" not in driver.page_source)
    browser.execute_script("window.stays = true")
    with pytest.raises(TimeoutException):  # no more reloads
        WebDriverWait(browser, 3).until(lambda driver: not driver.execute_script("return window.stays"))
    assert [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]] == []


def test_it_waits_for_who_reads(folder: Path, browser: webdriver.Chrome) -> None:
    live.renew(folder, 2)
    browser.get((folder / "report.html").resolve().as_uri())
    browser.execute_script(
        "window.stays = true; setInterval(() => dispatchEvent(new Event('wheel')), 200); window.since = Date.now()"
    )
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script("return Date.now() - window.since > 5000"))
    assert browser.execute_script("return window.stays")
