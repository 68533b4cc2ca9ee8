"""Every notebook runs from a bare directory, and the copy in the repository was run too."""

import os
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import install
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook) -> list[str]:
    """PNGs in base64."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def test_notebooks_are_found():
    assert "losses" in {path.stem for path in NOTEBOOKS}


@pytest.fixture
def kernel(tmp_path, monkeypatch) -> str:
    """The name of a kernel that is this interpreter, whatever "python3" is to the user's Jupyter."""
    install(prefix=str(tmp_path))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")  # it computes for longer than it compiles
    monkeypatch.delenv("MPLBACKEND", raising=False)  # set, it would keep pictures out of the notebook
    return "python3"


@notebooks
def test_notebook_runs_and_draws(path, kernel, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    drawn = len(pictures(notebook))
    client = NotebookClient(notebook, timeout=300, kernel_name=kernel, resources={"metadata": {"path": str(tmp_path)}})
    failure = ""
    try:
        client.execute()
    except CellExecutionError as error:
        failure = str(error)  # the cell and its traceback
    if failure:
        pytest.fail(failure, pytrace=False)
    assert len(pictures(notebook)) == drawn > 0
    complaints = [o.text for cell in code_cells(notebook) for o in cell.outputs if o.get("name") == "stderr"]
    assert not complaints


@notebooks
def test_notebook_is_kept_executed_and_clean(path):
    """So that it can be read on the web, and says nothing of the machine that ran it."""
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.output_type for cell in cells for output in cell.outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert all(len(picture) > 5000 for picture in pictures(notebook)), "a picture is blank"
    assert notebook.metadata.kernelspec == {"name": "python3", "display_name": "Python 3", "language": "python"}
    assert not any(cell.metadata for cell in notebook.cells)
    assert not any(trace in text for trace in ("/home/", "/tmp/", "/work/", "/root/", "/Users/", str(ROOT)))
    assert len(text) < 1_500_000
