"""SVG as text: every name and number that goes in is escaped, so no dataset can put markup in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

# Characters that XML 1.0 forbids (control characters, lone surrogates): a dataset may hold them.
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

# Relative widths of characters in a wide sans-serif (em); enough to know when a label must be cut.
_NARROW = frozenset("fijlrtI.,:;'|!()[] -/")
_WIDE = frozenset("mwMWGOQ@%")


def clean(text: object) -> str:
    """Text without the characters that neither XML nor HTML may hold (each becomes U+FFFD)."""
    return _ILLEGAL.sub("\ufffd", str(text))


def number(value: float) -> str:
    """A coordinate: at most two decimals, no trailing zeros, the same bytes on every machine."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def element(
    name: str, attributes: Mapping[str, object] | None = None, *children: Markup | str | None
) -> Markup:
    """One element. Strings are escaped, Markup goes in as it is, None is left out."""
    parts = [f"<{name}"]
    for key, value in (attributes or {}).items():
        if value is not None:
            shown = number(value) if isinstance(value, int | float) else clean(value)
            parts.append(f' {key}="{escape(shown)}"')
    inner = [
        str(child) if isinstance(child, Markup) else str(escape(clean(child)))
        for child in children
        if child is not None
    ]
    # The void form is legal XML, and HTML parsers accept it on foreign (SVG) elements.
    parts.append(f">{''.join(inner)}</{name}>" if inner else "/>")
    return Markup("".join(parts))


def join(*children: Markup) -> Markup:
    """Elements one after another."""
    return Markup("".join(children))


def figure(
    *, key: str, title: str, description: str, width: float, height: float, content: Markup, style: str = ""
) -> Markup:
    """A whole ``<svg>`` with accessible title and description; ``key`` makes the ids unique in the page."""
    return element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": f"figure {style}".strip(),
            "id": key,
            "viewBox": f"0 0 {number(width)} {number(height)}",
            "width": width,
            "height": height,
            "role": "img",
            "aria-labelledby": f"{key}-title {key}-desc",
        },
        element("title", {"id": f"{key}-title"}, title),
        element("desc", {"id": f"{key}-desc"}, description),
        content,
    )


def text_width(text: str, size: float) -> float:
    """Estimated width in px of a text in a wide sans-serif at font size ``size`` px."""
    em = 0.0
    for character in text:
        if ord(character) > 0x2E80:
            em += 1.0
        elif character in _NARROW:
            em += 0.33
        else:
            em += 0.88 if character in _WIDE else 0.56
    return em * size


def shorten(text: str, size: float, room: float) -> str:
    """The text, or its beginning and end around an ellipsis, so that it fits ``room`` px.

    Long names of one family often differ at the end (``..._balanced``), so the end is kept.
    """
    text = clean(text)
    if text_width(text, size) <= room:
        return text
    for kept in range(len(text) - 1, 2, -1):
        head = (2 * kept + 2) // 3
        cut = text[:head] + "…" + text[len(text) - (kept - head) :]
        if text_width(cut, size) <= room:
            return cut
    return text[:2] + "…"
