"""Loadings of the leading components, each with its interval, sorted so that the poles can be read off."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from markupsafe import Markup

from traitmap.analysis.traits.records import Traits
from traitmap.report.row_charts import ChartRow, forest
from traitmap.wording import UNKNOWN, clean, counted, interval, related, share, signed

SHOWN_AT_LEAST = 2
SHOWN_AT_MOST = 6


@dataclass(frozen=True)
class Component:
    """One component as the page shows it."""

    number: int
    name: str
    supported: bool
    explained: str
    naming: str
    figure: Markup


def shown_components(traits: Traits) -> int:
    """How many components to show: the supported ones, and at least two, to see what noise is like."""
    used = traits.n_components.get("used") or 0
    return min(max(used, SHOWN_AT_LEAST), SHOWN_AT_MOST, traits.loadings.shape[1])


def component_name(traits: Traits, c: int) -> str:
    """``PC0: reviews``, or ``PC0`` where nothing names it; counted from 0, as the warnings do."""
    named = c >= len(traits.naming) or traits.naming[c].origin != "none"
    given = clean(traits.names[c]) if named and c < len(traits.names) else ""
    return f"PC{c}: {given}" if given else f"PC{c}"


def naming_in_words(traits: Traits, c: int) -> str:
    """Why a component is called what it is called, or that nothing names it."""
    if c >= len(traits.naming):
        return ""
    evidence = traits.naming[c]
    if evidence.origin == "tags":
        lift = f", {evidence.lift:.1f} times its share" if isfinite(evidence.lift) else ""
        chance = f", {related('p', evidence.p)}" if isfinite(evidence.p) else ""
        return f"named after the tag “{clean(evidence.tag)}” at its {clean(evidence.pole)} end{lift}{chance}"
    return {"user": "named in the study", "endpoint": "named by a language model"}.get(
        evidence.origin, "the targets that load on it share no common property"
    )


def components(traits: Traits) -> tuple[Component, ...]:
    """The leading components with their loadings as figures."""
    used = traits.n_components.get("used") or 0
    shown = []
    for c in range(shown_components(traits)):
        ratio = float(traits.explained_variance_ratio[c])
        low, high = float(traits.null_p05[c]), float(traits.null_p95[c])
        null = (
            f"noise: {share(low)} to {share(high)}"
            if isfinite(low) and isfinite(high)
            else "noise band unknown"
        )
        shown.append(
            Component(
                number=c + 1,
                name=component_name(traits, c),
                supported=c < used,
                explained=f"{share(ratio)} of the variance ({null})",
                naming=naming_in_words(traits, c) if c < used else "",
                figure=_figure(traits, c),
            )
        )
    return tuple(shown)


def _figure(traits: Traits, c: int) -> Markup:
    order = sorted(range(len(traits.targets)), key=lambda t: _sort_key(float(traits.loadings[t, c])))
    rows = [_row(traits, t, c) for t in order]
    return forest(
        rows,
        key=f"loadings-{c + 1}",
        title=f"Loadings on {component_name(traits, c)}",
        description=(
            f"{counted(len(rows), 'target')} with loading and 95 % interval; filled dots: the interval "
            "excludes zero. The same numbers stand in the table below."
        ),
        limit=1.0,
        ends=("", ""),
        tick="1",
        label_room=126.0,
        text_room=50.0,
    )


def _sort_key(loading: float) -> float:
    """Largest first, unknown last."""
    return -loading if isfinite(loading) else 2.0


def _row(traits: Traits, t: int, c: int) -> ChartRow:
    loading = float(traits.loadings[t, c])
    low, high = float(traits.loadings_low[t, c]), float(traits.loadings_high[t, c])
    return ChartRow(
        label=clean(traits.targets[t]),
        value=loading,
        low=low,
        high=high,
        text=signed(loading, 2) if isfinite(loading) else "unknown",
        solid=low > 0 or high < 0,
    )


def loading_text(loading: float, low: float, high: float) -> str:
    """``+.62 [+.40, +.75]``."""
    if not isfinite(loading):
        return "unknown"
    shown = interval(low, high, 2)
    return signed(loading, 2) + (f" {shown}" if shown != UNKNOWN else "")
