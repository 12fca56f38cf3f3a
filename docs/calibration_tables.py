"""The calibration tables of docs/explanation.md, out of benchmarks/results/*-calibration.json.

python docs/calibration_tables.py          # writes them into the page, from the newest file
python docs/calibration_tables.py --check  # fails where the page shows something else
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from page_blocks import with_blocks, write_pages

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation.md"
ZERO = ("zero", "items")  # parts where nothing is to be called: 5 % of verdicts, 95 % of intervals
NO_TESTS = ("a source taken for a copy", "not monotone")  # how often they are said has no right rate
LOW, HIGH = 3.0, 7.0  # per cent called at 5 %, and missed by 95 % intervals, that need no word


def newest() -> Path:
    """The results file of the last calibration."""
    return max((ROOT / "benchmarks" / "results").glob("*-calibration.json"))


def tables(path: Path) -> str:
    """Every part as a table, a row for each verdict, and what lies outside 3 to 7 %."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    link = f"[{path.name}](../benchmarks/results/{path.name})"
    lines = [
        f"From {link} (`{kept['command']}`, {kept['date']}). Per cent of studies, in brackets the standard "
        "error; 5 is right for verdicts and 95 for intervals."
    ]
    for part, rows in kept["parts"].items():
        rows = {name: row for name, row in rows.items() if row["studies"]}
        if rows:
            lines += ["", *_table(part, rows)]
    return "\n".join([*lines, "", *_outside(kept["parts"])])


def _table(part: str, rows: dict[str, Any]) -> list[str]:
    verdicts = list(dict.fromkeys(verdict for row in rows.values() for verdict in row["rates"]))
    heads = [f"{name} ({row['studies']})" for name, row in rows.items()]
    lines = [f"| {part} (studies) | " + " | ".join(heads) + " |", "|---" * (len(rows) + 1) + "|"]
    for verdict in verdicts:
        entries = [_entry(row["rates"].get(verdict)) for row in rows.values()]
        lines.append(f"| {verdict} | " + " | ".join(entries) + " |")
    return lines


def _entry(rate: dict[str, float] | None) -> str:
    if rate is None or not rate["n"]:
        return ""
    return f"{100 * rate['mean']:.1f} ({_error(rate):.1f})"


def _error(rate: dict[str, float]) -> float:
    """Standard error in per cent; where no study, or every one, is called, of one that would be."""
    spread = rate["sd"] or (1 / (rate["n"] + 2)) ** 0.5
    return 100 * float(spread / rate["n"] ** 0.5)


def _outside(parts: dict[str, Any]) -> list[str]:
    """What is called too often, too seldom, and which intervals are too short or too wide."""
    told: dict[str, list[str]] = {"too often": [], "too seldom": [], "too short": [], "too wide": []}
    for part in ZERO:
        for name, row in parts.get(part, {}).items():
            for verdict, rate in row["rates"].items():
                if verdict in NO_TESTS:
                    continue
                interval = "interval" in verdict
                rates = 100 * (1 - rate["mean"] if interval else rate["mean"])
                if rates > HIGH or rates < LOW:
                    kind = ("too short", "too wide") if interval else ("too often", "too seldom")
                    told[kind[rates < LOW]].append(f"{verdict} ({name}) {_entry(rate)}")
    words = {
        "too often": "Called more often than 7 %",
        "too seldom": "Called less often than 3 % (power is lost, nothing false is said)",
        "too short": "Intervals that hold the truth in less than 93 %",
        "too wide": "Intervals that hold it in more than 97 %",
    }
    return [f"- {words[kind]}: {'; '.join(names) if names else 'none'}." for kind, names in told.items()]


def blocks() -> dict[str, str]:
    """The tables of the newest results, the one block of the page."""
    return {"calibration": tables(newest())}


def with_tables(page: str) -> str:
    """The page with the tables of the newest results."""
    return with_blocks(page, "calibration_tables", blocks())


if __name__ == "__main__":
    write_pages([PAGE], "calibration_tables", blocks())
