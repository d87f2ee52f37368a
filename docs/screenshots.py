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
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from browser import chromium, mlflow_ui
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE / "notebook.ipynb"
SIZES = {"": (1280, 1400), "-phone": (390, 844)}
TRAIN = [sys.executable, "-m", "mnist_exp.train"]
SWEEP = ["-m", "hidden=64,128,256", "lr=1e-3,3e-3", "epochs=2"]
EXECUTE = ["-m", "jupyter", "execute", "--inplace", "--NotebookClient.coalesce_streams=True"]
HINTS = "button[aria-label='Close'], button[aria-label='Hide banner']"
GOT_IT = "//button[.='Got it']"


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
            for page, (place, awaited) in pages(project).items():
                for suffix, size in SIZES.items():
                    with chromium(*size) as browser:
                        photograph(browser, f"{address}/{place}", awaited, f"{page}{suffix}.png")
        for suffix, size in SIZES.items():
            for dark in (False, True):
                with chromium(*size, dark=dark) as browser:
                    name = f"report{'-dark' if dark else ''}{suffix}.png"
                    photograph(browser, report.as_uri(), "Leaderboard", name)
        execute(project)


def pages(project: Path) -> dict[str, tuple[str, str]]:
    """MLflow's pages to show: name → address behind the server's, and a text that is there when it has loaded."""
    (single,) = notes(project, "runs/*/*")
    (sweep,) = notes(project, "sweeps/*/*")
    swept = notes(project, "sweeps/*/*/*")
    runs = quote(json.dumps([swept[0]["run_id"], swept[-1]["run_id"]]))
    experiments = quote(json.dumps([sweep["experiment_id"]]))
    compared = f"#/compare-runs?runs={runs}&experiments={experiments}&workflowType=machine_learning"
    return {
        "mlflow-run": (single["page"], "Metrics"),
        "mlflow-table": (sweep["page"], "matching runs"),
        "mlflow-sweep": (f"{sweep['page']}&compareRunsMode=CHART", "Parallel Coordinates"),
        "mlflow-compare": (compared, "Show diff only"),
    }


def notes(project: Path, where: str) -> list[dict[str, str]]:
    """What was noted about MLflow in the folders that *where* names, in order."""
    return [json.loads(path.read_bytes()) for path in sorted(project.glob(f"outputs/{where}/mlflow.json"))]


def photograph(browser: webdriver.Chrome, address: str, awaited: str, name: str) -> None:
    """Writes docs/images/*name* once the page at *address* shows the text *awaited*, and no hint of MLflow's own."""
    browser.get(address)
    WebDriverWait(browser, 60).until(lambda page: awaited in page.find_element(By.TAG_NAME, "body").text)
    time.sleep(2)  # on a first visit a hint comes late, and covers the page
    for button in [*browser.find_elements(By.XPATH, GOT_IT), *browser.find_elements(By.CSS_SELECTOR, HINTS)]:
        browser.execute_script("arguments[0].click()", button)
    for switch in browser.find_elements(By.XPATH, "//label[.='Show diff only']"):
        switch.click()
    browser.execute_script("document.querySelectorAll('*').forEach(part => part.scrollTop = 0)")
    time.sleep(4)  # charts are drawn, and grow
    (HERE / "images").mkdir(exist_ok=True)
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(HERE / "images" / name, optimize=True)


def execute(project: Path) -> None:
    """Runs the notebook in *project*, where its lines name no folder of this machine, and keeps its outputs."""
    copy = Path(shutil.copy(NOTEBOOK, project))
    subprocess.run([sys.executable, *EXECUTE, str(copy)], cwd=project, check=True)
    shutil.copy(copy, NOTEBOOK)


if __name__ == "__main__":
    main()
