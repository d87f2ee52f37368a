"""The example notebook runs from top to bottom, and its lines stay readable."""

import json
from pathlib import Path

import pytest
from samples import CACHE, MNIST, REPO

NOTEBOOK = REPO / "docs" / "notebook.ipynb"


def test_the_notebook_is_kept_with_its_outputs_and_names_no_machine() -> None:
    text = NOTEBOOK.read_text()
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells[1:])  # the first has only imports
    assert not any(word in text for word in ("/home/", "/root/", "/tmp/", "Traceback"))


@pytest.mark.slow  # trains four networks in a kernel of its own
@pytest.mark.skipif(not (MNIST / "verified.json").exists(), reason="python -m mnist_exp.data fetch was not run")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from the kernel's libraries
def test_the_notebook_runs(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="the extra `notebook` is not installed")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell["outputs"] = []
    nbclient.NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(scratch)}}).execute()

    said = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
    assert said.count("Epoch 3/3, Train Loss: ") == 1
    assert said.count("[3/3] hidden=") == 1  # of the sweep
    assert "\r" not in said.replace("\r\n", "\n")  # a notebook keeps what a terminal would overwrite
    assert "\x1b[2K" not in said
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(pictures) == 3
    assert len(list((scratch / "outputs").glob("*s/*/**/ledger.json"))) == 4
