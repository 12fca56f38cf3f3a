"""One line for each file of the package, from its own docstring, into docs/architecture.md.

python docs/files.py          # rewrites the list in docs/architecture.md
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- files: python docs/files.py -->", "<!-- end of files -->"


def listing() -> str:
    """The files in their layers' order, as a Markdown list."""
    package = ROOT / "src" / "traitmap"
    lines = []
    for path in sorted(package.rglob("*.py"), key=lambda path: (len(path.relative_to(package).parts), path)):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if path.name != "__init__.py" or path.parent == package:
            lines.append(f"- `{path.relative_to(package)}` {docstring.partition(chr(10))[0]}".rstrip())
    return "\n".join(lines)


def with_listing(page: str) -> str:
    """The page with the list as it is now."""
    before, rest = page.split(START)
    return f"{before}{START}\n\n{listing()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_listing(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
