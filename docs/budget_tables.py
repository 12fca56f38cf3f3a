"""The tables of docs/budget.md, drawn from what benchmarks/budget.py kept.

python docs/budget_tables.py          # writes them into the page
python docs/budget_tables.py --check  # fails where the page shows something else
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from traitmap.report.terminal_runs import spent_of_whole

sys.path.insert(0, str(Path(__file__).parent))

from page_blocks import table, with_blocks, write_pages

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "budget.md"
RESULTS = ROOT / "benchmarks" / "results" / "2026-12-01-budget.json"
TABLES = {
    "mini": "embedded study",
    "real-smollm2": "SmolLM2-135M",
    "real-gemma3": "Gemma 3 270M",
    "TaskWeb T5-large": "TaskWeb T5-large",
}


def interval(found: Mapping[str, float], digits: int = 2) -> str:
    """Mean with its 95 % interval."""
    return f"{found['mean']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def settings(records: Mapping[str, Any], setting: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name of every table, texts known or not, with what was replayed of one setting."""
    for name, title in TABLES.items():
        for kind in ("texts", "no texts"):
            words = title if kind == "texts" else f"{title}, no texts"
            yield words, records["tables"][f"{name}, {kind}"]["settings"][setting]


def whole_and_lost(less: Mapping[str, Any]) -> tuple[str, str]:
    """Two differences with their intervals: error over the whole table, points lost by the best source."""
    return interval(less["completion, whole"]), interval(less["completion, lost"], 1)


def cells(records: Mapping[str, Any]) -> Iterator[str]:
    """A quarter of the cells, drawn or chosen."""
    rows = []
    for words, found in settings(records, "cells"):
        drawn, chosen = found["choices"]["random"], found["choices"]["chosen"]
        less = found["less random"]["chosen"]
        rows.append(
            (
                words,
                f"{drawn['completion, hidden']['mean']:.2f}",
                f"{chosen['completion, hidden']['mean']:.2f}",
                *whole_and_lost(less),
                f"{100 * drawn['coverage']['mean']:.0f}; {100 * chosen['coverage']['mean']:.0f} %",
            )
        )
    heads = ("", "drawn", "chosen", "chosen less drawn, whole table", "points lost", "90 % intervals hold")
    yield from table(heads, rows)


def adapters(records: Mapping[str, Any]) -> Iterator[str]:
    """A quarter of the training, by three rules."""
    rows = []
    for words, found in settings(records, "adapters"):
        drawn, less = found["choices"]["random"], found["less random"]
        for rule, name in (("cheapest first", "cheapest"), ("largest variance", "largest variance")):
            if rule in less:
                rows.append(
                    (
                        f"{words}: {name}",
                        f"{drawn['completion, hidden']['mean']:.2f}",
                        interval(less[rule]["completion, hidden"]),
                        *whole_and_lost(less[rule]),
                        f"{100 * found['choices'][rule]['coverage']['mean']:.0f} %",
                    )
                )
    heads = ("", "drawn", "less drawn, hidden cells", "whole table", "points lost", "90 % intervals hold")
    yield from table(heads, rows)


def rivals(records: Mapping[str, Any]) -> Iterator[str]:
    """Error on the hidden cells of drawn ones, by three ways of completing a table."""
    rows = []
    for words, found in settings(records, "cells"):
        drawn = found["choices"]["random"]
        ways = ("completion", "shrunk means", "softImpute")
        rows.append((words, *(interval(drawn[f"{way}, hidden"]) for way in ways)))
    yield from table(("", "our completion", "shrunk row and column means", "softImpute"), rows)


def items(records: Mapping[str, Any]) -> Iterator[str]:
    """The base asked whole in place of the same part as the adapters."""
    rows = []
    for name, title in TABLES.items():
        for budget, found in records["items"].get(name, {}).items():
            less = found["less fixed draw"]["base whole"]
            rows.append(
                (
                    f"{title}, {100 * float(budget):.0f} %",
                    f"{found['choices']['fixed draw']['measured, points']['mean']:.1f}",
                    interval(less["measured, points"], 1),
                    *whole_and_lost(less),
                )
            )
    heads = ("", "fixed draw", "base whole less fixed draw, measured cells", "whole table", "points lost")
    yield from table(heads, rows)


def run(records: Mapping[str, Any]) -> Iterator[str]:
    """A run of the embedded study on a budget: what it spent, and how far it is from the full one."""
    found = records["run"]
    spent = found["spent"]
    rows = [
        (name, f"{used:,.0f}", f"{whole:,.0f}", f"{100 * used / whole:.0f} %")
        for name, used, whole in spent_of_whole(spent)
    ]
    yield from table(("", "on the budget", "in full", "share"), rows)
    yield ""
    measured = len(spent["items"]) * spent["adapters"][1] - found["predicted"]
    rows = [
        (f"{measured} measured gains: root mean square error", f"{found['measured off, points']:.1f} points"),
        ("their 95 % intervals hold", f"{100 * found['measured inside']:.0f} %"),
        (
            f"{found['predicted']} predicted gains: root mean square error",
            f"{found['predicted off, points']:.1f} points (of 0 in their place {found['gains, points']:.1f})",
        ),
        ("their 90 % intervals hold", f"{100 * found['predicted inside']:.0f} %"),
        ("best source of a target, lost against the full run", f"{found['lost']:.1f} points"),
        (
            "best source that is not the target's own",
            f"{found['other lost']:.1f} points (a source in the middle: {found['middle other lost']:.1f})",
        ),
    ]
    yield from table(("against the full run", ""), rows)


def blocks() -> dict[str, str]:
    """Name -> the lines of every block of the page."""
    records = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {part.__name__: "\n".join(part(records)) for part in (cells, adapters, rivals, items, run)}


def with_tables(page: str) -> str:
    """The page with all blocks as the records have them."""
    return with_blocks(page, "budget_tables", blocks())


if __name__ == "__main__":
    write_pages([PAGE], "budget_tables", blocks())
