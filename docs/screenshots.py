"""Makes the pictures of pages in docs/images, and the outputs in docs/notebook.ipynb, anew, with one command:

    python docs/screenshots.py

It trains hidden=256 (10 epochs) and a sweep of six runs (2 epochs) on the real MNIST in a temporary folder, starts a
bare `mlflow ui` there, and photographs its pages and the sweep's report in headless Chromium, 1280 and 390 pixels
wide; then it executes the notebook. Five minutes on two cores. Needs the extras `browser` and `notebook`, and
Debian's packages chromium and chromium-driver. Pictures of terminals come from docs/captures.py.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import nbformat
from browser import chromium, mlflow_ui
from nbclient import NotebookClient
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE / "notebook.ipynb"
DESK, PHONE = (1280, 1100), (390, 844)
TRAIN = [sys.executable, "-m", "mnist_exp.train"]
SWEEP = ["-m", "hidden=64,128,256", "lr=1e-3,3e-3", "epochs=2"]
HINTS = "button[aria-label='Close'], button[aria-label='Hide banner']"
GOT_IT = "//button[.='Got it']"
SIDEBAR = "button[aria-label='Toggle sidebar']"


def main() -> None:
    """Trains, looks, and writes the pictures."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        for typed in (["hidden=256"], SWEEP):
            subprocess.run([*TRAIN, *typed], cwd=project, check=True)
        subprocess.run([sys.executable, "-m", "mnist_exp.sync"], cwd=project, check=True)  # a busy machine may be late
        (report,) = project.glob("outputs/sweeps/*/*/report.html")
        with mlflow_ui(project) as address:
            for name, (place, awaited, size) in pages(project).items():
                with chromium(*size) as browser:
                    photograph(browser, f"{address}/{place}", awaited, name)
        for name, size in (("report", DESK), ("report-phone", PHONE)):
            for dark in (False, True):
                with chromium(*size, dark=dark) as browser:
                    photograph(browser, report.as_uri(), "Leaderboard", f"{name}{'-dark' if dark else ''}")
        execute(project)


def pages(project: Path) -> dict[str, tuple[str, str, tuple[int, int]]]:
    """MLflow's pages: name → address behind the server's, a text that is there in the end, and the window's size.

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
        "mlflow-table": (*table, (1280, 620)),
        "mlflow-table-phone": (*table, PHONE),
        "mlflow-sweep": (f"{sweep['page']}&compareRunsMode=CHART", "Parallel Coordinates", DESK),
        "mlflow-compare": (compared, "Show diff only", DESK),
    }


def notes(project: Path, where: str) -> list[dict[str, str]]:
    """What was noted about MLflow in the folders that *where* names, in order."""
    return [json.loads(path.read_bytes()) for path in sorted(project.glob(f"outputs/{where}/mlflow.json"))]


def photograph(browser: webdriver.Chrome, address: str, awaited: str, name: str) -> None:
    """Writes docs/images/*name*.png once the page at *address* shows *awaited*, and no hint of MLflow's own."""
    browser.get(address)
    wait(browser, "mnist_exp")
    time.sleep(3)  # on a first visit hints come late, and cover the page
    buttons = browser.find_elements(By.XPATH, GOT_IT) + browser.find_elements(By.CSS_SELECTOR, HINTS)
    if browser.execute_script("return innerWidth") < 500:
        buttons += browser.find_elements(By.CSS_SELECTOR, SIDEBAR)
    for button in buttons:
        browser.execute_script("arguments[0].click()", button)
    wait(browser, awaited)
    for switch in browser.find_elements(By.XPATH, "//label[.='Show diff only']"):
        switch.click()
    browser.execute_script("document.querySelectorAll('*').forEach(part => part.scrollTop = 0)")
    time.sleep(4)  # charts are drawn, and grow
    (HERE / "images").mkdir(exist_ok=True)
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(HERE / "images" / f"{name}.png", optimize=True)


def wait(browser: webdriver.Chrome, text: str) -> None:
    """Returns once the page shows *text*."""
    WebDriverWait(browser, 120).until(lambda page: text in page.find_element(By.TAG_NAME, "body").text)


def execute(project: Path) -> None:
    """Runs the notebook in *project*, where its lines name no folder of this machine, and keeps its outputs."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(project)}}
    NotebookClient(notebook, resources=place, coalesce_streams=True, record_timing=False).execute()
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
