"""Figures of the report as files for print: SVG in any width, PNG and PDF by typst, without a browser.

A figure is taken from the page by its name, and the page's styles are written onto its elements, in the light
palette: programs that turn SVG into PNG or PDF know little of style sheets and nothing of custom properties.
So the cascade is done here: type and class selectors, ``:not(.x)`` and ``:first-child``, and descendants.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from traitmap.analysis.traits.scaling import clustered_order
from traitmap.errors import UserError
from traitmap.matrix.reading import read
from traitmap.report.chart import HALF, SMALLEST, WIDE, Chart, captioned, themed, with_key
from traitmap.report.checkpoints import checkpoints_figures
from traitmap.report.combine import combine_figures
from traitmap.report.heatmap import MATRIX, heatmap, layout, matrix_key, matrix_words
from traitmap.report.records import ReportContents, Shown
from traitmap.report.traits import adapter_cards, loading_figures, trait_figures
from traitmap.report.which import rankings, which_figures
from traitmap.report.why import why_groups
from traitmap.wording import typeset

# An element by its tag, its classes and whether it is a first child; and it with all its ancestors.
Element = tuple[str, frozenset[str], bool]
Lineage = tuple[Element, ...]
# A simple selector: tag, classes that it must and must not have, whether it must be a first child.
Compound = tuple[str, frozenset[str], frozenset[str], bool]

FORMATS = ("svg", "png", "pdf")
MM_PER_PX = 25.4 / 96  # CSS's own pixel
SMALLEST_PT = 7.0  # of text in a file for print
MARGIN = 6.0  # px around the figure: fonts of this machine may run a little wider than the page reckons
SVG = "http://www.w3.org/2000/svg"
FONT = "Liberation Sans, Arial, Helvetica, DejaVu Sans, sans-serif"
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
_SIMPLE = re.compile(r"(\*|[a-zA-Z][\w-]*)?((?:[.#][\w-]+|:not\([.\w-]+\)|:first-child|:root)*)$")


def figure_names(contents: ReportContents) -> tuple[str, ...]:
    """Names of all figures that these records have, in the order of the page.

    ``matrix`` comes first. Any of them can be given to ``figure_svg``.
    """
    return (MATRIX, *(figure.name for figure in _figures(contents)))


def figure_svg(
    name: str, contents: ReportContents, *, width: float | None = None, background: str = "#ffffff"
) -> str:
    """One figure as an SVG file that needs nothing else: title, key and caption in it, in the light palette.

    width: in mm, of the file that is to be made of it; the figure is laid out anew for it, with no text under
    ``SMALLEST_PT``. None: as wide as on the page. background: colour behind it; empty for none. UserError
    where there is no figure of that name, or it cannot be so narrow.
    """
    figures = {figure.name: figure for figure in _figures(contents)}
    if name == MATRIX:
        title, caption, natural = matrix_words(read(contents.matrix))
    elif name in figures:
        figure = figures[name]
        title, caption, natural = figure.title, typeset(figure.description), WIDE if figure.wide else HALF
    else:
        why = "; ".join(f"no {part}: {reason}" for part, reason in contents.missing.items())
        raise UserError(
            f"There is no figure {name!r}; there are {', '.join((MATRIX, *figures))}"
            + (f" ({why})." if why else ".")
        )

    def chart(room: float) -> Chart:
        if name != MATRIX:
            return figures[name].drawn(room)
        reading = read(contents.matrix)
        sizes = layout(reading, clustered_order(contents.matrix), width=room)
        return with_key(heatmap(reading, sizes), matrix_key(reading))

    most = max(natural, WIDE)
    drawn = chart(natural if width is None else min(most, _room(width)))
    if width is not None and drawn.width > _room(width) + 0.5:
        least = ceil(width)
        while (
            drawn.width > _room(least) + 0.5
        ):  # names get more room too, so the next width may not do either
            least = max(least + 1, ceil(_width(drawn.width)))
            drawn = chart(min(most, _room(least)))
        raise UserError(
            f"--width {width:g}: {name} needs at least {least} mm for text of {SMALLEST_PT:g} pt; give "
            f"--width {least} or more."
        )
    return standalone(str(captioned(drawn, title, caption).svg(name)), background)


def _room(width: float) -> float:
    """Px for a chart in a file of a width in mm, so that its smallest text has ``SMALLEST_PT``."""
    return width / MM_PER_PX * 0.75 * SMALLEST / SMALLEST_PT - 2 * MARGIN


def _width(room: float) -> float:
    """The width in mm that has this room."""
    return (room + 2 * MARGIN) * MM_PER_PX * SMALLEST_PT / (0.75 * SMALLEST)


def _figures(contents: ReportContents) -> list[Shown]:
    """Every figure of the page but the matrix, in its order."""
    matrix, traits, evaluation = contents.matrix, contents.traits, contents.evaluation
    figures: list[Shown] = []
    if traits is not None:
        figures += [*trait_figures(traits), *loading_figures(traits)]
    figures += [card.figure for card in adapter_cards(matrix, traits) if card.figure is not None]
    verdicts = contents.answer.verdicts if contents.answer else None
    for *_, group in why_groups(matrix, contents.profile, contents.explanation, verdicts):
        figures += group
    if evaluation is not None:
        figures += [*which_figures(evaluation), *rankings(evaluation)]
    if contents.mix is not None:
        figures += combine_figures(contents.mix)
    if contents.checkpoints is not None:
        figures += checkpoints_figures(contents.checkpoints)
    return figures


def check_file(kind: str, *, width: float | None = None, dpi: int = 300) -> None:
    """Raise UserError where no figure can be made so, before anything is computed for it.

    kind, width, dpi: as for ``figure_file``. A PNG or PDF needs typst.
    """
    if kind not in FORMATS:
        raise UserError(f"{kind!r} is no format of a figure; legal: {', '.join(FORMATS)}.")
    if width is not None and not 10 <= width <= 2000:
        raise UserError(f"--width {width:g}: a figure is between 10 and 2000 mm wide.")
    if not 30 <= dpi <= 2400:
        raise UserError(f"--dpi {dpi}: between 30 and 2400.")
    if kind != "svg":
        try:
            import typst  # noqa: F401
        except ImportError:
            raise UserError(
                f"A {kind} needs the package typst, which is not installed: pip install 'traitmap[figures]', "
                "or ask for a .svg."
            ) from None


def figure_file(svg: str, kind: str, *, width: float | None = None, dpi: int = 300) -> bytes:
    """The figure as bytes of a file.

    svg: a standalone SVG. kind: ``svg``, ``png`` or ``pdf``. width: in mm, default the figure's own size; the
    height follows. dpi: dots per inch of a PNG. The same input gives the same bytes, with the same version of
    typst and the same fonts. UserError where typst is not installed, or a number makes no figure.
    """
    check_file(kind, width=width, dpi=dpi)
    svg, natural, height = _with_margin(svg)
    size = natural * MM_PER_PX if width is None else width
    if kind == "svg":
        head = re.search(r"<svg\b[^>]*>", svg)
        if width is not None and head is not None:
            tag = re.sub(r'\s(?:width|height)="[^"]*"', "", head[0])
            sized = f'{tag[:-1]} width="{size:g}mm" height="{size * height / natural:.4g}mm">'
            svg = svg.replace(head[0], sized, 1)
        return svg.encode("utf-8")
    dots = size / 25.4 * dpi
    if kind == "png" and dots * dots * height / natural > 4e8:
        raise UserError(
            f"--width {size:g} at --dpi {dpi} is {dots:.0f} dots wide, more than memory holds; lower one."
        )
    return _compiled(svg, kind, size, dpi)


def _compiled(svg: str, kind: Any, width: float, dpi: int) -> bytes:
    """One page of the figure's size, set by typst."""
    import typst

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
            return bytes(typst.compile(str(page), root=folder, format=kind, ppi=float(dpi)))
        except Exception as error:  # typst's errors are no class of their own in all versions
            raise UserError(f"typst could not set the figure: {error}") from None


