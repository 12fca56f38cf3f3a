"""Pages whose tables are drawn from results files show what the files hold."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS.parent / "benchmarks" / "results"


SCRIPTS = (
    "architectures",
    "ask_less_tables",
    "budget_tables",
    "calibration_tables",
    "mini_tables",
    "performance_tables",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_page_shows_the_tables_of_its_results(script: str) -> None:
    drawing = runpy.run_path(str(DOCS / f"{script}.py"))
    page = drawing["PAGE"].read_text(encoding="utf-8")
    assert drawing["with_tables"](page) == page, f"run: python docs/{script}.py"
    drawn = drawing["blocks"]()
    assert page.count(f": python docs/{script}.py -->") == len(drawn)
    for name, lines in drawn.items():
        emptied = page.replace(lines.strip(), "")
        assert emptied != page, name
        assert drawing["with_tables"](emptied) == page


def test_recommendations_are_as_good_as_the_page_says() -> None:
    """The rows of ``nested`` on the page are those of the results file, all of them."""
    kept = json.loads((RESULTS / "2026-12-01-recommend.json").read_text(encoding="utf-8"))["parts"]
    columns = ("ndcg", "regret@1", "regret@3", "mean_regret@5", "spearman", "coverage")
    rows = {
        " | ".join(f"{part['table']['nested'][column]:.2f}" for column in columns)
        for part in kept.values()
        if "nested" in part.get("table", {})
    }
    page = (DOCS / "recommend.md").read_text(encoding="utf-8")
    shown = re.findall(r"\*\*nested\*\* \| (.*) \|", page)
    assert set(shown) == rows
