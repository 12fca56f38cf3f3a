"""The example notebook runs from top to bottom, offline, on a small run, and shows its tables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"


def test_the_notebook_runs(prepared_run: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="notebooks need nbclient, which traitmap[dev] brings")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="notebooks need ipykernel, which traitmap[dev] brings")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    before = os.environ.get("TRAITMAP_RUN")
    os.environ["TRAITMAP_RUN"] = str(prepared_run)
    try:
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    finally:
        os.environ.pop("TRAITMAP_RUN")
        if before is not None:
            os.environ["TRAITMAP_RUN"] = before
    shown = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    tables = [one["data"]["text/html"] for one in shown if "text/html" in one.get("data", {})]
    assert len(tables) == 5
    assert all("<table" in one for one in tables)
    assert not [one for one in shown if one["output_type"] == "error"]


def test_the_notebook_is_kept_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
