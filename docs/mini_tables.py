"""The tables of docs/mini.md, drawn from the records of the embedded study.

python docs/mini_tables.py          # writes them into the page
python docs/mini_tables.py --check  # fails where the page shows something else

The records in benchmarks/results are written by benchmarks/mini_sweep.py and benchmarks/mini_planted.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from traitmap.analysis.verdicts import GLYPHS

sys.path.insert(0, str(Path(__file__).parent))

from page_blocks import table, with_blocks, write_pages

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "mini.md"
RESULTS = ROOT / "benchmarks" / "results"


def planted(records: Mapping[str, Any]) -> Iterator[str]:
    """What was planted, what should be found, the command that shows it, and what each seed found."""
    seeds = records["seeds"]
    rows = []
    for truth in records["truths"]:
        found = [seed["truths"][truth["planted"]] for seed in seeds.values()]
        verdict = "found" if all(one["right"] for one in found) else "**missed**"
        shown = [one["found"] + ("" if one["right"] else " (missed)") for one in found]
        rows.append((truth["planted"], f"{truth['expected']}; {truth['command']}", *shown, verdict))
    yield from table(("planted", "to be found; by", *(f"seed {name}" for name in seeds), "verdict"), rows)


def pairs(records: Mapping[str, Any]) -> Iterator[str]:
    """What the fit over all pairs says of answer words, seed by seed."""
    rows = [(f"seed {name}", seed["alike in answer words"]) for name, seed in records["seeds"].items()]
    yield from table(("pairs alike in answer words gain more", "by `traitmap explain`, WHY"), rows)


def matrix(records: Mapping[str, Any]) -> Iterator[str]:
    """Gains of the first seed with the sign of their verdict; points, or bits per byte."""
    name, seed = next(iter(records["seeds"].items()))
    sources = list(dict.fromkeys(cell["source"] for cell in seed["cells"]))
    cells = {(cell["source"], cell["target"]): cell for cell in seed["cells"]}
    rows = []
    for target, base in seed["base"].items():
        shares = cells[sources[0], target]["unit"] == "points"
        first = f"{100 * base:.1f}" if shares else f"{base:.2f}"
        rows.append((target, first, *(_gain(cells[source, target]) for source in sources)))
    yield from table((f"seed {name}", "base", *sources), rows)


def _gain(cell: Mapping[str, Any]) -> str:
    """``+12.5▲``"""
    number = f"{cell['gain']:+.1f}" if cell["unit"] == "points" else f"{cell['gain']:+.2f}"
    return f"{number}{GLYPHS[cell['kind']]}"


def settings(records: Mapping[str, Any]) -> Iterator[str]:
    """What steps and rates gave on the validation rows of each source, the chosen one in bold."""
    sources = records["sources"]
    tried = list(next(iter(sources.values()))["settings"])
    rows = []
    for name, source in sources.items():
        scores = [f"{source['settings'][setting]['score']:.2f}" for setting in tried]
        marked = [
            f"**{score}**" if setting == source["chosen"] else score
            for setting, score in zip(tried, scores, strict=True)
        ]
        rows.append((name, f"{source['base']:.2f}", *marked))
    yield from table(("source", "base", *tried), rows)


def blocks() -> dict[str, str]:
    """Name -> the lines of every block of the page."""
    found = json.loads((RESULTS / "mini-planted.json").read_text(encoding="utf-8"))
    sweep = json.loads((RESULTS / "mini-sweep.json").read_text(encoding="utf-8"))
    return {
        "planted": "\n".join(planted(found)),
        "pairs": "\n".join(pairs(found)),
        "matrix": "\n".join(matrix(found)),
        "settings": "\n".join(settings(sweep)),
    }


def with_tables(page: str) -> str:
    """The page with all blocks as the records have them."""
    return with_blocks(page, "mini_tables", blocks())


if __name__ == "__main__":
    write_pages([PAGE], "mini_tables", blocks())
