"""`mlflow models serve` on a run's logged model answers as `predict` does, over HTTP, as docs/compare.md has it."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import trainings
from PIL import Image, ImageDraw
from samples import REPO

from mnist_exp.config import Config
from mnist_exp.disk.files import read_json
from mnist_exp.evaluate import predictions
from mnist_exp.tracking.runs import publish
from mnist_exp.tracking.store import Store


@pytest.mark.slow  # starts a server, which imports mlflow and torch
@pytest.mark.filterwarnings("ignore:.*AnyType:UserWarning")  # from mlflow.genai, which mlflow.pyfunc imports
def test_a_served_model_answers_as_predict_does(
    tiny: Callable[..., Config], mlflow_store: Callable[[str], Store], scratch: Path
) -> None:
    folder = scratch / "outputs" / "runs" / "run"
    trainings.run(tiny(tracking={"enabled": True}, checkpoint={"model": True}), folder)
    publish(folder, mlflow_store("mnist_exp"))
    picture = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(picture).line((20, 10, 40, 50), fill=0, width=6)
    picture.save("seven.png")
    (line,) = predictions.lines(folder, [Path("seven.png")], as_json=True)
    page = (REPO / "docs" / "compare.md").read_text()
    exec(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0])  # writes seven.json
    (served_as,) = re.findall(r"^mlflow models serve (.*)$", page, re.MULTILINE)
    (asked,) = re.findall(r"^curl (.*)$", page, re.MULTILINE)
    assert "`runs:/<run id>/model`" in page

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # mlflow.pytorch takes in Lightning where it is installed, which may be for another torch; a model needs none.
    (scratch / "hide").mkdir()
    (scratch / "hide" / "sitecustomize.py").write_text(
        "import sys\nsys.modules['lightning'] = sys.modules['pytorch_lightning'] = None\n"
    )
    environ = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/mlflow.db",
        "PYTHONPATH": os.pathsep.join([str(scratch / "hide"), os.environ["PYTHONPATH"]]),
    }
    uri = f"runs:/{read_json(folder / 'mlflow.json')['run_id']}/model"
    options = served_as.replace("models:/digits/latest", uri).replace("5001", str(port))
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", "serve", *options.split()],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        assert asked == "-s -H 'Content-Type: application/json' -d @seven.json http://127.0.0.1:5001/invocations"
        answer = post(f"http://127.0.0.1:{port}/invocations", Path("seven.json").read_text(), server)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=30)
    (served,) = answer["predictions"]
    assert served == pytest.approx(json.loads(line)["probabilities"], abs=1e-5)


def post(address: str, body: str, server: "subprocess.Popen[bytes]") -> dict[str, list[list[float]]]:
    """The answer to *body*, as soon as *server* gives one."""
    request = urllib.request.Request(address, body.encode(), {"Content-Type": "application/json"})
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                logits: dict[str, list[list[float]]] = json.load(answer)
                return logits
        except urllib.error.HTTPError as error:
            pytest.fail(error.read().decode())
        except OSError:
            assert server.poll() is None, server.stdout and server.stdout.read().decode()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.3)
