"""Blocks of a page that a script draws, from ``<!-- NAME: python docs/SCRIPT.py -->`` to its end."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

Row = Sequence[str]


def table(head: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Lines of a Markdown table, its first column to the left."""
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def with_blocks(page: str, script: str, drawn: Mapping[str, str]) -> str:
    """The page with the blocks of one script as they are drawn. drawn: name -> text of each block."""
    block = re.compile(
        rf"(<!-- ([\w-]+): python docs/{script}\.py -->\n).*?(<!-- end of [\w-]+ -->)", re.DOTALL
    )
    return block.sub(lambda found: f"{found[1]}\n{drawn[found[2]].strip()}\n\n{found[3]}", page)


def write_pages(pages: Sequence[Path], script: str, drawn: Mapping[str, str]) -> None:
    """Draw the blocks of one script into its pages; with ``--check`` only name what would change."""
    before = {page: page.read_text(encoding="utf-8") for page in pages}
    after = {page: with_blocks(text, script, drawn) for page, text in before.items()}
    changed = [page for page in pages if after[page] != before[page]]
    if "--check" in sys.argv[1:] and changed:
        names = ", ".join(page.name for page in changed)
        sys.exit(f"{names}: other than the records; run: python docs/{script}.py")
    for page in changed:
        page.write_text(after[page], encoding="utf-8")
