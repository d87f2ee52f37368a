"""What people see in MLflow's pages, in headless Chromium: `pytest -m browser`.

Needs the extra `browser` and Debian's packages chromium and chromium-driver.
"""

import itertools
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
from conftest import script
from hydra import compose, initialize_config_dir

from mnist_exp import config, run
from mnist_exp.files import read_json, write_json
from mnist_exp.tracking import publish, sweeps
from mnist_exp.tracking.store import Store, open_store

pytest.importorskip("selenium", reason="the extra `browser` is not installed")
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium"),
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="there is no chromedriver"),
]

pages = script("browser")
PATIENCE = 40  # seconds for a page, on a busy machine
TINY = ("data=synthetic", "data.train_images=400", "data.val_size=100", "data.test_images=100", "threads=1")
HIDDEN, LR = (8, 16), (0.001, 0.01)
SWEEP = "12-00-00-abcdef"
Found = TypeVar("Found")


def train(folder: Path, store: Store, *overrides: str, sweep: str = "") -> str:
    """Trains two epochs in *folder*, tells *store*, and returns MLflow's id of the run."""
    with initialize_config_dir(config.conf_dir(), version_base="1.3"):
        chosen = config.parse(compose("train", [*TINY, "epochs=2", "checkpoint.model=false", *overrides]))
    run.run(chosen, folder, overrides, sweep=sweep)
    publish.publish(folder, store)
    return str(read_json(folder / "mlflow.json")["run_id"])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A project folder with a single run and a sweep of four, and what MLflow calls them."""
    config.register()
    root = tmp_path_factory.mktemp("project")
    store = open_store(f"sqlite:///{root / 'mlflow.db'}", "mnist_exp")
    single = train(root / "outputs" / "runs" / "day" / "single", store, "hidden=12")
    folder = root / "outputs" / "sweeps" / "day" / SWEEP
    points = [[f"hidden={hidden}", f"lr={lr}"] for hidden, lr in itertools.product(HIDDEN, LR)]
    runs = [train(folder / str(i), store, *point, sweep=SWEEP) for i, point in enumerate(points)]
    plan = {"id": SWEEP, "created_ms": time.time_ns() // 1_000_000, "typed": [], "keys": ["hidden", "lr"]}
    write_json(folder / "sweep.json", {**plan, "points": points})
    sweeps.publish(folder, store, over=True)
    return {"root": root, "experiment": store.experiment_id, "single": single, "runs": runs}


@pytest.fixture(scope="module")
def server(project: dict[str, Any]) -> Iterator[str]:
    """A bare `mlflow ui` in the project folder; its address."""
    with pages.mlflow_ui(project["root"]) as address:
        yield address


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium as on the very first visit."""
    with pages.chromium() as driver:
        yield driver


def wait(browser: webdriver.Chrome, what: Callable[[webdriver.Chrome], Found]) -> Found:
    """What *what* finds, as soon as that is something."""
    return WebDriverWait(browser, PATIENCE).until(what)


def text(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def column(browser: webdriver.Chrome, key: str) -> list[str]:
    """The cells of one column of the table of runs, from top to bottom."""
    cells = browser.find_elements(By.CSS_SELECTOR, f"[role=gridcell][col-id='{key}']")
    return [cell.text.splitlines()[-1] for cell in cells]


def test_a_bare_mlflow_ui_lists_a_single_run(server: str, project: dict[str, Any], browser: webdriver.Chrome) -> None:
    browser.get(server)
    wait(browser, lambda page: page.find_elements(By.LINK_TEXT, "mnist_exp"))
    browser.get(f"{server}/#/experiments/{project['experiment']}/runs?workflowType=machine_learning")
    name = "hidden=12 lr=0.001 seed=0"
    wait(browser, lambda page: name in text(page))
    browser.get(f"{server}/#/experiments/{project['experiment']}/runs/{project['single']}")
    wait(browser, lambda page: "Finished" in text(page) and "final/test_accuracy" in text(page))
    assert name in text(browser)


def test_one_click_leads_from_the_experiment_to_all_runs_of_the_sweep(server: str, browser: webdriver.Chrome) -> None:
    browser.get(server)
    wait(browser, lambda page: page.find_elements(By.LINK_TEXT, "mnist_exp"))[0].click()
    # On the very first visit MLflow covers this page with a hint of its own, until one closes it.
    wait(browser, lambda page: page.find_elements(By.XPATH, "//button[.='Got it']"))[0].click()
    wait(browser, lambda page: "Detect Issues in Your Traces" not in text(page))

    browser.find_element(By.LINK_TEXT, "table").click()
    browser.switch_to.window(wait(browser, lambda page: page.window_handles[1:])[0])
    wait(browser, lambda page: "4 matching runs" in text(page) and len(column(page, "params.`lr`")) == 4)
    shown = sorted(zip(column(browser, "params.`hidden`"), column(browser, "params.`lr`"), strict=True))
    assert shown == [(str(hidden), str(lr)) for hidden, lr in itertools.product(("16", "8"), LR)]
    accuracy = [float(cell) for cell in column(browser, "metrics.`val/accuracy`")]
    assert accuracy == sorted(accuracy, reverse=True)
    headers = {header.text for header in browser.find_elements(By.CSS_SELECTOR, "[role=columnheader]")}
    assert headers >= {"hidden", "lr", "val/accuracy", "test/accuracy"}


def test_the_charts_cover_all_runs_of_the_sweep(
    server: str, project: dict[str, Any], browser: webdriver.Chrome
) -> None:
    view = f"viewStateShareKey={SWEEP}&workflowType=machine_learning&compareRunsMode=CHART"
    browser.get(f"{server}/#/experiments/{project['experiment']}/runs?{view}")
    wait(browser, lambda page: "Parallel Coordinates\nShowing all runs\n" in text(page))
    assert "4 matching runs" in text(browser)
    sections = re.findall(r"^(\w+)\n\(\d+\)$", text(browser), re.MULTILINE)
    assert sections[:2] == ["Overview", "Curves"]  # before those that MLflow adds


def test_comparing_two_runs_shows_what_differs(server: str, project: dict[str, Any], browser: webdriver.Chrome) -> None:
    pair = quote(json.dumps([project["runs"][0], project["runs"][3]]))
    browser.get(f"{server}/#/compare-runs?runs={pair}&experiments={quote(json.dumps([project['experiment']]))}")
    wait(browser, lambda page: "Show diff only" in text(page))
    chosen = wait(browser, lambda page: text(page).partition("Parameters:\n")[2].partition("\nMetrics:")[0])
    assert chosen.splitlines() == ["hidden", "lr"]
    for row in ("hidden 8 16", "lr 0.001 0.01"):
        assert row in text(browser)
