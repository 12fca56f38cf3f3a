"""Foreign text on a terminal: names and texts of data may hold characters that steer it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

# escape sequences (C0 and C1, all but newline and tab), and marks that turn the direction of writing
_CODES = (
    *(code for code in range(0x20) if chr(code) not in "\n\t"),
    *range(0x7F, 0xA0),
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
)
_STEERING = dict.fromkeys(_CODES, "\ufffd")
_IN_JSON = {code: f"\\u{code:04x}" for code in _STEERING if code >= 0x7F}  # json escapes those below


def printable(text: str) -> str:
    """The text with every character that steers a terminal replaced by the sign for an unknown one."""
    return text.translate(_STEERING)


def printable_json(text: str) -> str:
    """JSON text with such characters as escapes: the same data, and nothing that steers."""
    return text.translate(_IN_JSON)


class Printable:
    """A table or text for Rich, whose own colours stay and whose content cannot bring any."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
