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
from report_fixtures import make_run, make_sweep, track, write_report
from samples import script

from mnist_exp import config
from mnist_exp.disk.files import read_json
from mnist_exp.disk.plan import Plan
from mnist_exp.tracking import runs, sweeps
from mnist_exp.tracking.store import Store, open_store

pytest.importorskip("selenium", reason="the extra `browser` is not installed")
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import presence_of_element_located
from selenium.webdriver.support.select import Select
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
    return write_report(folder).as_uri()


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
            "return [look('body').backgroundColor, look('td').color, look('figure .chart svg text').fill]"
        )
    paper, *inks = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours]
    for ink in inks:  # of tables and of pictures
        assert (paper < 50 and ink > 200) if dark else (paper > 200 and ink < 50)


def test_no_line_is_lost_on_a_dark_page(explored: webdriver.Chrome) -> None:
    """The worst runs had the scheme's darkest colour, on a background nearly as dark."""
    lines = "[...document.querySelectorAll('#figure-parallel .mark-line path')]"
    colours = f"return {lines}.map((line) => getComputedStyle(line).stroke)"
    with pages.chromium(dark=True) as driver:
        driver.get(explored.current_url)
        drawn(driver)
        on_dark = driver.execute_script(colours)
    for strokes, lost in ((on_dark, False), (explored.execute_script(colours), True)):
        brightest = [max(map(int, re.findall(r"\d+", stroke)[:3])) for stroke in strokes]
        assert len(brightest) == 12
        assert (min(brightest) < 110) is lost


def test_a_click_on_a_column_sorts_the_leaderboard(page: str, browser: webdriver.Chrome) -> None:
    browser.get(page)
    table = browser.find_element(By.CSS_SELECTOR, "[aria-labelledby=leaderboard] table")
    (header,) = [th for th in table.find_elements(By.TAG_NAME, "th") if th.text.startswith("hidden")]

    def hidden() -> list[int]:
        return [int(cell.text) for cell in table.find_elements(By.CSS_SELECTOR, "tbody td:nth-child(5)")]

    assert hidden() == [128, 1024, 1024, 64, 64, 128]  # by accuracy, then the one with a failed seed
    for order, direction in ((sorted(hidden()), "ascending"), (sorted(hidden(), reverse=True), "descending")):
        header.find_element(By.TAG_NAME, "button").click()
        assert hidden() == order
        assert header.get_attribute("aria-sort") == direction


