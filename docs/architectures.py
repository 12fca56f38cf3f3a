"""The page of architectures, from the catalogue that the tests walk.

python docs/architectures.py          # writes the table into the page
python docs/architectures.py --check  # fails where the page shows something else
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architectures.md"
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests")]

from page_blocks import table, with_blocks, write_pages  # noqa: E402

from tiny_architectures import CATALOGUE, Architecture  # noqa: E402


def row(kind: Architecture) -> tuple[str, ...]:
    """A line of the table: models, class, how rows are computed, how texts grow, what PEFT alone adapts."""
    rows, texts = ("–", "–") if kind.refused else kind.way
    left = ", ".join(f"`{name}`" for name in kind.peft_only)
    result = f"refused: {kind.refused}" if kind.refused else "right"
    return kind.models, f"`{kind.config.removesuffix('Config')}`", rows, texts, left, result


def blocks() -> dict[str, str]:
    """The table of the catalogue, the one block of the page."""
    head = ("models", "class", "rows", "texts", "adapted by PEFT only", "")
    return {"catalogue": "\n".join(table(head, [row(kind) for kind in CATALOGUE.values()]))}


def with_tables(page: str) -> str:
    """The page with the table as the catalogue has it."""
    return with_blocks(page, "architectures", blocks())


if __name__ == "__main__":
    write_pages([PAGE], "architectures", blocks())