def _with_margin(svg: str) -> tuple[str, float, float]:
    """The SVG with room around it, its width and its height in px."""
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)" width="[\d.]+" height="[\d.]+"', svg)
    if size is None:
        raise UserError("The figure has no size; this is a defect of the report.")
    width, height = (float(group) + 2 * MARGIN for group in size.groups())
    place = f'viewBox="{-MARGIN:g} {-MARGIN:g} {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    behind = f'<rect x="{-MARGIN:g}" y="{-MARGIN:g}" width="100%" height="100%"'
    return (
        svg.replace(size[0], place, 1).replace('<rect width="100%" height="100%"', behind, 1),
        width,
        height,
    )


def standalone(svg: str, background: str = "#ffffff") -> str:
    """The SVG of a page as a file that needs nothing else.

    background: colour behind it; empty for none.
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(svg)
    palette: dict[str, str] = {}
    for selectors, properties in _blocks():
        if selectors == ":root":
            palette |= properties
    _dress(root, (), palette, True)
    root.set("font-family", FONT)
    if "font-size" not in root.attrib:
        root.set("font-size", "12px")
    if background:
        box = {"width": "100%", "height": "100%", "fill": background}
        root.insert(2, ElementTree.Element(f"{{{SVG}}}rect", box))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _dress(node: ElementTree.Element, above: Lineage, known: Mapping[str, str], first: bool) -> None:
    """Write the winning styles onto an element and everything below it.

    above: its ancestors from the outermost on. known: custom properties that it inherits.
    """
    tag = node.tag.rsplit("}", 1)[-1]
    lineage = (*above, (tag, frozenset(node.get("class", "").split()), first))
    styles = _styles(lineage)
    properties = {**known, **{name: text for name, text in styles.items() if name.startswith("--")}}
    for name, text in styles.items():
        if name in _WRITTEN:
            node.set(name, _resolved(text, properties))
    for name in [name for name in node.attrib if name == "class" or name.startswith(("data-", "aria-"))]:
        del node.attrib[name]
    for child in [child for child in node if "backdrop" in child.get("class", "").split()]:
        node.remove(child)  # it hides what scrolls beneath names, and nothing scrolls in a file
    for at, child in enumerate(node):
        _dress(child, lineage, properties, at == 0)


@lru_cache(maxsize=4096)
def _styles(lineage: Lineage) -> Mapping[str, str]:
    """What the style sheets set on the last of these elements; a figure has many that are alike."""
    styles: dict[str, str] = {}
    for _, path, properties in _rules():
        if _fits(path, lineage):
            styles.update(properties)
    return styles


def _resolved(text: str, known: Mapping[str, str]) -> str:
    """The value with its custom properties filled in."""
    for _ in range(8):
        match = re.search(r"var\((--[\w-]+)\)", text)
        if match is None:
            break
        text = text[: match.start()] + known.get(match[1], "none") + text[match.end() :]
    return text.replace("!important", "").strip()


def _fits(path: Sequence[Compound], lineage: Lineage) -> bool:
    """Whether the last compound is the element and the others its ancestors, in order."""

    def matches(compound: Compound, element: Element) -> bool:
        (tag, with_, without, only_first), (name, classes, first) = compound, element
        return tag in ("", name) and with_ <= classes and not without & classes and (first or not only_first)

    if not matches(path[-1], lineage[-1]):
        return False
    ancestors = iter(reversed(lineage[:-1]))
    return all(any(matches(compound, element) for element in ancestors) for compound in reversed(path[:-1]))


@lru_cache(maxsize=1)
def _rules() -> tuple[tuple[tuple[int, int, int], tuple[Compound, ...], Mapping[str, str]], ...]:
    """(weight, compounds from the outermost on, properties) of the page's rules, the weakest first.

    Selectors of a kind that figures do not use are left out.
    """
    rules = []
    for selectors, properties in _blocks():
        strong = int(any("!important" in value for value in properties.values()))
        for selector in selectors.split(","):
            matches = [_SIMPLE.match(part) for part in selector.split()]
            if not matches or "#" in selector or ":root" in selector:
                continue
            path = tuple(
                (
                    "" if match[1] in (None, "*") else match[1],
                    frozenset(re.findall(r"(?<!\()\.([\w-]+)", match[2])),
                    frozenset(re.findall(r":not\(\.([\w-]+)\)", match[2])),
                    ":first-child" in match[2],
                )
                for match in matches
                if match is not None
            )
            if len(path) == len(matches):
                classes = sum(len(with_) + len(without) + first for _, with_, without, first in path)
                rules.append(((strong, classes, sum(bool(tag) for tag, *_ in path)), path, properties))
    return tuple(sorted(rules, key=lambda rule: rule[0]))


@lru_cache(maxsize=1)
def _blocks() -> tuple[tuple[str, Mapping[str, str]], ...]:
    """(selectors, properties) of every rule, without what holds for some media only."""
    sheet = themed("\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in _SHEETS))
    sheet = re.sub(r"/\*.*?\*/", "", sheet, flags=re.DOTALL)
    text, at = "", 0
    while (start := sheet.find("@", at)) >= 0:
        text += sheet[at:start]
        depth, at = 0, start
        while at < len(sheet):
            depth += (sheet[at] == "{") - (sheet[at] == "}")
            at += 1
            if depth == 0 and sheet[at - 1] in "};":
                break
    blocks = []
    for match in re.finditer(r"([^{}]+)\{([^{}]*)\}", text + sheet[at:]):
        pairs = (part.partition(":") for part in match[2].split(";"))
        properties = {name.strip(): value.strip() for name, _, value in pairs if value}
        blocks.append((match[1].strip(), properties))
    return tuple(blocks)
