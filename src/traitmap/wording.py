"""Numbers and counts in words, the same everywhere. Unknown is a dash, never a zero."""

from __future__ import annotations

import re
from html import escape
from math import isfinite
from typing import Protocol

UNKNOWN = "–"

# Characters that XML 1.0 forbids (control characters, lone surrogates), and those that turn the direction of
# the text around them: a dataset may hold them.
_ILLEGAL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_MARKDOWN = re.compile(
    r"[|`*\[\]\\$~]|(?<![^\W_])_|_(?![^\W_])|(?<=http):|(?<=https):|(?<=www)\.|^[#>+=-]", re.IGNORECASE
)


class Bounded(Protocol):
    """A number with an interval, such as ``matrix.statistics.Interval``; unknown is NaN."""

    @property
    def value(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def clean(text: object) -> str:
    """Text without what neither XML nor HTML may hold, or turns the direction of writing: U+FFFD instead."""
    return _ILLEGAL.sub("\ufffd", str(text))


def escaped(text: object) -> str:
    """Text as it may stand in HTML, between tags and within quotes; the entities are those of markupsafe."""
    return escape(clean(text), quote=False).replace('"', "&#34;").replace("'", "&#39;")


def escaped_markdown(text: object) -> str:
    """Text as it may stand in a line or cell of Markdown, where HTML counts too: no sign begins anything."""
    line = " ".join(escaped(text).split())
    return _MARKDOWN.sub(lambda sign: f"&#{ord(sign[0])};", line)


def plain(value: float, digits: int = 1) -> str:
    """``63.2``, ``1,204.0``: thousands are set apart by commas."""
    if not isfinite(value):
        return UNKNOWN
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.") else text


def signed(value: float, digits: int = 1) -> str:
    """``+3.6``, ``-3.6``, and ``0.0`` without a sign where it rounds to zero."""
    if not isfinite(value):
        return UNKNOWN
    text = f"{value:+,.{digits}f}"
    return text.lstrip("+-") if not text.strip("+-0.") else text


def interval(low: float, high: float, digits: int = 1) -> str:
    """``[1.2, 6.0]``, or a dash where either end is unknown."""
    if not (isfinite(low) and isfinite(high)):
        return UNKNOWN
    return f"[{signed(low, digits)}, {signed(high, digits)}]"


def with_interval(value: float, low: float, high: float, digits: int = 1, unknown: str = "unknown") -> str:
    """``+3.6 [+1.2, +6.0]``; the value alone where an end of its interval is unknown, else ``unknown``."""
    if not isfinite(value):
        return unknown
    known = isfinite(low) and isfinite(high)
    return signed(value, digits) + (f" {interval(low, high, digits)}" if known else "")


def estimate(result: Bounded, digits: int = 1, unknown: str = "unknown") -> str:
    """An estimate with its interval, as :func:`with_interval` writes it.

    result: anything with ``value``, ``low`` and ``high``, such as ``matrix.statistics.Interval``.
    """
    return with_interval(result.value, result.low, result.high, digits, unknown)


def probability(value: float) -> str:
    """A p or q as style guides print it: ``.023``, ``<.001``, ``1.00``.

    Three decimals without the leading zero; four, cut, where three would round a p below .05 up to it
    (``.0498``), so that a verdict never stands beside a number that denies it. A dash where it is unknown.
    """
    if not isfinite(value):
        return UNKNOWN
    if value < 0.001:
        return "<.001"
    if 0.0495 <= value < 0.05:
        return f".0{min(int(value * 1e4), 499)}"
    return "1.00" if value > 0.9994 else f"{value:.3f}".lstrip("0")


def related(name: str, value: float) -> str:
    """``q = .023``, ``q < .001``, or ``q unknown``."""
    if not isfinite(value):
        return f"{name} unknown"
    shown = probability(value)
    return f"{name} < {shown[1:]}" if shown.startswith("<") else f"{name} = {shown}"


def share(value: float) -> str:
    """A share in 0..1 as per cent without decimals: ``3 %``.

    ``<1 %`` where it is more than nothing and rounds to it; a dash where it is unknown.
    """
    if not isfinite(value):
        return UNKNOWN
    if 0 < value < 0.005:
        return "<1 %"
    return f"{100 * value:.0f} %"


def typeset(text: str) -> str:
    """Minus signs and arrows in place of hyphens (for the page; the terminal keeps ASCII)."""
    return "".join(
        "−" if c == "-" and (i == 0 or text[i - 1] in " [(,") and text[i + 1 : i + 2].isdigit() else c
        for i, c in enumerate(text)
    ).replace(" -> ", " → ")


def sentence(text: str) -> str:
    """With a capital and a full stop, whoever wrote it."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", ":")) or not text else ".")


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 cell``, ``3 cells``, ``no cells``."""
    words = noun if count == 1 else plural or f"{noun}s"
    return f"{count if count else 'no'} {words}"


def none_of(count: int, noun: str, plural: str = "") -> str:
    """``none of 3 cells``, and ``not the only cell`` where there is one."""
    return f"none of {counted(count, noun, plural)}" if count != 1 else f"not the only {noun}"


def listed(names: list[str] | tuple[str, ...], most: int = 4) -> str:
    """``a, b and c``; beyond ``most`` names the others as a count: ``a, b and 3 more``."""
    shown = list(names[:most])
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def in_bytes(size: float) -> str:
    """``3.2 MB``; unknown is a dash."""
    if not isfinite(size):
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def in_time(seconds: float) -> str:
    """``40 s``, ``6 min``, ``3.2 h``; unknown is a dash."""
    if not isfinite(seconds):
        return UNKNOWN
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
