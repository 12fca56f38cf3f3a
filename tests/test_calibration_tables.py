"""The calibration tables of the page on explanations are those of the results file."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_holds_the_newest_results():
    page = (DOCS / "explanation.md").read_text(encoding="utf-8")
    tables = runpy.run_path(str(DOCS / "calibration_tables.py"))
    assert tables["with_tables"](page) == page, "run: python docs/calibration_tables.py"
