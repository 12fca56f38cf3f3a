"""Which syntactic relations of its items an adapter's gain depends on, against chance and small counts.

For each adapter, target and dependency relation: how often base and adapter are right on items with and
without the relation, and whether the gain differs between the two. A relation that few items have, or on
which few items changed, is not tested but said to be untestable: the base's count on it is often 0, and
a ratio of successes is then as large as whatever is put in place of the 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite, nan

import numpy as np
from scipy import stats

from traitmap.analysis.interval import Interval, unknown
from traitmap.analysis.profiles.syntax_parser import Relations
from traitmap.analysis.profiles.syntax_records import RelationEffect, RelationEffects
from traitmap.analysis.profiles.syntax_statistics import (
    DRAWS,
    LEVEL,
    Codes,
    Flags,
    difference_test,
    welch_interval,
    win_odds_ratio,
    win_test,
)
from traitmap.matrix_record import Array, TransferMatrix
from traitmap.matrix_statistics import benjamini_hochberg

MIN_SUPPORT = 10
PRIOR = 0.5  # Jeffreys: half a success and half a failure
_LENGTHS = 3  # thirds of text length within which a finding is tested again


def relation_effects(
    matrix: TransferMatrix,
    relations: Mapping[str, Relations],
    *,
    classes: Mapping[str, Sequence[str | None]] | None = None,
    sources: Sequence[str] | None = None,
    min_support: int = MIN_SUPPORT,
    seed: int = 0,
) -> RelationEffects:
    """Test every relation in every cell of the given targets.

    relations: target -> relations of its input texts, whose index is the index of the item.
    classes: target -> gold class of every item, where it has classes. sources: by default all.
    min_support: items that must have, and lack, a relation.

    The claim is about the very adapters that were trained: seeds of one source are averaged, not sampled.
    """
    chosen = tuple(matrix.sources if sources is None else sources)
    found = [
        effect
        for target, parsed in relations.items()
        if target in matrix.item_scores
        for effect in _of_target(
            matrix, target, parsed, chosen, (classes or {}).get(target), min_support, seed
        )
    ]
    q = benjamini_hochberg(np.array([effect.p for effect in found], dtype=np.float64))
    effects = tuple(replace(effect, q=float(one)) for effect, one in zip(found, q, strict=True))
    first = next(iter(relations.values()), None)
    conditions = {
        "parser": first.parser if first else None,
        "scheme": first.scheme if first else None,
        "derived": dict(first.derived) if first else {},
        "prior": "Beta(1/2, 1/2)",
        "test": "0/1 scores: won : lost items with against without the relation, exact for one seed; "
        f"other scores: permutation of Welch's statistic, {DRAWS} draws",
        "correction": f"Benjamini-Hochberg over {int(np.isfinite(q).sum())} tests",
        "min_support": min_support,
        "seed": seed,
        "parsed": {name: [len(one.texts), one.available] for name, one in relations.items()},
    }
    return RelationEffects(effects, conditions)


def _of_target(
    matrix: TransferMatrix,
    target: str,
    relations: Relations,
    sources: Sequence[str],
    classes: Sequence[str | None] | None,
    min_support: int,
    seed: int,
) -> Iterator[RelationEffect]:
    scores = matrix.item_scores[target][:, :, relations.texts]
    strata = _strata(relations, classes)
    for source in sources:
        row = scores[1 + matrix.sources.index(source)]
        measured = row[np.isfinite(row).any(axis=1)]
        if not len(measured):
            continue
        both = np.isfinite(scores[0, 0]) & np.isfinite(measured).all(axis=0)
        if both.any():
            yield from _of_cell(
                source,
                target,
                relations.labels,
                relations.present[both],
                scores[0, 0, both],
                measured[:, both],
                strata[both],
                min_support,
                seed,
            )


def _strata(relations: Relations, classes: Sequence[str | None] | None) -> Codes:
    """(n,) one code for each class of items and third of their length."""
    if not len(relations.words):
        return np.zeros(0, np.int64)
    edges = np.quantile(relations.words, np.arange(1, _LENGTHS) / _LENGTHS)
    lengths = np.searchsorted(edges, relations.words)
    if classes is None:
        return lengths.astype(np.int64)
    names = np.array([str(classes[index]) for index in relations.texts])
    return np.unique(names, return_inverse=True)[1] * _LENGTHS + lengths


def _of_cell(
    source: str,
    target: str,
    labels: Sequence[str],
    present: Flags,
    base: Array,
    adapter: Array,
    strata: Codes,
    min_support: int,
    seed: int,
) -> Iterator[RelationEffect]:
    """Effects of one cell: base (n,) and adapter (seeds, n) on items with relations (n, R)."""
    binary = bool(np.isin(base, (0.0, 1.0)).all() and np.isin(adapter, (0.0, 1.0)).all())
    support = present.sum(axis=0)
    enough = (support >= min_support) & (len(base) - support >= min_support)
    p = np.full(len(labels), nan)
    if enough.any() and not binary:
        none = np.zeros(len(base), np.int64)
        p[enough] = difference_test(adapter.mean(axis=0) - base, present[:, enough], none, seed=seed)
    for number, relation in enumerate(labels):
        effect = RelationEffect(
            source, target, relation, int(support[number]), int(len(base) - support[number])
        )
        if not enough[number]:
            side = "with" if support[number] < min_support else "without"
            few = min(effect.n_with, effect.n_without)
            why = f"items {side} the relation: {few}; a test needs {min_support}"
            effect = replace(effect, reason=why)
        effect = _with_rates(effect, base, adapter, present[:, number], binary)
        if enough[number] and binary:
            effect = _with_win_test(effect, base, adapter, present[:, number], strata, seed)
        elif enough[number]:
            effect = _with_difference_test(
                effect, float(p[number]), base, adapter, present[:, number], strata, seed
            )
        yield effect


def _with_rates(
    effect: RelationEffect, base: Array, adapter: Array, present: Flags, binary: bool
) -> RelationEffect:
    mean = adapter.mean(axis=0)
    rate = _rate if binary else _mean
    if binary:
        successes = float(base[present].sum()), float(mean[present].sum())
        effect = replace(effect, base_right=successes[0], adapter_right=successes[1])
    estimate, low, high, detectable = welch_interval(mean - base, present, binary=binary)
    return replace(
        effect,
        base_with=rate(base[present]),
        base_without=rate(base[~present]),
        adapter_with=rate(mean[present]),
        adapter_without=rate(mean[~present]),
        difference=Interval(estimate, low, high),
        detectable=nan if binary else detectable,
    )


def _rate(scores: Array) -> Interval:
    """Jeffreys' rate and interval; several seeds count as one answer per item."""
    right, n = float(scores.sum()), len(scores)
    if not n:
        return unknown("no item")
    low, high = stats.beta.ppf([LEVEL / 2, 1 - LEVEL / 2], right + PRIOR, n - right + PRIOR)
    return Interval((right + PRIOR) / (n + 2 * PRIOR), float(low), float(high))


