"""The kit that every figure is drawn with: SVG as text, scales and axes, and the colours of both themes.

Every name and number that goes in is escaped, so no dataset can put markup into a page. Coordinates are px,
written with few decimals, so that the same records give the same bytes on every machine.

Gains are coloured from blue (better) to orange (worse), which colour-blind readers can tell apart. Colours
come in steps with a class each, so that one style sheet serves both themes and every view. Steps are
interpolated in OKLab (B. Ottosson, 2020), where equal steps look equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, isfinite, log10

from markupsafe import Markup, escape

from traitmap.wording import clean, typeset

TICK_SIZE = 11.0  # px, as the style sheets have it
NAME_SIZE = 12.0
BOLD = 1.12  # times the width of a text that is not bold
TITLE_SIZE = 13.0
SMALLEST = 10.5  # px: no figure has smaller text
LINE = 15.0  # from line to line of small text
# How wide a figure is drawn, px: beside its words on a page, in half a page, and on a telephone or in a card.
WIDE, HALF, NARROW = 700.0, 530.0, 316.0
STEPS = 12  # of a colour on either side of zero

# Widths of characters in DejaVu Sans (em), the widest of the fonts that browsers fall back to.
_WIDTHS = {
    character: width
    for width, characters in (
        (0.28, "'ijl"),
        (0.32, " ,.IJ·"),
        (0.34, "/:;\\|"),
        (0.41, "!()-[]frt"),
        (0.52, '"*_`sz“”–'),
        (0.61, "?FLPTYacekovxyé•"),
        (0.8, "&DGHNOQUw▲▼△▽◆○"),
        (0.85, "#+<=>M^~→−≡◐"),
        (1.0, "%@Wm…■"),
    )
    for character in characters
}
_USUAL_WIDTH = 0.66
_ROUND = (1, 2, 2.5, 5, 10)


def number(value: float) -> str:
    """A coordinate: at most two decimals, no trailing zeros, the same bytes on every machine."""
    digits = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if digits == "-0" else digits


def element(
    name: str, attributes: Mapping[str, object] | None = None, *children: Markup | str | None
) -> Markup:
    """One element. Strings are escaped, Markup goes in as it is, what is None is left out.

    children: text or Markup. Characters that XML forbids become U+FFFD. Numbers are written by ``number``.
    """
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


def text(
    x: float, y: float, style: str, words: str, anchor: str | None = None, **attributes: object
) -> Markup:
    """Words whose baseline begins (``anchor`` None), is centred (``middle``) or ends (``end``) at (x, y)."""
    place = {"x": x, "y": y, "class": style, "text-anchor": anchor}
    return element("text", {**place, **attributes}, words)


def path(style: str, d: str) -> Markup:
    """A line or shape in the path language of SVG."""
    return element("path", {"class": style, "d": d})


def circle(style: str, x: float, y: float, radius: float) -> Markup:
    """A dot about (x, y)."""
    return element("circle", {"class": style, "cx": x, "cy": y, "r": radius})


@dataclass(frozen=True)
class Chart:
    """A drawing that has no place in a page yet.

    title: its accessible name. alt: what is drawn, in a sentence. content: what lies within 0..width and
    0..height px. style: classes that the style sheets know.
    """

    title: str
    alt: str
    content: Markup
    width: float
    height: float
    style: str

    def svg(self, key: str) -> Markup:
        """The whole ``<svg>``. key: its id, unique in the page; title and description have ids made of it."""
        return element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "class": f"figure {self.style}",
                "id": key,
                "viewBox": f"0 0 {number(self.width)} {number(self.height)}",
                "width": self.width,
                "height": self.height,
                "role": "img",
                "aria-labelledby": f"{key}-title {key}-desc",
            },
            element("title", {"id": f"{key}-title"}, self.title),
            element("desc", {"id": f"{key}-desc"}, self.alt),
            self.content,
        )


# A width in px -> the chart in that width; it is wider where it cannot be so narrow.
Drawing = Callable[[float], Chart]

# What the marks of a key look like about (6, 0), by the beginning of their name; others are dots.
_SHAPES = {
    "noise": "M0 -6h12v12h-12z",
    "box": "M0 -6h12v12h-12z",
    "part": "M0 -6h12v12h-12z",
    "tick": "M6 -7v14",
    "diamond": "M6 -5l5 5l-5 5l-5 -5z",
    "ridge": "M0 5C4 5 4 -6 6 -6S8 5 12 5z",
    "spread": "M0 0h12",
    "arrow": "M0 0h12",
    "diagonal": "M-1 0h14",
    "ellipse": "M0 0a6 4 0 1 0 12 0a6 4 0 1 0 -12 0z",
    "fold": "M4 -5h8v8z",
    "frame": "M0 -6h12v12h-12z",
    "hatched": "M1 -6h10v12h-10zM1 0l6 -6M1 6l10 -10M5 6l6 -6",
}
_MARK = 19.0  # px from the left of a mark to its words


def _mark(name: str) -> Markup:
    """One mark of a key. ``box v3`` is a box in the colour of class ``v3``."""
    kind, _, colour = name.partition(" ")
    if kind == "ramp":
        box = {"y": -6, "width": 6, "height": 12}
        return join(
            *(
                element("rect", {"class": f"key-mark key-box {one}", "x": 6 * at, **box})
                for at, one in enumerate(colour.split())
            )
        )
    style = f"key-mark key-{name}"
    if kind in _SHAPES:
        return path(style, _SHAPES[kind])
    return circle(style, 6, 0, 6 if kind == "chosen" else 2 if kind in ("even", "significant") else 4.5)


def with_key(chart: Chart, marks: Sequence[tuple[str, str]]) -> Chart:
    """The chart with a key to its marks beneath, in as many lines as its width needs.

    marks: (mark, words), marks as the style sheets know them; ``ramp g0 gp1`` is a row of colours.
    """
    parts, x, y = [], 0.0, 0.0
    for name, words in marks:
        room = _MARK if not name.startswith("ramp") else 6.0 * (len(name.split()) - 1) + 7
        lines = wrapped(words, TICK_SIZE, chart.width - room)
        width = room + max(text_width(line, TICK_SIZE) for line in lines)
        if x and x + width > chart.width:
            x, y = 0.0, y + LINE + 3
        shown = (text(room, 4 + LINE * at, "key-words", line) for at, line in enumerate(lines))
        parts.append(element("g", {"transform": f"translate({x:g} {y:g})"}, _mark(name), *shown))
        x, y = x + width + 16, y + LINE * (len(lines) - 1)
    if not parts:
        return chart
    place = f"translate(0 {number(chart.height + 18)})"
    return replace(
        chart,
        content=join(chart.content, element("g", {"class": "key", "transform": place}, *parts)),
        height=chart.height + 18 + y + 10,
    )


def captioned(chart: Chart, title: str, caption: str) -> Chart:
    """The chart as it stands alone in a document: its title above, its caption beneath."""
    heads = wrapped(title, TITLE_SIZE, chart.width)
    lines = wrapped(caption, TICK_SIZE, chart.width)
    top = (TITLE_SIZE + 4) * len(heads) + 8 if heads else 0.0
    beneath = top + chart.height + 22
    content = join(
        *(text(0, (TITLE_SIZE + 4) * at + TITLE_SIZE, "figure-title", one) for at, one in enumerate(heads)),
        element("g", {"transform": f"translate(0 {top:g})"}, chart.content),
        *(text(0, beneath + LINE * at, "caption", one) for at, one in enumerate(lines)),
    )
    height = beneath + LINE * (len(lines) - 1) + 4 if lines else top + chart.height
    return replace(chart, content=content, height=height)


def text_width(words: str, size: float) -> float:
    """Estimated width in px of a text in a wide sans-serif at font size ``size`` px.

    Widths of characters are those of a wide font, so that a label that fits here fits everywhere.
    """
    return size * sum(
        1.0 if ord(character) > 0x2E80 else _WIDTHS.get(character, _USUAL_WIDTH) for character in words
    )


def shorten(words: str, size: float, room: float) -> str:
    """The text, or its beginning and end around an ellipsis, so that it fits ``room`` px.

    Long names of one family often differ at the end (``..._balanced``), so the end is kept.
    """
    words = clean(words)
    if text_width(words, size) <= room:
        return words
    for length in range(len(words) - 1, 2, -1):
        head = (2 * length + 2) // 3
        cut = words[:head] + "…" + words[len(words) - (length - head) :]
        if text_width(cut, size) <= room:
            return cut
    return words[:2] + "…"


def wrapped(words: str, size: float, room: float) -> list[str]:
    """Lines of at most ``room`` px at font size ``size`` px, broken at spaces; longer words are cut."""
    lines: list[str] = []
    for word in filter(None, clean(words).split(" ")):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(shorten(word, size, room))
    return lines


def name_text(
    name: str, x: float, y: float, room: float, *, anchor: str = "end", style: str = "name"
) -> Markup:
    """A name cut to its room, whole in its tooltip. style: ``group`` is bold, and wider."""
    short = shorten(name, NAME_SIZE * (BOLD if style == "group" else 1.0), room)
    whole = element("title", None, name) if short != name else None
    return element("text", {"x": x, "y": y, "class": style, "text-anchor": anchor}, whole, short)


def room_for(
    texts: Iterable[str], *, least: float = 0.0, most: float = 1e9, size: float = NAME_SIZE
) -> float:
    """Px that the widest text takes, within limits.

    least, most: px between which it stays; size: px of the font. Four px are added for air.
    """
    widest = max((text_width(words, size) for words in texts), default=0.0)
    return min(most, max(least, widest + 4))


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

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers on the axis, two to ``most`` or so; powers of ten where it is logarithmic."""
        if self.logarithmic:
            return log_ticks(self.low, self.high)
        ticks = round_ticks(self.low, self.high, most)
        return ticks if len(ticks) > 1 else round_ticks(self.low, self.high, most + 2)


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within low..high, at most ``most`` or so.

    Steps are 1, 2, 2.5, 5 or 10 times a power of ten. One tick where the ends are equal, none where low is
    unknown.
    """
    if not (isfinite(low) and isfinite(high)) or high <= low:
        return [low] if isfinite(low) else []
    raw = (high - low) / max(most - 1, 1)
    scale = 10.0 ** floor(log10(raw))
    step = next(factor * scale for factor in _ROUND if factor * scale >= raw * (1 - 1e-9))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within low..high; 2 and 5 times these where there are few.

    low, high: positive. Also 3 times a power of ten where there are three or four of them.
    """
    first, last = floor(log10(low)), ceil(log10(high))
    factors = (1, 2, 5) if last - first < 3 else (1, 3) if last - first < 5 else (1,)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


