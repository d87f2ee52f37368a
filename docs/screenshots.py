"""Regenerates the pictures of pages and networks in docs/images, and the outputs of docs/notebook.ipynb:

    python docs/screenshots.py

It trains hidden=256 (10 epochs), a sweep of six settings with three seeds and a search of 30 trials (3 epochs) on the
real MNIST in a temporary folder and starts a bare `mlflow ui` there. It takes screenshots of MLflow's pages and of the
reports in headless Chromium, 1280 and 390 pixels wide, copies the figures of `evaluate` and of an augmentation, and
executes the notebook. Needs the extras `browser` and `notebook`, and Debian's packages chromium and chromium-driver.
Pictures of terminals come from docs/captures.py.
"""

import base64
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import made
import nbformat
from browser import chromium, mlflow_ui
from nbclient import NotebookClient
from PIL import Image
from platformdirs import user_cache_dir
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images"
NOTEBOOK = HERE / "notebook.ipynb"
DESK, PHONE = (1280, 1100), (390, 844)
SEARCH = ["-m", "search=tpe", "n_trials=30", "epochs=3", "tracking=off"]
SWEEP = ["-m", "hidden=64,128,256", "lr=1e-3,3e-3", "seed=0,1,2", "epochs=3"]
AUGMENTED = ["augment=combined", "hidden=16", "epochs=1", "tracking=off"]
HINTS = "button[aria-label='Close'], button[aria-label='Hide banner']"
GOT_IT = "//button[.='Got it']"
SIDEBAR = "button[aria-label='Toggle sidebar']"
# Plotly shows its tools on hover only; a headless browser has no mouse, so it always shows them.
TOOLS = ".modebar-container { display: none !important }"
# Hides the report's small print, and all but one row of the pictures of the best run.
DIGEST = """
    main > details, [aria-labelledby=varies], [aria-labelledby=costs], footer, section > .soft, section details,
    [aria-labelledby=best] > :not(h2, .figures), [aria-labelledby=best] figure:nth-child(n + 3)
    { display: none !important }
"""


def main() -> None:
    """Trains, opens the pages, and writes the pictures."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        command(project, "train", *AUGMENTED)
        keep(project, "runs/*/*/figures/augmented.png", "augmented")
        subprocess.run(["rm", "-r", "outputs"], cwd=project, check=True)
        command(project, "train", "hidden=256")
        command(project, "train", *SWEEP)
        command(project, "evaluate", "run=best")
        for name in ("confusion", "mistakes", "reliability", "first_layer"):
            keep(project, f"sweeps/*/*/*/figures/mnist-test/{name}.png", f"evaluate-{name.replace('_', '-')}")
        with mlflow_ui(project) as address:
            for name, (page, awaited, size) in pages(project).items():
                with chromium(*size) as browser:
                    photograph(browser, f"{address}/{page}", awaited, name)
        (report,) = project.glob("outputs/sweeps/*/*/report.html")
        reports(report)
        command(project, "train", *SEARCH)
        (searched,) = set(project.glob("outputs/sweeps/*/*/report.html")) - {report}
        of_search(searched)
        execute(project)


def reports(page: Path) -> None:
    """Photographs the report of a grid, and what a click opens."""
    for dark in (False, True):
        suffix = "-dark" if dark else ""
        with chromium(*DESK, dark=dark) as browser:
            excerpt(browser, page, f"report{suffix}", DIGEST, "body", "main")
        with chromium(*PHONE, dark=dark) as browser:
            excerpt(browser, page, f"report-phone{suffix}", "", "body", "#figure-pair")
    with chromium(1000, 900) as browser:
        excerpt(browser, page, "report-run", "", "body", "#run", "document.querySelector('td button.open').click()")


def of_search(page: Path) -> None:
    """Photographs the figures of a search."""
    with chromium(*DESK) as browser:
        excerpt(browser, page, "report-search", DIGEST, "body", "#explore")


def command(project: Path, name: str, *arguments: str) -> None:
    """Runs one of this package's commands in *project*."""
    subprocess.run([sys.executable, "-m", f"mnist_exp.{name}", *arguments], cwd=project, check=True)


def keep(project: Path, where: str, name: str) -> None:
    """Writes docs/images/*name*.png from the only picture of outputs/ that matches *where*."""
    (path,) = project.glob(f"outputs/{where}")
    save(Image.open(path), name)


def save(picture: Image.Image, name: str, program: str = "screenshots.py") -> None:
    """Writes docs/images/*name*.png with a palette, at a third of the size."""
    small = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    small.save(IMAGES / f"{name}.png", optimize=True)
    made.note(IMAGES / f"{name}.png", program)


