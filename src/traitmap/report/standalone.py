"""A figure as an SVG file of its own: the page's styles written onto its elements, in the light palette.

Programs that turn SVG into PNG or PDF know little of style sheets and nothing of custom properties, so the
cascade is done here: type and class selectors, ``:not(.x)`` and ``:first-child``, and descendants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

from traitmap.report import palette

SVG = "http://www.w3.org/2000/svg"
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
_TEMPLATES = Path(__file__).parent / "templates"
_SHEETS = ("report.css", "matrix.css", "figures.css")
# What SVG takes from a style sheet as attributes; the rest (cursor, max-width ...) is the page's alone.
_WRITTEN = frozenset(
    {
        "fill",
        "fill-opacity",
        "stroke",
        "stroke-width",
        "stroke-opacity",
        "stroke-dasharray",
        "stroke-linejoin",
        "opacity",
        "paint-order",
        "font-size",
        "font-style",
        "font-weight",
        "letter-spacing",
        "shape-rendering",
        "text-anchor",
    }
)
_INHERITED_SIZE = "12px"
_SIMPLE = re.compile(r"(\*|[a-zA-Z][\w-]*)?((?:[.#][\w-]+|:not\([.\w-]+\)|:first-child|:root)*)$")


@dataclass(frozen=True)
class _Compound:
    """One simple selector: tag, classes it must and must not have, whether it is a first child."""

    tag: str
    classes: frozenset[str]
    without: frozenset[str]
    first: bool


@dataclass(frozen=True)
class _Rule:
    """Selectors from the outermost to the element itself, what they weigh, and what they set."""

    path: tuple[_Compound, ...]
    weight: tuple[int, int, int]
    sets: tuple[tuple[str, str], ...]


def standalone(svg: str, background: str = "#ffffff") -> str:
    """The SVG of a page as a file that needs nothing else.

    background: colour behind it; empty for none.
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(svg)
    _dress(root, (), {**_variables()}, True)
    root.set("font-family", FONT)
    if "font-size" not in root.attrib:
        root.set("font-size", _INHERITED_SIZE)
    if background:
        box = {"width": "100%", "height": "100%", "fill": background}
        root.insert(2, ElementTree.Element(f"{{{SVG}}}rect", box))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _dress(
    node: ElementTree.Element,
    above: tuple[tuple[str, frozenset[str], bool], ...],
    known: Mapping[str, str],
    first: bool,
) -> None:
    """Write the winning styles onto an element and everything below it."""
    tag = node.tag.rsplit("}", 1)[-1]
    here = (*above, (tag, frozenset(node.get("class", "").split()), first))
    found = _styles(here)
    properties = {**known, **{name: text for name, text in found.items() if name.startswith("--")}}
    for name, text in found.items():
        if name in _WRITTEN:
            node.set(name, _resolved(text, properties))
    node.attrib.pop("class", None)
    for name in [name for name in node.attrib if name.startswith(("data-", "aria-"))]:
        del node.attrib[name]
    for child in [one for one in node if "backdrop" in one.get("class", "").split()]:
        node.remove(child)  # it hides what scrolls beneath names, and nothing scrolls in a file
    for at, child in enumerate(node):
        _dress(child, here, properties, at == 0)


@lru_cache(maxsize=4096)
def _styles(here: tuple[tuple[str, frozenset[str], bool], ...]) -> Mapping[str, str]:
    """What the style sheets set on an element below these ancestors; a figure has many that are alike."""
    found: dict[str, str] = {}
    for rule in _rules():
        if _fits(rule.path, here):
            found.update(rule.sets)
    return found


def _resolved(text: str, known: Mapping[str, str]) -> str:
    """The value with its custom properties filled in."""
    for _ in range(8):
        match = re.search(r"var\((--[\w-]+)\)", text)
        if match is None:
            break
        text = text[: match.start()] + known.get(match[1], "none") + text[match.end() :]
    return text.replace("!important", "").strip()


def _fits(path: Sequence[_Compound], here: Sequence[tuple[str, frozenset[str], bool]]) -> bool:
    """Whether the last compound is the element and the others its ancestors, in order."""
    if not _is(path[-1], here[-1]):
        return False
    at = len(here) - 2
    for compound in reversed(path[:-1]):
        while at >= 0 and not _is(compound, here[at]):
            at -= 1
        if at < 0:
            return False
        at -= 1
    return True


def _is(compound: _Compound, one: tuple[str, frozenset[str], bool]) -> bool:
    tag, classes, first = one
    return (
        (not compound.tag or compound.tag == tag)
        and compound.classes <= classes
        and not compound.without & classes
        and (first or not compound.first)
    )


@lru_cache(maxsize=1)
def _rules() -> tuple[_Rule, ...]:
    """Rules of the page that can be read here, the weakest first."""
    found = []
    for selectors, body in _blocks(_sheet()):
        sets = tuple(
            (name.strip(), value.strip())
            for name, _, value in (part.partition(":") for part in body.split(";"))
            if value
        )
        for selector in selectors.split(","):
            rule = _rule(selector.strip(), sets)
            if rule is not None:
                found.append(rule)
    return tuple(sorted(found, key=lambda rule: rule.weight))


def _rule(selector: str, sets: tuple[tuple[str, str], ...]) -> _Rule | None:
    """One selector with what it sets, or None where it is of a kind that figures do not use."""
    path = []
    for part in selector.split():
        match = _SIMPLE.match(part)
        if match is None or "#" in part or ":root" in part:
            return None
        marks = re.findall(r"(?<!\()\.([\w-]+)", match[2])
        without = re.findall(r":not\(\.([\w-]+)\)", match[2])
        tag = "" if match[1] in (None, "*") else match[1]
        path.append(_Compound(tag, frozenset(marks), frozenset(without), ":first-child" in match[2]))
    if not path:
        return None
    strong = int(any("!important" in value for _, value in sets))
    classes = sum(len(one.classes) + len(one.without) + one.first for one in path)
    return _Rule(tuple(path), (strong, classes, sum(bool(one.tag) for one in path)), sets)


def _sheet() -> str:
    """The style sheets without comments and without what holds for some media only."""
    text = "\n".join(
        (_TEMPLATES / name).read_text(encoding="utf-8") for name in _SHEETS if (_TEMPLATES / name).is_file()
    )
    text = text.replace("/* light palette */", palette.variables("light"), 1)
    text = text.replace("/* palette classes */", palette.rules())
    return _without_at_rules(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL))


def _without_at_rules(text: str) -> str:
    kept, at = [], 0
    while (start := text.find("@", at)) >= 0:
        kept.append(text[at:start])
        depth, at = 0, start
        while at < len(text):
            depth += (text[at] == "{") - (text[at] == "}")
            at += 1
            if depth == 0 and text[at - 1] in "};":
                break
    return "".join(kept) + text[at:]


def _blocks(sheet: str) -> list[tuple[str, str]]:
    """(selectors, body) of every rule."""
    return [(match[1].strip(), match[2]) for match in re.finditer(r"([^{}]+)\{([^{}]*)\}", sheet)]


@lru_cache(maxsize=1)
def _variables() -> dict[str, str]:
    """Custom properties of the light palette."""
    found: dict[str, str] = {}
    for selectors, body in _blocks(_sheet()):
        if selectors == ":root":
            for name, _, value in (part.partition(":") for part in body.split(";")):
                if value:
                    found[name.strip()] = value.strip()
    return found
