"""MLflow's pages and a report in headless Chromium: `pytest -m browser`.

Needs the extra `browser` and Debian's packages chromium and chromium-driver.
"""

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
import trainings
from hydra import compose, initialize_config_dir
from report_fixtures import make_run, make_sweep
from samples import script

from mnist_exp import config, report
from mnist_exp.disk.files import read_json
from mnist_exp.disk.plan import Plan
from mnist_exp.tracking import runs, sweeps
from mnist_exp.tracking.store import Store, open_store

pytest.importorskip("selenium", reason="the extra `browser` is not installed")
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium"),
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="there is no chromedriver"),
]

pages = script("browser")
PATIENCE = 40  # seconds for a page, on a busy machine
TINY = ("data=synthetic", "data.train_images=400", "data.val_size=100", "data.test_images=100", "threads=1")
HIDDEN, LR = (8, 16), (0.001, 0.01)
SWEEP = "12-00-00-abcdef"
Value = TypeVar("Value")


def train(folder: Path, store: Store, *overrides: str, sweep: str = "") -> str:
    """Trains two epochs in *folder*, publishes to *store*, and returns MLflow's id of the run."""
    with initialize_config_dir(config.conf_dir(), version_base="1.3"):
        chosen = config.parse(compose("train", [*TINY, "epochs=2", "checkpoint.model=false", *overrides]))
    trainings.run(chosen, folder, overrides, sweep=sweep)
    runs.publish(folder, store)
    return str(read_json(folder / "mlflow.json")["run_id"])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A project folder with a single run and a sweep of four, and their ids in MLflow."""
    config.register()
    root = tmp_path_factory.mktemp("project")
    store = open_store(f"sqlite:///{root / 'mlflow.db'}", "mnist_exp")
    single = train(root / "outputs" / "runs" / "day" / "single", store, "hidden=12")
    folder = root / "outputs" / "sweeps" / "day" / SWEEP
    points = [[f"hidden={hidden}", f"lr={lr}"] for hidden, lr in itertools.product(HIDDEN, LR)]
    runs = [train(folder / str(i), store, *point, sweep=SWEEP) for i, point in enumerate(points)]
    Plan(id=SWEEP, typed=[], keys=["hidden", "lr"], points=points).write(folder)
    sweeps.publish(folder, store, over=True)
    return {"root": root, "experiment": store.experiment_id, "single": single, "runs": runs}


@pytest.fixture(scope="module")
def server(project: dict[str, Any]) -> Iterator[str]:
    """Runs a bare `mlflow ui` in the project folder; yields its address."""
    with pages.mlflow_ui(project["root"]) as address:
        yield address


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium with a new profile."""
    with pages.chromium() as driver:
        yield driver


def wait(browser: webdriver.Chrome, what: Callable[[webdriver.Chrome], Value]) -> Value:
    """Waits until *what* returns something true; returns that."""
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
    # On the first visit a hint of MLflow covers this page until it is closed.
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
    assert sections[:2] == ["Overview", "Curves"]  # before MLflow's own


def test_comparing_two_runs_shows_what_differs(server: str, project: dict[str, Any], browser: webdriver.Chrome) -> None:
    pair = quote(json.dumps([project["runs"][0], project["runs"][3]]))
    browser.get(f"{server}/#/compare-runs?runs={pair}&experiments={quote(json.dumps([project['experiment']]))}")
    wait(browser, lambda page: "Show diff only" in text(page))
    chosen = wait(browser, lambda page: text(page).partition("Parameters:\n")[2].partition("\nMetrics:")[0])
    assert chosen.splitlines() == ["hidden", "lr"]
    measured = text(browser).partition("\nMetrics:\n")[2].splitlines()[0]
    assert measured == "val/accuracy"  # the test set chooses nothing
    for row in ("hidden 8 16", "lr 0.001 0.01"):
        assert row in text(browser)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a sweep with long names, three seeds and a failure; its address."""
    points = [
        [f"hidden={hidden}", f"model.input_dropout={share}", f"seed={seed}"]
        for hidden, share, seed in itertools.product((64, 1024, 128), (0.0, 0.25), range(3))
    ]
    folder = make_sweep(tmp_path_factory.mktemp("report"), points)
    for i, point in enumerate(points[:-1]):
        make_run(folder / str(i), point, 0.9 + 0.001 * i, parameters=50_890 * int(point[0].removeprefix("hidden=")))
    reason = "RuntimeError: " + "a_long_word_without_any_space_in_it" * 5
    make_run(folder / str(len(points) - 1), points[-1], None, state="failed", reason=reason)
    return report.write(folder).as_uri()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_report_fits_on_a_phone(page: str, dark: bool) -> None:
    with pages.chromium(390, 844, dark=dark) as phone:
        phone.get(page)
        for closed in phone.find_elements(By.CSS_SELECTOR, "details"):
            phone.execute_script("arguments[0].open = true", closed)
        across = phone.execute_script("const e = document.documentElement; return [e.clientWidth, e.scrollWidth]")
        phone.execute_script("document.body.style.width = '500px'")
        meta = phone.execute_script("return document.documentElement.scrollWidth")
    assert across == [390, 390]
    assert meta > 390


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_report_follows_light_and_dark(page: str, dark: bool) -> None:
    with pages.chromium(dark=dark) as driver:
        driver.get(page)
        colours = driver.execute_script(
            "const look = (part) => getComputedStyle(document.querySelector(part));"
            "return [look('body').backgroundColor, look('td').color, look('figure svg text').fill]"
        )
    paper, *inks = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours]
    for ink in inks:  # of tables and of pictures
        assert (paper < 50 and ink > 200) if dark else (paper > 200 and ink < 50)


def test_a_click_on_a_column_sorts_the_leaderboard(page: str, browser: webdriver.Chrome) -> None:
    browser.get(page)
    table = browser.find_element(By.CSS_SELECTOR, "[aria-labelledby=leaderboard] table")
    (header,) = [th for th in table.find_elements(By.TAG_NAME, "th") if th.text.startswith("hidden")]

    def hidden() -> list[int]:
        return [int(cell.text) for cell in table.find_elements(By.CSS_SELECTOR, "tbody td:nth-child(2)")]

    assert hidden() == [128, 1024, 1024, 64, 64, 128]  # by accuracy, then the one with a failed seed
    for order, direction in ((sorted(hidden()), "ascending"), (sorted(hidden(), reverse=True), "descending")):
        header.find_element(By.TAG_NAME, "button").click()
        assert hidden() == order
        assert header.get_attribute("aria-sort") == direction
