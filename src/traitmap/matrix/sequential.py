"""When may a cell stop being asked? Looks at growing parts of the items, and rules that hold at every look.

Items are asked in a seeded order, and after a tenth, a fifth, ... of them somebody looks. Who stops as soon
as an interval looks good enough chooses among intervals, so that plain ones would hold less often than they
say. These are repeated intervals (C. Jennison and B. Turnbull, JRSS B 51:305-361, 1989): the usual intervals
at levels such that all looks together miss the truth in at most 5 %, by whatever rule one stops. Levels come
from a spending function (K. Lan and D. DeMets, Biometrika 70:659-663, 1983): by a share t of the items 5 %
times t squared has been spent (the power family of K. Kim and D. DeMets, Biometrika 74:149-154, 1987), and
limits by recursive integration (P. Armitage, C. McPherson and B. Rowe, JRSS A 132:235-244, 1969). The square
was chosen by items asked at equal coverage, see ``benchmarks/ask_less.py``. Where seeds count beside items a
later look adds less than its share of items, and the intervals hold more often than they say.

Arrays in, decisions out: nothing here reads a run. Whole cells of a target that is looked at pay for the
looks too, since they had their chances to stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from traitmap.matrix.assisted import Anchors, assisted_gain
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import CONFIDENCE, Groups, numbered_groups, paired_gain

FRACTIONS = (0.1, 0.2, 0.35, 0.55, 0.75, 1.0)
FEWEST = 20  # items of a first look
SPENDING = 2.0  # power of the share of items by which chances of a miss are spent
Decision = Literal["sign", "best"]

PRECISE = "precise enough"
SHARE = "its share is asked"
CLEAR = "its sign is clear"
BEATEN = "another source is better"
BELOW_BASE = "the base is better"
FIRST = "no other source can be better"
NO_RIVAL = "it is no rival for the best"

_GRID = np.linspace(-8.0, 8.0, 1601)  # of a Brownian motion at times up to 1
_LEVELS = np.concatenate([np.geomspace(1e-9, 0.02, 60), np.linspace(0.025, 0.999, 60)])


@dataclass(frozen=True)
class Rule:
    """When a cell stops being asked: as soon as one of these holds.

    precision: half the width of the gain's interval, in the unit of the scores; with anchors, of that to the
    gain on all items. decide: ``sign``, the interval leaves out 0; ``best``, the cell is out of the contest
    for the best of its target, or has won it. ask: share of the items, after which the cell ends.
    """

    precision: float | None = None
    decide: Decision | None = None
    ask: float | None = None


ALL_LOOKS = Rule(precision=0.0)


def look_counts(n_items: int, rule: Rule = ALL_LOOKS) -> tuple[int, ...]:
    """How many items have been asked at each look, rising; the last look is at all that are asked.

    By ``FRACTIONS``, and never fewer than ``FEWEST`` at the first look or half of that from look to look.
    rule: with ``ask``, the last look is at this share of the items, and the only one where nothing else may
    end a cell; nobody chooses among intervals then.
    """
    most = n_items
    if rule.ask is not None and (share := max(ceil(rule.ask * n_items), FEWEST)) + FEWEST // 2 <= n_items:
        most = share
    counts: list[int] = []
    for fraction in FRACTIONS[:-1] if rule.precision is not None or rule.decide else ():
        count = max(ceil(fraction * n_items), FEWEST)
        if count + FEWEST // 2 <= most and (not counts or count >= counts[-1] + FEWEST // 2):
            counts.append(count)
    return (*counts, most)


def confidence_at(counts: Sequence[int], asked: int, *, comparisons: int = 1) -> float:
    """Level of a single interval at the look at ``asked`` items, such that all looks together hold in 95 %.

    counts: of ``look_counts``. comparisons: intervals that must hold together (Bonferroni). Plain 95 % (of as
    many comparisons) where nobody looked at so many items.
    """
    alpha = (1 - CONFIDENCE) / comparisons
    if asked not in counts or len(counts) == 1:
        return 1 - alpha
    limit = boundaries(tuple(counts), (alpha,))[0, list(counts).index(asked)]
    return float(2 * special.ndtr(limit) - 1)


def repeated_p(p: ArrayLike, counts: Sequence[int], asked: int) -> Array:
    """p-values as they hold at every look, from those of the look at ``asked`` items alone; NaN stays NaN.

    The least level at which the limits of that look are passed (Jennison and Turnbull 1989), never below the
    plain value, and at least 1e-9. As they are where nobody looked at so many items, or looked but once.
    """
    p = np.asarray(p, dtype=float)
    if asked not in counts or len(counts) == 1:
        return p
    limits = boundaries(tuple(counts), tuple(_LEVELS))[:, list(counts).index(asked)]
    z = -special.ndtri(np.clip(p, 1e-300, 1.0) / 2)
    level = np.exp(np.interp(-z, -limits, np.log(_LEVELS)))
    return np.where(np.isnan(p), np.nan, np.where(p >= 1, 1.0, np.maximum(level, p)))


@lru_cache(maxsize=256)
def boundaries(counts: tuple[int, ...], levels: tuple[float, ...]) -> Array:
    """(levels, looks) limits in standard errors, passed at any look with that chance under the null.

    counts: items at each look, rising. levels: two-sided.
    """
    times = np.array(counts, dtype=float) / counts[-1]
    spent = np.array(levels)[:, None] * times**SPENDING
    step = _GRID[1] - _GRID[0]
    limits = np.empty(spent.shape)
    density: Array = np.exp(-0.5 * _GRID**2 / times[0]) / np.sqrt(2 * np.pi * times[0])
    within = np.repeat(density[None], len(levels), axis=0)
    for look, time in enumerate(times):
        if look:
            gap = np.sqrt(time - times[look - 1])
            kernel = np.exp(-0.5 * ((_GRID[:, None] - _GRID) / gap) ** 2) / (gap * np.sqrt(2 * np.pi))
            within = within @ kernel * step
        due = np.diff(spent, axis=1, prepend=0.0)[:, look] / 2
        pieces = (within[:, 1:] + within[:, :-1]) / 2 * step
        above = np.cumsum(pieces[:, ::-1], axis=1)[
            :, ::-1
        ]  # the chance to the right of each point but the last
        for row in range(len(levels)):
            # log chances are smooth, so that they can be interpolated far out
            tail = np.log(np.maximum(above[row], 1e-300))
            limits[row, look] = np.interp(-np.log(due[row]), -tail, _GRID[:-1])
        within = np.where(np.abs(_GRID) < limits[:, look, None], within, 0.0)
        limits[:, look] /= np.sqrt(time)
    limits.setflags(write=False)
    return limits


def settled(
    scores: Array,
    rule: Rule,
    counts: Sequence[int],
    *,
    active: Sequence[int],
    rivals: Sequence[int] = (),
    better: int = 1,
    groups: Groups | None = None,
    anchors: Anchors | None = None,
) -> dict[int, str]:
    """Which of the sources that are still asked about may stop after this look, each with the reason.

    scores: (1 + S, seeds, n) of the n items that have been asked, row 0 the base; an adapter without seeds of
        its own has the same scores for each. n is one of ``counts`` (see ``look_counts``), else nobody stops.
    active: places (0 to S - 1) of sources that are still asked; others may hold NaN. One whose scores are not
        known stays. rivals: those of them that may be the best of the target, where that is to be decided.
    better: -1 where lower scores are. groups: (n,) of items that repeat or belong together. anchors: rows
        that were asked every item, by which gains on all items are estimated.
    """
    asked = scores.shape[2]
    known = [s for s in active if np.isfinite(scores[[0, 1 + s]]).any(axis=2).all()]
    if asked not in counts or not known:
        return {}
    whole: NDArray[np.bool_] = np.logical_and.reduce(
        np.isfinite(scores[[0, *(1 + s for s in known)]]), axis=(0, 1)
    )
    if whole.sum() < 2:
        return {}
    scores = scores[:, :, whole]
    groups = None if groups is None else numbered_groups(groups[whole])
    anchors = None if anchors is None else anchors.of(whole)
    reasons = dict[int, str]()
    if rule.decide == "best":
        reasons |= _out_of_contest(scores, counts, asked, known, rivals, better, groups, anchors)
    if rule.decide == "sign" or rule.precision is not None:
        base = scores[0]
        low, high, half = _gains([scores[1 + s] - base for s in known], _binary(scores, known), groups,
                                 confidence_at(counts, asked), anchors)  # fmt: skip
        for s, left, right, width in zip(known, low, high, half, strict=True):
            if rule.decide == "sign" and (left > 0 or right < 0):
                reasons.setdefault(s, CLEAR)
            if rule.precision is not None and width <= rule.precision:
                reasons.setdefault(s, PRECISE)
    return reasons


def _out_of_contest(
    scores: Array,
    counts: Sequence[int],
    asked: int,
    known: Sequence[int],
    rivals: Sequence[int],
    better: int,
    groups: Groups | None,
    anchors: Anchors | None,
) -> dict[int, str]:
    """Sources that are clearly worse than the leader, and the leader where nobody else is left.

    The base runs too. All comparisons of the contest hold together in 95 %: one for each rival but one, as
    many as there were at the beginning.
    """
    running = [s for s in known if s in rivals]
    reasons = {s: NO_RIVAL for s in known if s not in rivals}
    if not running:
        return reasons
    rows = [0, *(1 + s for s in running)]
    means = better * scores[rows].mean(axis=(1, 2))
    leader = rows[int(np.argmax(means))]
    others = [row for row in rows if row != leader]
    level = confidence_at(counts, asked, comparisons=max(len(rivals), 1))
    low, _, _ = _gains(
        [better * (scores[leader] - scores[row]) for row in others],
        _binary(scores, running),
        groups,
        level,
        anchors,
    )
    beaten = {row for row, left in zip(others, low, strict=True) if left > 0}
    why = BEATEN if leader else BELOW_BASE
    reasons |= {row - 1: why for row in beaten if row}
    left_over = [row for row in rows if row not in beaten and row]
    if leader and left_over == [leader]:
        reasons[leader - 1] = FIRST
    return reasons


def _gains(
    differences: Sequence[Array],
    binary: bool,
    groups: Groups | None,
    confidence: float,
    anchors: Anchors | None,
) -> tuple[Array, Array, Array]:
    """Limits of the gains of arrays (seeds, n), and what their precision is: half the width, with anchors
    that to the gain on all items. Seeds that are all alike are one adapter without seeds."""
    stacked = np.stack(differences)
    low, high, half = (np.empty(len(stacked)) for _ in range(3))
    alike = np.ptp(stacked, axis=1).max(axis=1) == 0
    for part, values in ((alike, stacked[:, :1]), (~alike, stacked)):
        if part.any() and anchors is not None:
            gains = assisted_gain(values[part], anchors, binary=binary, confidence=confidence)
            low[part], high[part], half[part] = gains.low, gains.high, gains.within
        elif part.any():
            _, low[part], high[part], _ = paired_gain(
                values[part], binary=binary, groups=groups, confidence=confidence
            )
            half[part] = (high[part] - low[part]) / 2
    return low, high, half


def _binary(scores: Array, rows: Sequence[int]) -> bool:
    return bool(np.isin(scores[[0, *(1 + s for s in rows)]], (0.0, 1.0)).all())


def looks_at(asking: Any, target: str) -> tuple[int, ...]:
    """Counts of the looks at a target's items, from what a run keeps of it; empty where nobody looked.

    asking: ``Parts.asking``, which a matrix has among its conditions.
    """
    looks = asking.get("looks") if isinstance(asking, Mapping) else None
    counts = looks.get(target) if isinstance(looks, Mapping) else None
    return tuple(counts) if isinstance(counts, list | tuple) else ()


def order_of_items(n_items: int, seed: int) -> NDArray[np.int64]:
    """(n,) the order in which items are asked: whatever is asked first is a random part of all."""
    return np.random.default_rng(seed).permutation(n_items)