def around(values: Iterable[float], *, zero: bool = False, margin: float = 0.06) -> tuple[float, float]:
    """Ends of an axis that holds all finite values (and zero), with some room; -1..1 where there are none.

    zero: the axis must hold 0, and an end that is 0 has no room beyond it. margin: the room, as a share of
    the span.
    """
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
    digits = f"{value / 1000:g}k" if abs(value) >= 1000 else f"{round(value, 10):g}"
    return typeset(digits) + unit


def x_axis(
    scale: Scale,
    ticks: Mapping[float, str] | Sequence[float],
    *,
    top: float,
    bottom: float,
    title: Sequence[str] = (),
    unit: str = "",
) -> Markup:
    """Rules from top to bottom with their numbers beneath, and the lines of the title beneath these.

    ticks: places, or places with what is written there, which is left out where it would touch the last. The
    rule at 0 is darker on a straight scale.
    """
    parts, last = [], -1e9
    for value in ticks:
        x = scale(value)
        style = "rule zero" if value == 0 and not scale.logarithmic else "rule"
        words = ticks[value] if isinstance(ticks, Mapping) else tick_text(value, unit)
        parts.append(path(style, f"M{x:.1f} {top:.1f}V{bottom:.1f}"))
        half = text_width(words, TICK_SIZE) / 2
        if words and x - half > last + 3:
            parts.append(text(x, bottom + 14, "tick", words, "middle"))
            last = x + half
    for at, line in enumerate(title):
        middle = (scale.start + scale.end) / 2
        parts.append(text(middle, bottom + 30 + 13 * at, "end", line, "middle"))
    return element("g", {"class": "axis"}, *parts)


