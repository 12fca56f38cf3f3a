"""Features of every ordered pair (source, target), known before anything is trained, and reasons.

The two records that profiles, explanation and recommendation pass to one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from traitmap.jsonable import outline
from traitmap.matrix.record import Array

Group = Literal["hidden", "surface", "size"]


@dataclass(frozen=True)
class Feature:
    """One number for every pair.

    group: ``hidden`` (output length, class distribution, syntax, format), ``surface`` (style, meaning,
        vocabulary) or ``size`` (size and difficulty).
    words: what it says, so that a reason can be made of it ("outputs as long as the target's").
    values: (S, T), NaN where unknown. A higher value need not be better.
    scope: ``pair``, or ``source`` or ``target`` where it is constant along the other axis.
    """

    name: str
    group: Group
    words: str
    values: Array
    scope: Literal["pair", "source", "target"] = "pair"


@dataclass(frozen=True)
class PairFeatures:
    """Features of all pairs. Axis order is always (sources, targets).

    features: each with values (S, T), NaN where unknown; never made from scores.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    features: tuple[Feature, ...]

    __repr__ = outline

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def array(self) -> Array:
        """(S, T, F) all values, in the order of ``features``."""
        if not self.features:
            return np.empty((len(self.sources), len(self.targets), 0))
        return np.stack([feature.values for feature in self.features], axis=-1)

    def over(self, sources: Sequence[str], targets: Sequence[str]) -> PairFeatures:
        """The same features over other sources and targets, in their order; NaN where these have none."""
        rows = {name: i for i, name in enumerate(self.sources)}
        columns = {name: j for j, name in enumerate(self.targets)}
        grid = np.ix_([rows.get(name, -1) for name in sources], [columns.get(name, -1) for name in targets])
        features = []
        for feature in self.features:
            padded = np.full((len(rows) + 1, len(columns) + 1), np.nan)  # the last row and column: unknown
            padded[:-1, :-1] = feature.values
            features.append(replace(feature, values=padded[grid]))
        return PairFeatures(tuple(sources), tuple(targets), tuple(features))


@dataclass(frozen=True)
class Reason:
    """One reason.

    kind: a stable word for machines (``length``, ``class_prior``, ``syntax``, ``format``, ...).
    words: the reason with its numbers, for people.
    strength: comparable between reasons of one list, larger is stronger; sign says for or against
        where there is such a thing.
    significant: after correction for all tests of its family; None where no test was made.
    """

    kind: str
    words: str
    strength: float
    significant: bool | None = None
