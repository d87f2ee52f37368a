"""The tutorial's notebook has its steps, runs from top to bottom, and its lines stay readable."""

import json
import re
from pathlib import Path

import pytest
from data_fixtures import torchvision_fault
from samples import CACHE, MNIST, REPO

NOTEBOOK = REPO / "docs" / "notebook.ipynb"


def cells(kind: str) -> list[str]:
    """The text of each cell of that kind."""
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_the_notebook_has_the_steps_and_the_script_of_the_tutorial() -> None:
    tutorial = (REPO / "docs" / "tutorial.md").read_text()
    steps = re.compile(r"^## \d\. .*$", re.MULTILINE)
    assert steps.findall("\n".join(cells("markdown"))) == steps.findall(tutorial)
    assert len(steps.findall(tutorial)) == 7
    (script,) = (cell for cell in cells("code") if cell.startswith("%%writefile first.py\n"))
    assert script.partition("\n")[2].replace("EPOCHS = 3", "EPOCHS = 10") in tutorial


def test_the_notebook_is_kept_with_its_outputs_and_names_no_machine() -> None:
    text = NOTEBOOK.read_text()
    kept = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in kept[1:])  # the first has only imports
    assert not any(word in text for word in ("/home/", "/root/", "/tmp/", "Traceback"))


@pytest.mark.slow  # trains 29 networks in a kernel of its own
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not (MNIST / "verified.json").exists(), reason="python -m mnist_exp.data fetch was not run")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from the kernel's libraries
@pytest.mark.long
def test_the_notebook_runs(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="the extra `notebook` is not installed")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    if fault := torchvision_fault():
        pytest.skip(fault)
    (scratch / "data" / "MNIST").mkdir(parents=True)
    (scratch / "data" / "MNIST" / "raw").symlink_to(MNIST)  # as torchvision would
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell["outputs"] = []
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(scratch)}}).execute()

    said = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
    assert said.count("Epoch 3/3, Train Loss: ") == 1 + 1 + 5  # the script, the run, the ideas
    assert said.count("[6/6] hidden=") == 1  # of the sweep
    assert said.count(" best: validation accuracy") == 3  # of the sweep, with more seeds, and of the search
    assert "\r" not in said.replace("\r\n", "\n")  # a notebook keeps what a terminal would overwrite
    assert "\x1b[2K" not in said
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(pictures) == 3
    assert len(list((scratch / "outputs").glob("*s/*/**/ledger.json"))) == 6 + 14 + 8
