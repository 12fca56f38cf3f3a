"""The section of the page on traits, and the card of each adapter."""

from __future__ import annotations

from typing import Any

import numpy as np

from traitmap.analysis.records import Traits
from traitmap.matrix import TransferMatrix
from traitmap.report import alternative
from traitmap.report.alternative import Entry, TextTable
from traitmap.report.headline import traits_in_words
from traitmap.report.loadings import components, loading_text, shown_components
from traitmap.report.profiles import Profile, profiles
from traitmap.report.reading import read
from traitmap.report.shown import Shown
from traitmap.report.svg import clean
from traitmap.report.traits_figures import biplot, cross_validation, scree, stability
from traitmap.report.wording import typeset


def traits_part(matrix: TransferMatrix, traits: Traits | None) -> dict[str, Any]:
    """What ``traits.html`` shows."""
    cards = {"adapters": adapter_figures(matrix, traits)}
    if traits is None:
        return cards | {"traits": None}
    return cards | {
        "traits": traits,
        "trait_figures": trait_figures(traits),
        "loading_figures": loading_figures(traits),
        "loadings_have_intervals": bool(np.isfinite(traits.loadings_low).any()),
        "effects_table": alternative.effects_table(traits, shown_components(traits)),
    }


def trait_figures(traits: Traits) -> tuple[Shown, ...]:
    """The evidence for the number of traits, the plane of the first two, and how stable they are."""
    found = (
        scree(traits, traits_in_words(traits)[1]),
        cross_validation(traits),
        biplot(traits),
        stability(traits),
    )
    return tuple(one for one in found if one is not None)


def loading_figures(traits: Traits) -> tuple[Shown, ...]:
    """Loadings of each leading component."""
    return tuple(
        Shown(
            name=f"loadings-{one.number}",
            title=one.name,
            said=typeset(one.explained + (f"; {one.naming}" if one.naming else "")),
            svg=one.figure,
            table=_loadings_table(traits, one.number - 1),
            tag="" if one.supported else "not supported",
            faint=not one.supported,
        )
        for one in components(traits)
    )


def _loadings_table(traits: Traits, c: int) -> TextTable:
    columns = (traits.loadings, traits.loadings_low, traits.loadings_high)
    return TextTable(
        caption="Loadings with 95 % intervals.",
        heads=("target", "loading"),
        rows=tuple(
            (clean(target), (Entry(typeset(loading_text(*(float(column[t, c]) for column in columns)))),))
            for t, target in enumerate(traits.targets)
        ),
    )


def adapter_figures(
    matrix: TransferMatrix, traits: Traits | None
) -> tuple[tuple[Profile, TextTable | None], ...]:
    """The card of each adapter, with the table of its figure."""
    return tuple((one, _card_table(one)) for one in profiles(read(matrix), traits))


def _card_table(card: Profile) -> TextTable | None:
    if not card.rows:
        return None
    heading, rows = "", []
    for row in card.rows:
        if row.heading:
            heading = row.label
        elif row.text:
            rows.append((row.label, (Entry(heading or "Traits"), Entry(typeset(row.text)))))
    return TextTable(
        caption="Gains over the base with 95 % intervals.",
        heads=("what", "among", "effect"),
        rows=tuple(rows),
    )
