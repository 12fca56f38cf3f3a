"""Colours of the matrix: diverging blue to orange (safe for colour-blind readers), light and dark.

Colours come in steps with a class each, so that one style sheet serves both themes and every view. Steps are
interpolated in OKLab (B. Ottosson, 2020), where equal steps look equal.
"""

from __future__ import annotations

from math import isfinite

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
