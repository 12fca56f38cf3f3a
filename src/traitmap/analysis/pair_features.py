"""What is known of every ordered pair (source, target) before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from traitmap.matrix_record import Array

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
    """Features of all pairs. Axis order is always (sources, targets)."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    features: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def array(self) -> Array:
        """(S, T, F) all values, in the order of ``features``."""
        if not self.features:
            return np.empty((len(self.sources), len(self.targets), 0))
        return np.stack([feature.values for feature in self.features], axis=-1)
