"""SVG as text: every name and number that goes in is escaped, so no dataset can put markup in.

Scales, axes and texts that figures share: from data to px, with round ticks.

Colours of the matrix: diverging blue to orange (safe for colour-blind readers), light and dark.

Colours come in steps with a class each, so that one style sheet serves both themes and every view. Steps are
interpolated in OKLab (B. Ottosson, 2020), where equal steps look equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from markupsafe import Markup, escape

from traitmap.wording import clean, typeset

# Relative widths of characters in a wide sans-serif (em); enough to know when a label must be cut.
_NARROW = frozenset("fijlrtI.,:;'|!()[] -/")
_WIDE = frozenset("mwMWGOQ@%")


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


TICK_SIZE = 11.0
NAME_SIZE = 12.0
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Scale:
    """A straight or logarithmic map from low..high to the px start..end; what lies beyond is held there."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        value = max(low, min(high, value))
        if self.logarithmic:
            low, high, value = log10(low), log10(high), log10(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a value lies on the axis."""
        return isfinite(value) and self.low <= value <= self.high


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within low..high, at most ``most`` or so."""
    if not (isfinite(low) and isfinite(high)) or high <= low:
        return [low] if isfinite(low) else []
    raw = (high - low) / max(most - 1, 1)
    scale = 10.0 ** floor(log10(raw))
    step = next(one * scale for one in _STEPS if one * scale >= raw * (1 - 1e-9))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within low..high; 2 and 5 times these where there are few."""
    first, last = floor(log10(low)), ceil(log10(high))
    factors = (1, 2, 5) if last - first < 3 else (1, 3) if last - first < 5 else (1,)
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [one for one in found if low * (1 - 1e-9) <= one <= high * (1 + 1e-9)]


def around(values: Iterable[float], *, zero: bool = False, margin: float = 0.06) -> tuple[float, float]:
    """Ends of an axis that holds all finite values (and zero), with some room; -1..1 where there are none."""
    known = [float(value) for value in values if isfinite(value)] + ([0.0] if zero else [])
    if not known:
        return -1.0, 1.0
    low, high = min(known), max(known)
    if high <= low:
        return low - 1.0, high + 1.0
    room = margin * (high - low)
    return (low if zero and low == 0 else low - room), (high if zero and high == 0 else high + room)


def tick_text(value: float, unit: str = "") -> str:
    """``0.5``, ``−20``, ``1k``, with the unit behind."""
    text = f"{value / 1000:g}k" if abs(value) >= 1000 else f"{round(value, 10):g}"
    return typeset(text) + unit


def x_axis(
    scale: Scale,
    ticks: Sequence[float],
    *,
    top: float,
    bottom: float,
    title: str = "",
    unit: str = "",
    zero: bool = True,
) -> Markup:
    """Rules from top to bottom with their numbers beneath, and the title beneath these."""
    parts = []
    for value in ticks:
        x = scale(value)
        style = "rule zero" if zero and value == 0 else "rule"
        parts.append(element("path", {"class": style, "d": f"M{x:.1f} {top:.1f}V{bottom:.1f}"}))
        place = {"x": x, "y": bottom + 14, "class": "tick", "text-anchor": "middle"}
        parts.append(element("text", place, tick_text(value, unit)))
    if title:
        place = {
            "x": (scale.start + scale.end) / 2,
            "y": bottom + 30,
            "class": "end",
            "text-anchor": "middle",
        }
        parts.append(element("text", place, title))
    return element("g", {"class": "axis"}, *parts)


def y_axis(
    scale: Scale,
    ticks: Sequence[float],
    *,
    left: float,
    right: float,
    title: str = "",
    unit: str = "",
    zero: bool = True,
) -> Markup:
    """Rules from left to right with their numbers at the left, and the title turned beside these."""
    parts = []
    for value in ticks:
        y = scale(value)
        style = "rule zero" if zero and value == 0 else "rule"
        parts.append(element("path", {"class": style, "d": f"M{left:.1f} {y:.1f}H{right:.1f}"}))
        place = {"x": left - 7, "y": y + 4, "class": "tick", "text-anchor": "end"}
        parts.append(element("text", place, tick_text(value, unit)))
    if title:
        y = (scale.start + scale.end) / 2
        place = {
            "x": 12,
            "y": y,
            "class": "end",
            "text-anchor": "middle",
            "transform": f"rotate(-90 12 {y:.1f})",
        }
        parts.append(element("text", place, title))
    return element("g", {"class": "axis"}, *parts)


def name_text(
    name: str, x: float, y: float, room: float, *, anchor: str = "end", style: str = "name"
) -> Markup:
    """A name cut to its room, whole in its tooltip."""
    short = shorten(name, NAME_SIZE, room)
    whole = element("title", None, name) if short != name else None
    return element("text", {"x": x, "y": y, "class": style, "text-anchor": anchor}, whole, short)


def room_for(
    texts: Iterable[str], *, least: float = 0.0, most: float = 1e9, size: float = NAME_SIZE
) -> float:
    """Px that the widest text takes, within limits."""
    widest = max((text_width(text, size) for text in texts), default=0.0)
    return min(most, max(least, widest + 4))


STEPS = 12

_LIGHT_BETTER = ("#f3f1ec", "#a9cbe6", "#3f8cc4", "#0a4a86")
_LIGHT_WORSE = ("#f3f1ec", "#f6cda4", "#e08534", "#9b4200")
_LIGHT_VALUE = ("#f3f1ec", "#c4dccf", "#6aa892", "#1d5f53")
_DARK_BETTER = ("#272a30", "#234a6d", "#3379b0", "#86c5f4")
_DARK_WORSE = ("#272a30", "#5f3c20", "#b0641f", "#f9b273")
_DARK_VALUE = ("#272a30", "#27493f", "#3c8170", "#92d9c3")
_SOFT_INK, _WHITE, _BLACK = "#16191d", "#ffffff", "#000000"


def step(value: float, limit: float) -> int | None:
    """Step of a diverging colour: -STEPS..STEPS, symmetric around zero, None where unknown."""
    if not isfinite(value):
        return None
    return max(-STEPS, min(STEPS, round(value / limit * STEPS)))


def diverging_class(value: float, limit: float) -> str:
    """Class of a gain (positive: better)."""
    at = step(value, limit)
    if at is None:
        return "none"
    return f"g{'m' if at < 0 else 'p'}{abs(at)}" if at else "g0"


def value_class(value: float, low: float, high: float) -> str:
    """Class of an absolute value between the two ends of its scale."""
    if not isfinite(value):
        return "none"
    share = (value - low) / (high - low) if high > low else 0.5
    return f"v{max(0, min(STEPS, round(share * STEPS)))}"


def variables(theme: str) -> str:
    """Custom properties of one theme: the fill of every class, and the ink that reads best on it."""
    better, worse, value = (
        (_LIGHT_BETTER, _LIGHT_WORSE, _LIGHT_VALUE)
        if theme == "light"
        else (_DARK_BETTER, _DARK_WORSE, _DARK_VALUE)
    )
    fills = {"g0": better[0]}
    for at in range(1, STEPS + 1):
        fills[f"gp{at}"] = along(better, at / STEPS)
        fills[f"gm{at}"] = along(worse, at / STEPS)
    for at in range(STEPS + 1):
        fills[f"v{at}"] = along(value, at / STEPS)
    return "".join(f"--{name}:{fill};--{name}i:{ink(fill)};" for name, fill in fills.items())


def classes() -> tuple[str, ...]:
    """Every colour class."""
    signed = [f"g{side}{at}" for side in "mp" for at in range(1, STEPS + 1)]
    return ("g0", *signed, *(f"v{at}" for at in range(STEPS + 1)))


def rules() -> str:
    """Style rules that give each class its fill and ink."""
    return "".join(f".{name}{{--fill:var(--{name});--ink-cell:var(--{name}i)}}" for name in classes())


def ink(fill: str) -> str:
    """The ink that reads best: a soft black or white where it suffices (4.5), else black."""
    best = max((_SOFT_INK, _WHITE), key=lambda colour: contrast(colour, fill))
    return best if contrast(best, fill) >= 4.5 else _BLACK


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours as WCAG 2 defines it, 1..21."""
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def along(stops: tuple[str, ...], share: float) -> str:
    """Colour at ``share`` (0..1) along evenly spaced stops."""
    place = share * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    left, right = _oklab(stops[first]), _oklab(stops[first + 1])
    return _hex([a + (b - a) * (place - first) for a, b in zip(left, right, strict=True)])


def _linear(colour: str) -> list[float]:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


def _luminance(colour: str) -> float:
    red, green, blue = _linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _oklab(colour: str) -> list[float]:
    r, g, b = _linear(colour)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    middle = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return [
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    ]


def _hex(lab: list[float]) -> str:
    lightness, a, b = lab
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    channels = [12.92 * c if c <= 0.0031308 else 1.055 * max(c, 0.0) ** (1 / 2.4) - 0.055 for c in linear]
    return "#" + "".join(f"{round(255 * min(1.0, max(0.0, c))):02x}" for c in channels)
