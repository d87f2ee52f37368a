"""An MLflow server and a browser for its pages, shared by docs/screenshots.py and tests/services/test_browser.py.

Needs the extra `browser` and Debian's packages chromium and chromium-driver.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
PATIENCE = 60  # seconds for a server to start, on a busy machine


@contextlib.contextmanager
def mlflow_ui(project: Path) -> Iterator[str]:
    """Runs `mlflow ui` in the folder *project*, with only the port set; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI")}
    environment |= {
        "MLFLOW_WORKERS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }  # the default takes twice as long
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", "--port", port],
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health") as answer:
                assert answer.status == 200
                break
            assert process.poll() is None, "mlflow ui has ended"
            assert time.monotonic() < deadline, "mlflow ui does not answer"
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)


@contextlib.contextmanager
def chromium(width: int = 1600, height: int = 1000, dark: bool = False) -> Iterator[webdriver.Chrome]:
    """Chromium with a new profile and a window of *width* by *height* pixels.

    Below 500 pixels it emulates a phone. This and *dark* hold for its first tab only.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            if width < 500:  # the minimum width of a window
                size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
            yield browser
        finally:
            browser.quit()
