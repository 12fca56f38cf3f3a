"""A figure as a file for print: SVG in any width, PNG and PDF by typst, without a browser.

A figure as an SVG file of its own: the page's styles written onto its elements, in the light palette.

Programs that turn SVG into PNG or PDF know little of style sheets and nothing of custom properties, so the
cascade is done here: type and class selectors, ``:not(.x)`` and ``:first-child``, and descendants.

Every figure of the report by its name, each as an SVG of its own.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from traitmap.analysis.traits.scaling import clustered_order
from traitmap.errors import UserError
from traitmap.matrix.reading import read
from traitmap.report import chart as palette
from traitmap.report.heatmap import heatmap, layout
from traitmap.report.records import ReportContents, Shown
from traitmap.report.traits import adapter_figures, loading_figures, trait_figures
from traitmap.report.which import rankings, which_figures
from traitmap.report.why import why_groups

FORMATS = ("svg", "png", "pdf")
MM_PER_PX = 25.4 / 96  # CSS's own pixel
MARGIN = 6.0  # px around the figure: fonts of this machine may run a little wider than the page reckons
_SIZE = re.compile(r"<svg\b[^>]*>")


def figure_file(svg: str, kind: str, *, width: float | None = None, dpi: int = 300) -> bytes:
    """The figure as bytes of a file.

    svg: a standalone SVG. kind: ``svg``, ``png`` or ``pdf``. width: in mm, default the figure's own size; the
    height follows. dpi: dots per inch of a PNG. The same input gives the same bytes, with the same version of
    typst and the same fonts. UserError where typst is not installed, or a number makes no figure.
    """
    if kind not in FORMATS:
        raise UserError(f"{kind!r} is no format of a figure; legal: {', '.join(FORMATS)}.")
    svg, natural, height = _with_margin(svg)
    wanted = natural * MM_PER_PX if width is None else width
    if not 10 <= wanted <= 2000:
        raise UserError(f"--width {wanted:g}: a figure is between 10 and 2000 mm wide.")
    if not 30 <= dpi <= 2400:
        raise UserError(f"--dpi {dpi}: between 30 and 2400.")
    if kind == "svg":
        return (_sized(svg, wanted, height / natural) if width is not None else svg).encode("utf-8")
    dots = wanted / 25.4 * dpi
    if kind == "png" and dots * dots * height / natural > 4e8:
        raise UserError(
            f"--width {wanted:g} at --dpi {dpi} is {dots:.0f} dots wide, more than memory holds; lower one."
        )
    return _compiled(svg, kind, wanted, dpi)


def _compiled(svg: str, kind: Any, width: float, dpi: int) -> bytes:
    """One page of the figure's size, set by typst."""
    try:
        import typst
    except ImportError:
        raise UserError(
            f"A {kind} needs the package typst, which is not installed: pip install 'traitmap[figures]', or "
            "ask for a .svg."
        ) from None
    with tempfile.TemporaryDirectory(prefix="traitmap-figure-") as folder:
        (Path(folder) / "figure.svg").write_text(svg, encoding="utf-8")
        page = Path(folder) / "figure.typ"
        page.write_text(
            "#set document(date: none)\n"
            f"#set page(width: {width:.4f}mm, height: auto, margin: 0mm)\n"
            '#image("figure.svg", width: 100%)\n',
            encoding="utf-8",
        )
        try:
            made = typst.compile(str(page), root=folder, format=kind, ppi=float(dpi))
        except Exception as error:  # typst's errors are no class of their own in all versions
            raise UserError(f"typst could not set the figure: {error}") from None
    return bytes(made)


def _with_margin(svg: str) -> tuple[str, float, float]:
    """The SVG with room around it, its width and its height in px."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)" width="[\d.]+" height="[\d.]+"', svg)
    if found is None:
        raise UserError("The figure has no size; this is a defect of the report.")
    width, height = (float(group) + 2 * MARGIN for group in found.groups())
    place = f'viewBox="{-MARGIN:g} {-MARGIN:g} {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    behind = f'<rect x="{-MARGIN:g}" y="{-MARGIN:g}" width="100%" height="100%"'
    return (
        svg.replace(found[0], place, 1).replace('<rect width="100%" height="100%"', behind, 1),
        width,
        height,
    )


def _sized(svg: str, width: float, aspect: float) -> str:
    """The SVG with its size in mm."""

    def head(match: re.Match[str]) -> str:
        tag = re.sub(r'\s(?:width|height)="[^"]*"', "", match[0])
        return f'{tag[:-1]} width="{width:g}mm" height="{width * aspect:.4g}mm">'

    return _SIZE.sub(head, svg, count=1)


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


MATRIX = "matrix"


def figure_names(contents: ReportContents) -> tuple[str, ...]:
    """Names of all figures that these records have, in the order of the page."""
    return tuple(_figures(contents))


def figure_svg(name: str, contents: ReportContents, *, background: str = "#ffffff") -> str:
    """One figure as an SVG file that needs nothing else, in the light palette.

    background: colour behind it; empty for none. UserError where there is no figure of that name.
    """
    found = _figures(contents)
    if name not in found:
        why = "; ".join(f"no {part}: {reason}" for part, reason in contents.missing.items())
        raise UserError(
            f"There is no figure {name!r}; there are {', '.join(found)}" + (f" ({why})." if why else ".")
        )
    return standalone(str(found[name]()), background)


def _matrix(contents: ReportContents) -> Markup:
    reading = read(contents.matrix)
    return heatmap(reading, layout(reading, clustered_order(contents.matrix)), key=MATRIX)


def _figures(contents: ReportContents) -> Mapping[str, Callable[[], Markup]]:
    """Name -> how to draw it."""
    found: dict[str, Callable[[], Markup]] = {MATRIX: lambda: _matrix(contents)}
    shown: list[Shown] = []
    if contents.traits is not None:
        shown += [*trait_figures(contents.traits), *loading_figures(contents.traits)]
    found |= {one.name: partial(_drawn, one.svg) for one in shown}
    for at, (card, _) in enumerate(adapter_figures(contents.matrix, contents.traits), start=1):
        if card.figure is not None:
            found[f"profile-{at}"] = partial(_drawn, card.figure)
    shown = [
        figure
        for group in why_groups(contents.matrix, contents.profile, contents.explanation)
        for figure in group.figures
    ]
    if contents.evaluation is not None:
        shown += [*which_figures(contents.evaluation), *rankings(contents.evaluation)]
    return found | {one.name: partial(_drawn, one.svg) for one in shown}


def _drawn(svg: Markup) -> Markup:
    return svg
