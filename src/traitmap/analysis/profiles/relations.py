"""Which dependency relations of its items an adapter's gain depends on, against chance and small counts.

For each adapter, target and relation: how often base and adapter are right on items with and without the
relation, and whether the gain differs between the two (the tests are those of relation_tests). A relation
that few items have, or on which few items changed, is not tested but said to be untestable: the base's count
on it is often 0, and a ratio of successes is then as large as whatever is put in place of the 0.
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
from traitmap.wording import related

MIN_SUPPORT = 10
PRIOR = 0.5  # Jeffreys: half a success and half a failure
_LENGTHS = 3  # thirds of text length within which a finding is tested again

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
        significant = (effect for effect in self.effects if effect.significant)
        return tuple(sorted(significant, key=lambda effect: (effect.q, effect.p)))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; unknown numbers are null."""
        return {
            "conditions": jsonable(self.conditions),
            "tests": len(self.tested),
            "findings": len(self.findings),
            "effects": jsonable(self.effects),
        }


def relation_in_words(effect: RelationEffect) -> str:
    """One sentence with the numbers of one effect; of an untested one its reason.

    Says where the effect is not above chance, or not so among items of one length and class.
    """
    clearnlp = CLEARNLP_NAMES.get(effect.relation)
    name = f"{effect.relation} ({clearnlp})" if clearnlp else effect.relation
    if not effect.tested:
        return f"{name}: {effect.reason}"
    ratio, gap = effect.odds_ratio, effect.difference
    if ratio.known:
        more = "more" if ratio.value > 1 else "less"
        comparison = (
            f"won : lost is {ratio.value:.2g} [{ratio.low:.2g}, {ratio.high:.2g}] times that of other items"
        )
    else:
        more = "more" if gap.value > 0 else "less"
        comparison = f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] against other items"
    numbers = f"{comparison}, {effect.n_with} items, {related('q', effect.q)}"
    sentence = f"the score rises {more} on items with {name}: {numbers}"
    if effect.q >= LEVEL:
        return f"{sentence}: not above chance"
    if effect.significant:
        return sentence
    if isfinite(effect.p_within):
        return f"{sentence}; not so among items of one length and class ({related('p', effect.p_within)})"
    return f"{sentence}; cannot be told from the length and class of the items"


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
    rows = tuple(matrix.sources if sources is None else sources)
    untested = [
        effect
        for target, parsed in relations.items()
        if target in matrix.item_scores
        for effect in _effects_on(
            matrix, target, parsed, rows, (classes or {}).get(target), min_support, seed
        )
    ]
    q = benjamini_hochberg(np.array([effect.p for effect in untested], dtype=np.float64))
    effects = tuple(replace(effect, q=float(q_value)) for effect, q_value in zip(untested, q, strict=True))
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
        "parsed": {name: [len(parsed.texts), parsed.available] for name, parsed in relations.items()},
    }
    return RelationEffects(effects, conditions)


def _effects_on(
    matrix: TransferMatrix,
    target: str,
    relations: Relations,
    sources: Sequence[str],
    classes: Sequence[str | None] | None,
    min_support: int,
    seed: int,
) -> Iterator[RelationEffect]:
    """Effects of every relation on the cells of one target, on the items that base and adapter answered."""
    scores = matrix.item_scores[target][:, :, relations.texts]
    strata = _strata(relations, classes)
    for source in sources:
        row = scores[1 + matrix.sources.index(source)]
        measured = row[np.isfinite(row).any(axis=1)]
        if not len(measured):
            continue
        both = np.isfinite(scores[0, 0]) & np.isfinite(measured).all(axis=0)
        if both.any():
            effects = _effects_of_cell(
                relations.present[both],
                scores[0, 0, both],
                measured[:, both],
                strata[both],
                min_support,
                seed,
            )
            for relation, fields in zip(relations.labels, effects, strict=True):
                yield RelationEffect(source, target, relation, **fields)


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


def _effects_of_cell(
    present: Flags, base: Array, adapter: Array, strata: Codes, min_support: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Fields of R effects of one cell: base (n,) and adapter (seeds, n) on items with relations (n, R)."""
    binary = bool(np.isin(base, (0.0, 1.0)).all() and np.isin(adapter, (0.0, 1.0)).all())
    support = present.sum(axis=0)
    enough = (support >= min_support) & (len(base) - support >= min_support)
    mean = adapter.mean(axis=0)
    p = np.full(len(support), nan)
    if enough.any() and not binary:
        whole = np.zeros(len(base), np.int64)
        p[enough] = difference_test(mean - base, present[:, enough], whole, seed=seed)
    for number, n_with in enumerate(support.tolist()):
        has = present[:, number]
        estimate, low, high, detectable = welch_interval(mean - base, has, binary=binary)
        fields: dict[str, Any] = {
            "n_with": n_with,
            "n_without": len(base) - n_with,
            "base_with": _rate(base[has], binary),
            "base_without": _rate(base[~has], binary),
            "adapter_with": _rate(mean[has], binary),
            "adapter_without": _rate(mean[~has], binary),
            "difference": Interval(estimate, low, high),
            "detectable": nan if binary else detectable,
        }
        if binary:
            fields |= {"base_right": float(base[has].sum()), "adapter_right": float(mean[has].sum())}
        if not enough[number]:
            side = "with" if n_with < min_support else "without"
            few = min(n_with, len(base) - n_with)
            fields["reason"] = f"items {side} the relation: {few}; a test needs {min_support}"
        elif binary:
            fields |= _win_fields(base, adapter, has, strata, seed)
        elif not isfinite(p[number]):
            fields |= {"detectable": np.inf, "reason": "the difference is the same on every item"}
        else:
            within = nan
            if p[number] < LEVEL:
                within = float(difference_test(mean - base, has[:, None], strata, seed=seed)[0])
            fields |= {"p": float(p[number]), "p_within": within}
        yield fields


def _rate(scores: Array, binary: bool) -> Interval:
    """Jeffreys' rate and interval of 0/1 scores, else mean and t interval; an item counts once."""
    n = len(scores)
    if not n:
        return unknown("no item")
    if binary:
        right = float(scores.sum())
        low, high = stats.beta.ppf([LEVEL / 2, 1 - LEVEL / 2], right + PRIOR, n - right + PRIOR)
        return Interval((right + PRIOR) / (n + 2 * PRIOR), float(low), float(high))
    mean = float(scores.mean())
    if n < 2:
        return Interval(mean, reason="one item has no interval")
    half = float(t_value(n - 1, 1 - LEVEL) * scores.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def _win_fields(base: Array, adapter: Array, present: Flags, strata: Codes, seed: int) -> dict[str, Any]:
    """Odds ratio of items won to lost, with the relation over without it, and its test."""
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
        reason = f"{changed} of {present.sum()} items with the relation changed: too few to find anything"
        if changed and not others:
            reason = "no item without the relation changed: nothing to compare with"
        return {"odds_ratio": odds, "detectable": np.inf, "reason": reason}
    within = win_test(wins, losses, present, strata, seed=seed) if p < LEVEL else nan
    return {"odds_ratio": odds, "p": p, "p_within": within, "detectable": detectable}
