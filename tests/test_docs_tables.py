"""Pages whose tables are drawn from results files show what the files hold."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("script", ["ask_less_tables"])
def test_the_page_shows_the_tables_of_its_results(script: str) -> None:
    drawing = runpy.run_path(str(DOCS / f"{script}.py"))
    page = drawing["PAGE"].read_text(encoding="utf-8")
    assert drawing["with_tables"](page) == page, f"run: python docs/{script}.py"
    drawn = drawing["blocks"]()
    assert page.count(f": python docs/{script}.py -->") == len(drawn)
    for name, lines in drawn.items():
        emptied = page.replace(lines, "")
        assert emptied != page, name
        assert drawing["with_tables"](emptied) == page