def title_lines(title: str, scale: Scale, width: float) -> list[str]:
    """An axis' title in lines that stay within 0..width px when they are centred beneath the axis."""
    middle = (scale.start + scale.end) / 2
    return wrapped(title, TICK_SIZE, 2 * min(middle, width - middle))


def y_axis(
    scale: Scale, ticks: Sequence[float], *, left: float, right: float, title: str = "", unit: str = ""
) -> Markup:
    """Rules from left to right with their numbers at the left, and the title turned beside these.

    left, right: px of the rules' ends. title: beside the axis, read from below. The rule at 0 is darker.
    """
    parts = []
    for value in ticks:
        y = scale(value)
        parts.append(path("rule zero" if value == 0 else "rule", f"M{left:.1f} {y:.1f}H{right:.1f}"))
        parts.append(text(left - 7, y + 4, "tick", tick_text(value, unit), "end"))
    if title:
        y = (scale.start + scale.end) / 2
        parts.append(text(12, y, "end", title, "middle", transform=f"rotate(-90 12 {y:.1f})"))
    return element("g", {"class": "axis"}, *parts)


# From the middle outwards: better, worse, and absolute values.
_PALETTES = {
    "light": (
        ("#f3f1ec", "#a9cbe6", "#3f8cc4", "#0a4a86"),
        ("#f3f1ec", "#f6cda4", "#e08534", "#9b4200"),
        ("#f3f1ec", "#c4dccf", "#6aa892", "#1d5f53"),
    ),
    "dark": (
        ("#272a30", "#234a6d", "#3379b0", "#86c5f4"),
        ("#272a30", "#5f3c20", "#b0641f", "#f9b273"),
        ("#272a30", "#27493f", "#3c8170", "#92d9c3"),
    ),
}
_SOFT_INK, _WHITE, _BLACK = "#16191d", "#ffffff", "#000000"


