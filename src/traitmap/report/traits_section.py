"""The section of the page on traits, and the card of each adapter."""

from __future__ import annotations

from typing import Any

import numpy as np

from traitmap.analysis.records import Traits
from traitmap.matrix import TransferMatrix
from traitmap.report import alternative
from traitmap.report.loadings import components, shown_components
from traitmap.report.profiles import profiles
from traitmap.report.reading import read
from traitmap.report.scree import scree


def traits_part(matrix: TransferMatrix, traits: Traits | None) -> dict[str, Any]:
    """What ``traits.html`` shows."""
    cards = {"profiles": profiles(read(matrix), traits)}
    if traits is None:
        return cards | {"traits": None}
    count = shown_components(traits)
    return cards | {
        "traits": traits,
        "scree": scree(traits),
        "scree_table": alternative.scree_table(traits),
        "components": components(traits),
        "loadings_have_intervals": bool(np.isfinite(traits.loadings_low).any()),
        "loadings_table": alternative.loadings_table(traits, count),
        "stability_table": alternative.stability_table(traits),
        "effects_table": alternative.effects_table(traits, count),
    }
