"""Docstrings for the site: lines ``name: what it is`` become list items, double backticks single ones."""

from __future__ import annotations

import re
from typing import Any

import griffe

_FIELD = re.compile(r"^([A-Za-z_]\w*(?:, [A-Za-z_*]\w*\*?)*): ", re.MULTILINE)


def as_markdown(said: str) -> str:
    """The docstring in the Markdown of the site."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", said):
        if _FIELD.match(paragraph):
            items = re.sub(r"\n\s+", " ", paragraph)
            paragraph = _FIELD.sub(lambda names: f"- `{names[1].replace(', ', '`, `')}`: ", items)
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs).replace("``", "`")


class DocstringLists(griffe.Extension):
    """Rewrites every docstring that griffe reads."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
