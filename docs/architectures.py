"""The page of architectures, from the catalogue that the tests walk.

python docs/architectures.py          # rewrites the table of docs/architectures.md
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architectures.md"
sys.path.insert(0, str(ROOT / "tests"))

from tiny_architectures import CATALOGUE, Architecture  # noqa: E402

START, END = "<!-- table: python docs/architectures.py -->", "<!-- end -->"


def row(kind: Architecture) -> str:
    """A line of the table: models, class, how rows are computed, how texts grow, what PEFT alone adapts."""
    rows, texts = ("–", "–") if kind.refused else kind.way
    left = ", ".join(f"`{name}`" for name in kind.peft_only)
    result = f"refused: {kind.refused}" if kind.refused else "right"
    return (
        f"| {kind.models} | `{kind.config.removesuffix('Config')}` | {rows} | {texts} | {left} | {result} |"
    )


def page() -> str:
    """The page with the table as the catalogue has it."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    head = "| models | class | rows | texts | adapted by PEFT only | |\n|---|---|---|---|---|---|"
    lines = [row(kind) for kind in CATALOGUE.values()]
    return f"{before}{START}\n{head}\n" + "\n".join(lines) + f"\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