def step(value: float, limit: float) -> int | None:
    """Step of a diverging colour: -STEPS..STEPS, symmetric around zero, None where unknown.

    value: a gain in any unit, positive where better. limit: the gain, in the same unit, at which the colour
    is deepest.
    """
    if not isfinite(value):
        return None
    return max(-STEPS, min(STEPS, round(value / limit * STEPS)))


def diverging_class(at: int | None) -> str:
    """Class of a step of a diverging colour (positive: better)."""
    if at is None:
        return "none"
    return f"g{'m' if at < 0 else 'p'}{abs(at)}" if at else "g0"


def value_step(value: float, low: float, high: float) -> int | None:
    """Step of an absolute value between the two ends of its scale: 0..STEPS, None where unknown.

    low is the worst value and high the best one; what lies beyond has the deepest colour. The middle where
    both are equal.
    """
    if not isfinite(value):
        return None
    share = (value - low) / (high - low) if high > low else 0.5
    return max(0, min(STEPS, round(share * STEPS)))


def value_class(at: int | None) -> str:
    """Class of a step of an absolute value."""
    return "none" if at is None else f"v{at}"


def variables(theme: str) -> str:
    """Custom properties of one theme: the fill of every class, and the ink that reads best on it.

    theme: ``light`` or ``dark``. ``--gp3`` is the fill of class ``gp3``, ``--gp3i`` the ink upon it.
    """
    better, worse, value = _PALETTES[theme]
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


def themed(sheet: str) -> str:
    """A style sheet with the palettes in the places of its comments.

    ``/* light palette */`` and ``/* dark palette */`` become the variables of a theme, ``/* palette classes
    */`` the rules that give each class its fill and its ink.
    """
    for theme in _PALETTES:
        sheet = sheet.replace(f"/* {theme} palette */", variables(theme))
    rules = "".join(f".{name}{{--fill:var(--{name});--ink-cell:var(--{name}i)}}" for name in classes())
    return sheet.replace("/* palette classes */", rules)


def ink(fill: str) -> str:
    """The ink that reads best: a soft black or white where it suffices (4.5), else black."""
    best = max((_SOFT_INK, _WHITE), key=lambda colour: contrast(colour, fill))
    return best if contrast(best, fill) >= 4.5 else _BLACK


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours as WCAG 2 defines it, 1..21.

    first, second: ``#rrggbb``, in any order. Text is easy to read from 4.5 on.
    """

    def luminance(colour: str) -> float:
        red, green, blue = _linear(colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def along(stops: tuple[str, ...], share: float) -> str:
    """Colour at ``share`` (0..1) along evenly spaced stops.

    Interpolated in OKLab. stops, and what is returned: ``#rrggbb``.
    """
    place = share * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    left, right = _oklab(stops[first]), _oklab(stops[first + 1])
    lab = [a + (b - a) * (place - first) for a, b in zip(left, right, strict=True)]
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


def _linear(colour: str) -> list[float]:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


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