def _mean(scores: Array) -> Interval:
    if not len(scores):
        return unknown("no item")
    if len(scores) < 2:
        return Interval(float(scores.mean()), reason="one item has no interval")
    half = float(stats.t.ppf(1 - LEVEL / 2, len(scores) - 1) * scores.std(ddof=1) / np.sqrt(len(scores)))
    return Interval(float(scores.mean()), float(scores.mean()) - half, float(scores.mean()) + half)


def _with_win_test(
    effect: RelationEffect, base: Array, adapter: Array, present: Flags, strata: Codes, seed: int
) -> RelationEffect:
    wins = ((adapter == 1) & (base == 0)).sum(axis=0).astype(np.float64)
    losses = ((adapter == 0) & (base == 1)).sum(axis=0).astype(np.float64)
    p = win_test(wins, losses, present, np.zeros(len(base), np.int64), seed=seed)
    value, low, high, detectable = win_odds_ratio(wins, losses, present)
    decided = wins + losses > 0
    changed, others = int(decided[present].sum()), int(decided[~present].sum())
    odds = Interval(value, low, high)
    if not changed or not others:
        odds = unknown(f"no item {'with' if not changed else 'without'} the relation changed")
    if not isfinite(p):
        why = f"{changed} of {effect.n_with} items with the relation changed: too few to find anything"
        if changed and not others:
            why = "no item without the relation changed: nothing to compare with"
        return replace(effect, odds_ratio=odds, detectable=np.inf, reason=why)
    within = win_test(wins, losses, present, strata, seed=seed) if p < LEVEL else nan
    return replace(effect, odds_ratio=odds, p=p, p_within=within, detectable=detectable)


def _with_difference_test(
    effect: RelationEffect,
    p: float,
    base: Array,
    adapter: Array,
    present: Flags,
    strata: Codes,
    seed: int,
) -> RelationEffect:
    if not isfinite(p):
        return replace(effect, detectable=np.inf, reason="the difference is the same on every item")
    within = nan
    if p < LEVEL:
        differences = adapter.mean(axis=0) - base
        within = float(difference_test(differences, present[:, None], strata, seed=seed)[0])
    return replace(effect, p=p, p_within=within)
