"""What was found of each syntactic relation in each cell, as records and in words.

Which syntactic relations of its items an adapter's gain depends on, against chance and small counts.

For each adapter, target and dependency relation: how often base and adapter are right on items with and
without the relation, and whether the gain differs between the two. A relation that few items have, or on
which few items changed, is not tested but said to be untestable: the base's count on it is often 0, and
a ratio of successes is then as large as whatever is put in place of the 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import stats

from traitmap.analysis.profiles.parser import OBJECT_PREDICATE, Relations
from traitmap.analysis.profiles.relation_tests import (
    DRAWS,
    LEVEL,
    Codes,
    Flags,
    difference_test,
    welch_interval,
    win_odds_ratio,
    win_test,
)
from traitmap.jsonable import jsonable
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import Interval, benjamini_hochberg, t_value, unknown

# What spaCy's own English pipelines call these UD relations, for comparison with work that used them.
CLEARNLP_NAMES: Mapping[str, str] = MappingProxyType(
    {
        OBJECT_PREDICATE: "oprd",
        "cc:preconj": "preconj",
        "compound:prt": "prt",
        "obl:agent": "agent",
        "obj": "dobj",
        "iobj": "dative",
        "nsubj:pass": "nsubjpass",
        "aux:pass": "auxpass",
        "nmod:poss": "poss",
        "acl:relcl": "relcl",
        "det:predet": "predet",
    }
)


@dataclass(frozen=True)
class RelationEffect:
    """One relation in one cell. Scores are of the target's metric; the adapter's are means over seeds.

    n_with, n_without: items with and without the relation.
    base_right, adapter_right: successes on items with the relation (0/1 scores; else NaN).
    base_with, base_without, adapter_with, adapter_without: success rates, smoothed by Jeffreys' prior
        Beta(1/2, 1/2), with its 95 % interval; means with a t interval where scores are not 0/1.
    difference: gain with the relation minus gain without it, in the unit of the score.
    odds_ratio: odds of items won to lost, with the relation over without it; above 1 the adapter gains
        more where the relation is (0/1 scores only).
    p, q: that the gain differs; q after Benjamini-Hochberg over all tests of the call. NaN: not tested.
    p_within: the same among items of one class and one third of the length, computed where p < .05.
    detectable: smallest odds ratio (difference, where scores are not 0/1) that a test at 5 % would have
        found with 80 % power; inf where nothing could have been found.
    reason: why there is no test.
    """

    source: str
    target: str
    relation: str
    n_with: int
    n_without: int
    base_right: float = nan
    adapter_right: float = nan
    base_with: Interval = field(default_factory=lambda: unknown(""))
    base_without: Interval = field(default_factory=lambda: unknown(""))
    adapter_with: Interval = field(default_factory=lambda: unknown(""))
    adapter_without: Interval = field(default_factory=lambda: unknown(""))
    difference: Interval = field(default_factory=lambda: unknown(""))
    odds_ratio: Interval = field(default_factory=lambda: unknown(""))
    p: float = nan
    q: float = nan
    p_within: float = nan
    detectable: float = nan
    reason: str = ""

    @property
    def tested(self) -> bool:
        return isfinite(self.p)

    @property
    def significant(self) -> bool:
        """After correction, and not explained by the length or the class of the items."""
        return self.q < LEVEL and self.p_within < LEVEL

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data with ``significant`` beside the fields; unknown numbers are null."""
        return {**jsonable(vars(self)), "significant": self.significant}


@dataclass(frozen=True)
class RelationEffects:
    """Every relation of every cell that was asked for, the untestable ones with their reason.

    conditions: parser, scheme, derived relations, prior, tests, minimum support, seed.
    """

    effects: tuple[RelationEffect, ...]
    conditions: Mapping[str, Any]

    @property
    def tested(self) -> tuple[RelationEffect, ...]:
        return tuple(effect for effect in self.effects if effect.tested)

    @property
    def findings(self) -> tuple[RelationEffect, ...]:
        """Significant effects, the smallest q first."""
        found = (effect for effect in self.effects if effect.significant)
        return tuple(sorted(found, key=lambda effect: (effect.q, effect.p)))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; unknown numbers are null."""
        return {
            "conditions": jsonable(self.conditions),
            "tests": len(self.tested),
            "findings": len(self.findings),
            "effects": jsonable(self.effects),
        }


def relation_in_words(effect: RelationEffect) -> str:
    """One sentence with the numbers of one effect."""
    other = CLEARNLP_NAMES.get(effect.relation)
    name = f"{effect.relation} ({other})" if other else effect.relation
    if not effect.tested:
        return f"{name}: {effect.reason}"
    ratio, gap = effect.odds_ratio, effect.difference
    if ratio.known:
        more = "more" if ratio.value > 1 else "less"
        told = (
            f"won : lost is {ratio.value:.2g} [{ratio.low:.2g}, {ratio.high:.2g}] times that of other items"
        )
    else:
        more = "more" if gap.value > 0 else "less"
        told = f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] against other items"
    says = f"the score rises {more} on items with {name}: {told}, {effect.n_with} items, q = {effect.q:.3f}"
    if effect.q >= LEVEL:
        return f"{says}: not above chance"
    if effect.significant:
        return says
    if isfinite(effect.p_within):
        return f"{says}; not so among items of one length and class (p = {effect.p_within:.2f})"
    return f"{says}; cannot be told from the length and class of the items"


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
    half = float(t_value(len(scores) - 1, 1 - LEVEL) * scores.std(ddof=1) / np.sqrt(len(scores)))
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
