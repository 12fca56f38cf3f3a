"""Fenced blocks of Markdown, whether they are run, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:^[ ]*<!-- not run: (?P<reason>[^\n]+?) -->\n)?"
    r"^(?P<indent>[ ]*)```(?P<kind>[a-z]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """place: file and line. kind: what stands behind the fence. reason: why it is not run, or empty."""

    place: str
    kind: str
    body: str
    reason: str

    @property
    def commands(self) -> list[list[str]]:
        """Words of every ``traitmap`` command in it, comments taken off."""
        lines = (line.split("  #")[0].strip() for line in self.body.replace("\\\n", " ").splitlines())
        words = (shlex.split(line, comments=True) for line in lines if line.startswith("traitmap "))
        return [one[1:] for one in words]


def blocks_of(path: Path) -> list[Block]:
    """All blocks of one file, in order."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("kind")) + 1
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        found.append(Block(f"{path.name}:{line}", match["kind"], body, match["reason"] or ""))
    return found
