"""Every notebook runs from top to bottom, and is committed without outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A function that runs a notebook with this interpreter, whatever kernels the machine has."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    write_kernel_spec(str(tmp_path / "kernels" / "python3"))
    kernels = KernelSpecManager(kernel_dirs=[str(tmp_path / "kernels")], ensure_native_kernel=False)
    assert kernels.get_kernel_spec("python3").argv[0] == sys.executable

    def run(notebook, folder):
        client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
        client.create_kernel_manager()
        client.km.kernel_spec_manager = kernels
        client.km._kernel_spec = None
        return client.execute()

    return run


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [c.source for c in notebook.cells if c.cell_type == "code" and (c.outputs or c.execution_count)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, client):
    """No cell fails, and tables, drawings and a figure are in the outputs."""
    done = client(nbformat.read(path, as_version=4), path.parent.parent)
    data = [out["data"] for cell in done.cells if cell.cell_type == "code" for out in cell.outputs if "data" in out]
    assert any("<table" in one.get("text/html", "") for one in data)
    assert any("<svg" in one.get("text/html", "") for one in data)
    assert any("image/png" in one for one in data)
