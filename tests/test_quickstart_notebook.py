"""The example notebook runs from top to bottom, offline, on a small run, and shows its tables."""

from __future__ import annotations

import os
import re
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


def test_the_notebook_is_kept_with_its_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.outputs for cell in code)
    assert not [one for cell in code for one in cell.outputs if one["output_type"] == "error"]
    assert NOTEBOOK.stat().st_size < 150_000
    assert max(len(line) for cell in notebook.cells for line in cell.source.splitlines()) <= 110
    assert str(Path.home()) not in NOTEBOOK.read_text(encoding="utf-8")


def colours(html: str) -> list[tuple[float, float]]:
    """(points, depth of its colour, orange below 0) of every entry that shows such a gain in colour."""
    found = re.findall(r"background:rgba\((23|201),[^)]*,([.\d]+)\)[^>]*>([+-]\d+\.\d)(?!\d)", html)
    return [
        (float(number), (float(depth) - 0.08) * (1 if hue == "23" else -1)) for hue, depth, number in found
    ]


def test_tables_of_gains_share_one_colour_scale() -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shown = [
        (cell.source, one["data"]["text/html"])
        for cell in notebook.cells
        for one in cell.get("outputs", [])
        if "text/html" in one.get("data", {})
    ]
    tables = [colours(html) for source, html in shown if "traits" not in source and colours(html)]
    assert len(tables) == 3  # the matrix, a recommendation, and the matrix as a table of scores
    gains = [entry for table in tables for entry in table if abs(entry[0]) <= 50]
    assert all(abs(depth - 0.42 * number / 50) < 0.0051 for number, depth in gains)