def pages(project: Path) -> dict[str, tuple[str, str, tuple[int, int]]]:
    """MLflow's pages: name → address on the server, a text of the loaded page, and the window's size.

    Its charts and comparisons do not fit on a phone.
    """
    (single,) = notes(project, "runs/*/*")
    (sweep,) = notes(project, "sweeps/*/*")
    swept = notes(project, "sweeps/*/*/*")
    runs = quote(json.dumps([swept[0]["run_id"], swept[-1]["run_id"]]))
    experiments = quote(json.dumps([sweep["experiment_id"]]))
    compared = f"#/compare-runs?runs={runs}&experiments={experiments}&workflowType=machine_learning"
    run, table = (single["page"], "Metrics"), (sweep["page"], "matching runs")
    return {
        "mlflow-run": (*run, DESK),
        "mlflow-run-phone": (*run, PHONE),
        "mlflow-table": (*table, (1280, 1090)),
        "mlflow-table-phone": (*table, PHONE),
        "mlflow-sweep": (f"{sweep['page']}&compareRunsMode=CHART", "Parallel Coordinates", (1280, 1560)),
        "mlflow-compare": (compared, "Show diff only", (1280, 1560)),
    }


def notes(project: Path, where: str) -> list[dict[str, str]]:
    """The content of mlflow.json in the folders that match *where*, in order."""
    return [json.loads(path.read_bytes()) for path in sorted(project.glob(f"outputs/{where}/mlflow.json"))]


def photograph(browser: webdriver.Chrome, address: str, awaited: str, name: str) -> None:
    """Writes docs/images/*name*.png once the page at *address* shows *awaited*; closes MLflow's hints first."""
    browser.get(address)
    wait(browser, "mnist_exp")
    time.sleep(3)  # on a first visit hints appear late and cover the page
    buttons = browser.find_elements(By.XPATH, GOT_IT) + browser.find_elements(By.CSS_SELECTOR, HINTS)
    if browser.execute_script("return innerWidth") < 500:
        buttons += browser.find_elements(By.CSS_SELECTOR, SIDEBAR)
    for button in buttons:
        browser.execute_script("arguments[0].click()", button)
    wait(browser, awaited)
    for switch in browser.find_elements(By.XPATH, "//label[.='Show diff only']"):
        switch.click()
    restyle(browser, TOOLS)
    browser.execute_script("document.querySelectorAll('*').forEach(part => part.scrollTop = 0)")
    time.sleep(8)  # charts are drawn and animated
    save(Image.open(io.BytesIO(browser.get_screenshot_as_png())), name)


def excerpt(
    browser: webdriver.Chrome,
    page: Path,
    name: str,
    style: str,
    first: str,
    last: str,
    script: str = "",
    program: str = "screenshots.py",
) -> None:
    """Writes docs/images/*name*.png: the report *page* from the element *first* to *last*, with *style* added.

    Args:
        script: What is done before.
        program: Who takes it.
    """
    browser.get(page.as_uri())
    shown = "return document.documentElement.classList.contains('drawn')"
    WebDriverWait(browser, 120).until(lambda driver: driver.execute_script(shown))
    restyle(browser, style)
    browser.execute_script(script)
    time.sleep(2)  # what it opens is drawn
    top = browser.execute_script("return document.querySelector(arguments[0]).getBoundingClientRect().top", first)
    bottom = browser.execute_script("return document.querySelector(arguments[0]).getBoundingClientRect().bottom", last)
    width = browser.execute_script("return innerWidth")
    clip = {"x": 0, "y": top, "width": width, "height": bottom - top + 16, "scale": 1}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    save(Image.open(io.BytesIO(base64.b64decode(taken["data"]))), name, program)


def restyle(browser: webdriver.Chrome, style: str) -> None:
    """Adds *style* to the page."""
    browser.execute_script(
        "const sheet = new CSSStyleSheet(); sheet.replaceSync(arguments[0]); document.adoptedStyleSheets.push(sheet)",
        style,
    )


def wait(browser: webdriver.Chrome, text: str) -> None:
    """Returns once the page shows *text*."""
    WebDriverWait(browser, 120).until(lambda page: text in page.find_element(By.TAG_NAME, "body").text)


def execute(project: Path) -> None:
    """Runs the notebook in *project*, so that no output names a folder of this machine, and writes its outputs."""
    (project / "data" / "MNIST").mkdir(parents=True)
    (project / "data" / "MNIST" / "raw").symlink_to(Path(user_cache_dir()) / "mnist_exp" / "mnist")  # torchvision's
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(project)}}
    NotebookClient(notebook, resources=resources, coalesce_streams=True, record_timing=False).execute()
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
