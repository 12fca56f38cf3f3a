"""A figure as a file for print: SVG in any width, PNG and PDF by typst, without a browser."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from traitmap.errors import UserError

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
    width, height = (float(one) + 2 * MARGIN for one in found.groups())
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
