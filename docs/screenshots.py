"""Makes the pictures of MLflow's pages in docs/images anew, with one command:

    python docs/screenshots.py

It trains hidden=256 (10 epochs) and a sweep of six runs (2 epochs) on the real MNIST in a temporary folder,
starts a bare `mlflow ui` there, and photographs it in headless Chromium: two minutes on two cores. Needs the
extra `browser` and Debian's packages chromium and chromium-driver.
"""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 1280, 1400
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--window-size={WIDTH},{HEIGHT}",
)
TRAIN = [sys.executable, "-m", "mnist_exp.train"]
SWEEP = ["-m", "hidden=64,128,256", "lr=1e-3,3e-3", "epochs=2"]


def main() -> None:
    """Trains, looks, and writes the pictures."""
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        }
        environment.pop("MLFLOW_TRACKING_URI", None)
        for typed in (["hidden=256"], SWEEP):
            subprocess.run([*TRAIN, *typed], cwd=project, env=environment, check=True)
        (single,) = notes(project, "runs/*/*")
        (sweep,) = notes(project, "sweeps/*/*")
        swept = notes(project, "sweeps/*/*/*")
        pair = [swept[0]["run_id"], swept[-1]["run_id"]]
        with interface(project, environment) as address, chromium() as browser:
            photograph(browser, f"{address}/{single['page']}", "Metrics", "mlflow-run.png")
            charts = f"{address}/{sweep['page']}&compareRunsMode=CHART"
            photograph(browser, charts, "Parallel Coordinates", "mlflow-sweep.png")
            runs, experiments = quote(json.dumps(pair)), quote(json.dumps([sweep["experiment_id"]]))
            compared = f"{address}/#/compare-runs?runs={runs}&experiments={experiments}&workflowType=machine_learning"
            photograph(browser, compared, "Show diff only", "mlflow-compare.png")


def notes(project: Path, where: str) -> list[dict[str, str]]:
    """What was noted about MLflow in the folders that *where* names, in order."""
    return [json.loads(path.read_bytes()) for path in sorted(project.glob(f"outputs/{where}/mlflow.json"))]


@contextlib.contextmanager
def interface(project: Path, environment: dict[str, str]) -> Iterator[str]:
    """`mlflow ui` in *project*; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "ui", "--port", port]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=project, env=environment, start_new_session=True, **quiet)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health"):
                break
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@contextlib.contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser whose owner has put MLflow's assistant away."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
        try:
            yield browser
        finally:
            browser.quit()


def photograph(browser: webdriver.Chrome, address: str, awaited: str, name: str) -> None:
    """Writes docs/images/*name* once the page at *address* shows the text *awaited*."""
    browser.switch_to.new_window("tab")  # a changed hash alone would leave parts of the page before
    browser.get(address)
    WebDriverWait(browser, 60).until(lambda page: awaited in page.find_element(By.TAG_NAME, "body").text)
    for label in ("Close", "Hide banner"):
        for button in browser.find_elements(By.CSS_SELECTOR, f"button[aria-label='{label}']"):
            button.click()
    for switch in browser.find_elements(By.XPATH, "//label[.='Show diff only']"):
        switch.click()
    browser.execute_script("document.querySelectorAll('*').forEach(part => part.scrollTop = 0)")
    time.sleep(4)  # charts are drawn, and grow
    (HERE / "images").mkdir(exist_ok=True)
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
    picture.convert("RGB").save(HERE / "images" / name, optimize=True)


if __name__ == "__main__":
    main()
