"""Adapter minus base on the same items, with the intervals and tests of the transfer matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from traitmap.analysis.interval import Interval, unknown
from traitmap.matrix_record import Array
from traitmap.matrix_statistics import (
    bootstrap_interval,
    mcnemar,
    paired_interval,
    pooled_test,
    sign_flip,
)


@dataclass(frozen=True)
class Change:
    """What changed from the base to the adapter. p: of no change; NaN where it cannot be tested."""

    difference: Interval
    p: float


NO_CHANGE_KNOWN = Change(unknown("not measured for both"), nan)


def paired_changes(differences: Sequence[Array], *, binary: bool) -> list[Change]:
    """Mean of each of several arrays (S, n) of differences on the n items of one target.

    binary: of 0/1 values. One seed: Tango's interval and exact McNemar, or paired bootstrap and sign-flip
    test. Several: min F' over seeds and items. Unknown where an item is NaN.
    """
    found: list[Change] = [NO_CHANGE_KNOWN] * len(differences)
    by_seeds: dict[int, list[int]] = {}
    for place, one in enumerate(differences):
        if one.size and np.isfinite(one).all():
            by_seeds.setdefault(len(one), []).append(place)
    for n_seeds, places in by_seeds.items():
        stacked = np.stack([differences[place] for place in places])
        values = stacked.mean(axis=(1, 2))
        low, high, p = _tested(stacked, n_seeds, binary)
        for place, value, *limits, own in zip(places, values, low, high, p, strict=True):
            reason = "" if np.isfinite(limits[0]) else "nothing varies, so that no interval can be had"
            interval = Interval(float(value), float(limits[0]), float(limits[1]), reason)
            found[place] = Change(interval, float(own))
    return found


def _tested(stacked: Array, n_seeds: int, binary: bool) -> tuple[Array, Array, Array]:
    """(K,) limits and p-values of differences (K, S, n)."""
    if n_seeds > 1:
        return pooled_test(stacked, binary=binary)
    alone = stacked[:, 0]
    if not binary:
        return *bootstrap_interval(alone), sign_flip(alone)
    wins, losses = (alone > 0).sum(axis=1).astype(float), (alone < 0).sum(axis=1).astype(float)
    return *paired_interval(wins, losses, alone.shape[1]), mcnemar(wins, losses)
