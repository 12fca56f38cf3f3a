"""Traits as small tables for notebooks: how many, their shares beside noise, loadings with intervals."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from traitmap.notebook import Entry, Rows, between, number, page

if TYPE_CHECKING:
    from traitmap.analysis.records import Traits


def traits_html(traits: Traits) -> str:
    """The supported components, or the first two to see what noise is like, and every warning."""
    used = traits.n_components.get("used") or 0
    shown = range(min(max(used, 2), 6, traits.loadings.shape[1]))
    plural = "trait is" if used == 1 else "traits are"
    title = (
        f"{used or 'No'} {plural} supported by {len(traits.sources)} sources × {len(traits.targets)} targets"
    )
    heads = [_head(traits, c, c < used) for c in shown]
    shares = [
        (
            "explained",
            [Entry(_percent(float(traits.explained_variance_ratio[c])), strong=c < used) for c in shown],
        ),
        (
            "noise, 5 to 95 %",
            [
                Entry(f"{_percent(float(traits.null_p05[c]))} to {_percent(float(traits.null_p95[c]))}")
                for c in shown
            ],
        ),
    ]
    loadings = [(target, [_loading(traits, t, c) for c in shown]) for t, target in enumerate(traits.targets)]
    warnings = [
        f"! {'; '.join(part for part in (one.message, one.action) if part)}." for one in traits.warnings
    ]
    return page(
        title, Rows("share of variance", heads, shares), Rows("loading", heads, loadings), notes=warnings
    )


def _head(traits: Traits, c: int, supported: bool) -> str:
    """``PC0: reviews``, or ``PC0`` where nothing names it."""
    named = supported and c < len(traits.naming) and traits.naming[c].origin != "none"
    return f"PC{c}: {traits.names[c]}" if named else f"PC{c}"


def _loading(traits: Traits, t: int, c: int) -> Entry:
    value = float(traits.loadings[t, c])
    low, high = float(traits.loadings_low[t, c]), float(traits.loadings_high[t, c])
    told = low > 0 or high < 0
    text = f"{number(value, 2, sign=True)} {between(low, high, 2)}".strip()
    return Entry(text, value if isfinite(value) else 0.0, told)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if isfinite(value) else "–"
