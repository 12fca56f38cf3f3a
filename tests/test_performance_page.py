"""The page of performance says what the results files say."""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_table_is_that_of_the_newest_results() -> None:
    tables = runpy.run_path(str(ROOT / "docs" / "performance_tables.py"))
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert tables["with_tables"](page) == page, "run python docs/performance_tables.py"


def test_results_say_when_where_and_by_which_command() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["command"].startswith("python benchmarks/"), path
        assert found["date"], path
        assert found["machine"], path
        assert found["versions"]["torch"], path