NAME = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """The report of twelve runs, one of them with a hostile setting, with its figures drawn."""
    points = [
        [f"hidden={hidden}", f"lr={lr}", f"note={note}"]
        for hidden, lr, note in itertools.product((64, 128, 256), (0.001, 0.01), ("plain", NAME))
    ]
    home = tmp_path_factory.mktemp("explored")
    folder = make_sweep(home / "outputs", points)
    for i, point in enumerate(points):
        make_run(folder / str(i), [*point, "val_size=5000"], 0.95 + 0.002 * i, parameters=795 * (1 + i))
        track(folder / str(i), f"{i:032x}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)  # else it is a sweep from elsewhere, of which no command is shown to copy
        address = write_report(folder).as_uri()
    with pages.chromium(1280, 1000) as driver:
        driver.get(address)
        drawn(driver)
        yield driver


def drawn(driver: webdriver.Chrome) -> None:
    wait(driver, lambda page: page.execute_script("return document.documentElement.classList.contains('drawn')"))


def complaints(driver: webdriver.Chrome) -> list[Any]:
    """What the console said since the last call."""
    return list(driver.get_log("browser"))  # type: ignore[no-untyped-call]


def marks(driver: webdriver.Chrome, figure: str) -> list[Any]:
    """The points of a figure."""
    return driver.find_elements(By.CSS_SELECTOR, f"#figure-{figure} .mark-symbol path")


def over(driver: webdriver.Chrome, mark: Any) -> ActionChains:
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    return ActionChains(driver).move_to_element(mark)


def rows_shown(driver: webdriver.Chrome) -> int:
    shown: int = driver.execute_script("return document.querySelectorAll('tr[data-setting]:not([hidden])').length")
    return shown


def test_the_figures_ask_for_nothing_and_complain_of_nothing(explored: webdriver.Chrome) -> None:
    asked = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert explored.execute_script(asked) == []
    assert complaints(explored) == []
    assert [len(marks(explored, "against")), rows_shown(explored)] == [12, 12]
    for figure in ("parallel", "pair", "curves"):
        assert explored.find_elements(By.CSS_SELECTOR, f"#figure-{figure} svg [role=graphics-symbol]")
    hidden = "return [...document.querySelectorAll('.replaced')].every((part) => part.offsetHeight === 0)"
    assert explored.execute_script(hidden)


def test_labels_are_round_and_can_be_read(explored: webdriver.Chrome) -> None:
    """Of the colours too, whose ends were numbers such as 65.612; a label's edge hides the lines that cross it."""
    labels = "#figure-parallel .role-legend-label text"
    texts = [label.text for label in explored.find_elements(By.CSS_SELECTOR, labels)]
    assert texts
    assert all(len(text) <= 4 for text in texts)
    assert explored.find_elements(By.CSS_SELECTOR, "#figure-parallel .mark-text text[stroke-width='6']")


def test_pointing_names_a_run(explored: webdriver.Chrome) -> None:
    tip = explored.find_element(By.ID, "tip")
    over(explored, marks(explored, "against")[0]).perform()
    wait(explored, lambda _: "hidden=64 lr=0.001 note=plain\n" in tip.text)
    over(explored, marks(explored, "against")[1]).perform()
    wait(explored, lambda _: f"note={NAME}" in tip.text)
    over(explored, explored.find_element(By.TAG_NAME, "h1")).perform()
    wait(explored, lambda _: not tip.is_displayed())


def test_a_click_opens_command_link_and_curves(explored: webdriver.Chrome) -> None:
    over(explored, marks(explored, "against")[1]).click().perform()
    dialog = wait(explored, lambda page: page.find_elements(By.CSS_SELECTOR, "dialog[open]"))[0]
    assert "python -m mnist_exp.train hidden=64 lr=0.001" in dialog.text
    assert dialog.find_element(By.TAG_NAME, "h2").text == f"hidden=64 lr=0.001 note={NAME}"
    assert f"{1:032x}" in str(dialog.find_element(By.LINK_TEXT, "Open in MLflow").get_attribute("href"))
    for curves in ("#run-loss", "#run-accuracy"):
        lines = (By.CSS_SELECTOR, f"{curves} svg .mark-line path")
        wait(explored, presence_of_element_located(lines))
    dialog.find_element(By.CSS_SELECTOR, "[aria-label=Close]").click()
    assert not dialog.is_displayed()
    assert complaints(explored) == []


def test_the_keyboard_opens_a_run_too(explored: webdriver.Chrome) -> None:
    for closed in explored.find_elements(By.CSS_SELECTOR, "details"):
        explored.execute_script("arguments[0].open = true", closed)
    explored.find_element(By.CSS_SELECTOR, "[aria-label='Run 3: command and curves']").send_keys(Keys.ENTER)
    dialog = wait(explored, lambda page: page.find_elements(By.CSS_SELECTOR, "dialog[open]"))[0]
    assert dialog.find_element(By.TAG_NAME, "h2").text == f"hidden=64 lr=0.01 note={NAME}"
    ActionChains(explored).send_keys(Keys.ESCAPE).perform()
    wait(explored, lambda page: not page.find_elements(By.CSS_SELECTOR, "dialog[open]"))


def test_dragging_over_one_figure_filters_the_others_and_the_tables(explored: webdriver.Chrome) -> None:
    first, second = marks(explored, "against")[:2]
    drag = over(explored, first).move_by_offset(-12, 12).click_and_hold().move_to_element(second)
    drag.move_by_offset(8, -12).release().perform()
    said = explored.find_element(By.ID, "chosen")
    wait(explored, lambda _: said.text == "2 of 12 runs chosen.")
    wait(explored, lambda _: rows_shown(explored) == 2)
    cells = "return document.querySelectorAll('#figure-pair .mark-rect.role-mark path').length"
    wait(explored, lambda page: page.execute_script(cells) < 6)
    lines = "return document.querySelectorAll('#figure-curves .mark-line path').length"
    wait(explored, lambda page: page.execute_script(lines) < 12)
    explored.find_element(By.ID, "all").click()
    wait(explored, lambda _: rows_shown(explored) == 12)
    assert said.text == "All 12 runs."


def test_another_axis_is_one_choice_away(explored: webdriver.Chrome) -> None:
    Select(explored.find_element(By.ID, "against-x")).select_by_visible_text("lr")
    titles = "return [...document.querySelectorAll('#figure-against .role-axis-title text')].map((t) => t.textContent)"
    wait(explored, lambda page: "lr" in page.execute_script(titles))
    assert complaints(explored) == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_accessibility(page: str, width: int, dark: bool) -> None:
    """No finding of axe-core that is serious or critical, in the page and in what a click opens."""
    axe = pytest.importorskip("axe_core_python", reason="the extra `browser` is not installed")
    source = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    with pages.chromium(width, 900, dark=dark) as driver:
        driver.set_script_timeout(240)  # the default half a minute may be too short for a busy machine
        driver.get(page)
        drawn(driver)
        for opened in (False, True):
            if opened:
                driver.execute_script("document.querySelector('td button.open').click()")
            driver.execute_script(source)
            result = driver.execute_async_script("axe.run().then(arguments[0])")
            serious = [each for each in result["violations"] if each["impact"] in ("serious", "critical")]
            assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == []
            assert len(result["passes"]) > 10


def test_without_scripts_there_are_pictures_and_tables(page: str, browser: webdriver.Chrome) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(page)
    assert browser.find_element(By.CSS_SELECTOR, "[aria-labelledby=curves] svg").is_displayed()
    assert not browser.find_element(By.ID, "explore").is_displayed()
    assert len(browser.find_elements(By.CSS_SELECTOR, "[aria-labelledby=leaderboard] tbody tr")) == 6


def test_the_library_is_what_its_wheel_has() -> None:
    vl_convert = pytest.importorskip("vl_convert", reason="the extra `browser` is not installed")
    locked = "vl-convert-python==1.9.0.post1"
    assert locked in (Path(__file__).parents[2] / ".ci" / "constraints.txt").read_text().splitlines()
    if vl_convert.__version__ != "1.9.0":
        pytest.skip("another version than the locked one")
    bundle = script("bundle")
    assert bundle.TARGET.read_text(encoding="utf-8") == bundle.bundle()
