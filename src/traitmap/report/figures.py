"""Every figure of the report by its name, each as an SVG of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from markupsafe import Markup

from traitmap.analysis.order import clustered_order
from traitmap.errors import UserError
from traitmap.report.contents import ReportContents
from traitmap.report.heatmap import heatmap, layout
from traitmap.report.reading import read
from traitmap.report.recommendation_figures import rankings
from traitmap.report.shown import Shown
from traitmap.report.standalone import standalone
from traitmap.report.traits_section import adapter_figures, loading_figures, trait_figures
from traitmap.report.which import which_figures
from traitmap.report.why import why_groups

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
        one
        for group in why_groups(contents.matrix, contents.profile, contents.explanation)
        for one in group.figures
    ]
    if contents.evaluation is not None:
        shown += [*which_figures(contents.evaluation), *rankings(contents.evaluation)]
    return found | {one.name: partial(_drawn, one.svg) for one in shown}


def _drawn(svg: Markup) -> Markup:
    return svg
