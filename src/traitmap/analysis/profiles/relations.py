"""Which dependency relations of its items an adapter's gain depends on, against chance and small counts.

For each adapter, target and relation: how often base and adapter are right on items with and without the
relation, and whether the gain differs between the two. A relation that few items have, or on which few items
changed, is not tested but said to be untestable: the base's count on it is often 0, and a ratio of successes
is then as large as whatever is put in place of the 0.

The tests stand first: n items, R relations. An item is won in a seed where only the adapter is right, and
lost where only the base is. What decides is won against lost: who is right on an item of both, or of
neither, says nothing about the adapter. If the adapter shifts the log odds of every item by the same
amount, won : lost is the same on hard and easy items (conditional logistic regression of matched pairs; A.
Agresti, Categorical Data Analysis, 3rd edition, section 11.2), so a relation that merely makes items harder
is not taken for one that the adapter handles. Differences of rates, and ratios of successes, have no such
defence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from traitmap.analysis.profiles.parser import OBJECT_PREDICATE, Relations
from traitmap.jsonable import jsonable
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import Interval, benjamini_hochberg, detectable, t_value, unknown, z_value
from traitmap.wording import related

Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]

DRAWS = 9_999
CLOSE_DRAWS = 199_999  # where 9,999 draws cannot tell a p-value from 0
_CLOSE = 20 / DRAWS
LEVEL = 0.05
_BLOCK = 1_000  # permutations at a time, to bound memory


# Items of one stratum that are won or lost, grouped by what they add to the statistic: values (C,) distinct
# contributions, rising; items (C,) that make each; present (C,) of these that have the property.
_Stratum = tuple[Array, Codes, Codes]


def win_test(wins: Array, losses: Array, present: Flags, strata: Codes, *, seed: int = 0) -> float:
    """p-value, two-sided, that won : lost is the same with and without one property, within strata.

    wins, losses: (n,) seeds in which the item is won and lost. present: (n,). strata: (n,) codes.

    The property is permuted over the items that are won or lost at all, whole items, so that the seeds of
    an item stay together; the statistic is what items with the property win beyond their stratum's share.
    With one seed this is Fisher's exact test (the smaller tail doubled), by convolution over strata; with
    several it is Monte Carlo, (1 + extreme) / (1 + draws). NaN where no outcome could have given
    p <= .05: such a test can find nothing, and is none (R. E. Tarone, Biometrics 46:515-522, 1990).
    """
    strata_counts = [
        counts
        for code in np.unique(strata)
        if (counts := _counts(wins, losses, present, (strata == code) & (wins + losses > 0))) is not None
    ]
    if not strata_counts or _least_p(strata_counts) > LEVEL:
        return nan
    if np.ptp((wins + losses)[wins + losses > 0]) == 0:
        return _exact(strata_counts)
    generator = np.random.default_rng(seed)
    p = _sampled(strata_counts, DRAWS, generator)
    return _sampled(strata_counts, CLOSE_DRAWS, generator) if p < _CLOSE else p


def _counts(wins: Array, losses: Array, present: Flags, at: Flags) -> _Stratum | None:
    """The counts of one stratum, or None where it cannot tell anything."""
    won, decided, has = wins[at], (wins + losses)[at], present[at]
    if not decided.size or not 0 < has.sum() < has.size:
        return None
    beyond = np.round(won - decided * (won.sum() / decided.sum()), 9)
    values, place = np.unique(beyond, return_inverse=True)
    if values.size < 2:
        return None
    count = values.size
    return values, np.bincount(place, minlength=count), np.bincount(place[has], minlength=count)


def _least_p(strata: Sequence[_Stratum]) -> float:
    """The smallest p-value that these numbers of items could have given."""
    tails = []
    for order in (slice(None), slice(None, None, -1)):
        log = 0.0
        for _, items, present in strata:
            items, size = items[order], int(present.sum())
            before = np.concatenate([[0], np.cumsum(items)[:-1]])
            taken = np.clip(size - before, 0, items)
            log += float(_log_choose(items, taken).sum() - _log_choose(int(items.sum()), size))
        tails.append(float(np.exp(log)))
    return min(1.0, 2 * min(tails))


def _log_choose(n: Codes | int, k: Codes | int) -> Array:
    return np.asarray(-special.betaln(np.asarray(k) + 1, np.asarray(n) - k + 1) - np.log1p(n))


def _exact(strata: Sequence[_Stratum]) -> float:
    """Doubled smaller tail of the number of won items with the property: a sum of hypergeometric ones."""
    mass, observed = np.ones(1), 0
    for _, (lost, won), present in strata:
        size = int(present.sum())
        low, high = max(0, size - lost), min(size, won)
        mass = np.convolve(mass, stats.hypergeom.pmf(np.arange(low, high + 1), lost + won, won, size))
        observed += int(present[1]) - low
    return float(min(1.0, 2 * min(mass[: observed + 1].sum(), mass[observed:].sum())))


def _sampled(strata: Sequence[_Stratum], draws: int, generator: np.random.Generator) -> float:
    """The same by random draws of which items have the property."""
    statistic, observed = np.zeros(draws), 0.0
    for values, items, present in strata:
        drawn = generator.multivariate_hypergeometric(items, int(present.sum()), size=draws)
        statistic += drawn @ values
        observed += float(present @ values)
    above = 1 + int((statistic >= observed - 1e-6).sum())
    below = 1 + int((statistic <= observed + 1e-6).sum())
    return min(1.0, 2 * min(above, below) / (1 + draws))


def win_odds_ratio(wins: Array, losses: Array, present: Flags) -> tuple[float, float, float, float]:
    """Odds of winning with the property over those without it: estimate, 95 % limits, detectable ratio.

    Above 1 the adapter gains more on items with the property. Half an item is added to each of the four
    counts (Haldane 1956, Anscombe 1956; interval: J. J. Gart, Biometrika 53:164-168, 1966); with several
    seeds an item counts by its share of seeds, and the error is that of whole items. A ratio beyond the
    detectable one, or below its inverse, would have been found in 80 % of such data by a test at 5 %.
    """
    seeds = max(1.0, float((wins + losses).max(initial=0.0)))
    log, variance = np.zeros(2), np.zeros(2)
    for side, at in enumerate((~present, present)):
        won, lost = wins[at] / seeds, losses[at] / seeds
        all_won, all_lost = won.sum() + 0.5, lost.sum() + 0.5
        log[side] = np.log(all_won / all_lost)
        # with one seed this is 1 / all_won + 1 / all_lost
        variance[side] = ((won / all_won - lost / all_lost) ** 2).sum() + 0.5 / all_won**2 + 0.5 / all_lost**2
    difference, error = log[1] - log[0], float(np.sqrt(variance.sum()))
    z = z_value(1 - LEVEL)
    seen = np.exp(detectable(error, confidence=1 - LEVEL))
    ends = np.exp([difference, difference - z * error, difference + z * error])
    return float(ends[0]), float(ends[1]), float(ends[2]), float(seen)


def difference_test(
    differences: Array, present: Flags, strata: Codes, *, draws: int = DRAWS, seed: int = 0
) -> Array:
    """(R,) p-values, two-sided, that the mean difference is the same with and without each property.

    differences: (n,) adapter minus base of any score. present: (n, R). strata: (n,) codes, within which
    differences are centred and permuted. Permutation of Welch's statistic, so that unequal variances do
    no harm (A. Janssen, Statistics and Probability Letters 36:9-21, 1997); (1 + extreme) / (1 + draws),
    with ten times the draws where p comes close to 0, so that it can survive a correction.
    NaN where fewer than two items have or lack the property, or nothing varies.
    """
    centred = differences.astype(np.float64)
    groups = [np.flatnonzero(strata == code) for code in np.unique(strata)]
    for group in groups:
        centred[group] -= centred[group].mean()
    count = present.sum(axis=0)
    usable = (count >= 2) & (len(centred) - count >= 2) & (np.ptp(centred) > 1e-12)
    p = np.full(present.shape[1], nan)
    p[usable] = _permuted_p(centred, present[:, usable], groups, draws, seed)
    close = p < _CLOSE
    if close.any():
        p[close] = _permuted_p(centred, present[:, close], groups, 10 * draws + 9, seed)
    return p


def _permuted_p(centred: Array, present: Flags, groups: Sequence[Codes], draws: int, seed: int) -> Array:
    """(R,) shares of permutations within the groups whose statistic is as extreme."""
    flags = present.astype(np.float64)
    observed = np.abs(_welch(centred[None], flags))[0]
    extreme = np.zeros(flags.shape[1])
    generator = np.random.default_rng(seed)
    for start in range(0, draws, _BLOCK):
        block = np.tile(centred, (min(_BLOCK, draws - start), 1))
        for group in groups:
            block[:, group] = generator.permuted(block[:, group], axis=1)
        extreme += (np.abs(_welch(block, flags)) >= observed * (1 - 1e-9)).sum(axis=0)
    return np.asarray((1 + extreme) / (1 + draws))


def _welch(values: Array, flags: Array) -> Array:
    """(B, R) Welch's t of B orders of the values (B, n) between items with and without R properties."""
    n_with = flags.sum(axis=0)
    n_without = len(flags) - n_with
    sums, squares = values @ flags, values**2 @ flags
    sums_without = values.sum(axis=1)[:, None] - sums
    squares_without = (values**2).sum(axis=1)[:, None] - squares
    with np.errstate(divide="ignore", invalid="ignore"):
        error = (squares / n_with - (sums / n_with) ** 2) / (n_with - 1)
        error += (squares_without / n_without - (sums_without / n_without) ** 2) / (n_without - 1)
        statistic = (sums / n_with - sums_without / n_without) / np.sqrt(np.maximum(error, 1e-300))
    return np.where(np.isfinite(statistic), statistic, 0.0)


def welch_interval(differences: Array, present: Flags, *, binary: bool) -> tuple[float, float, float, float]:
    """Mean difference with the property minus that without it: estimate, 95 % limits, detectable difference.

    Welch's interval. binary: of 0/1 scores; two pseudo-items are then added to each side, one half won
    and half lost, one without a difference (Agresti and Min, Statistics in Medicine 24:729-740, 2005), so
    that few decided items, or none, do not pass for certainty. The estimate itself is left as it is.
    """
    mean, error, freedom = np.zeros(2), np.zeros(2), np.zeros(2)
    raw = np.zeros(2)
    for side, at in enumerate((~present, present)):
        values = differences[at]
        count, extra = values.size + 2 * binary, 1.0 * binary
        raw[side] = values.mean() if values.size else nan
        mean[side] = values.sum() / count if count else nan
        spread = (values**2).sum() + extra - count * mean[side] ** 2
        error[side] = spread / (count - 1) / count if count > 1 else nan
        freedom[side] = count - 1
    total = float(error.sum())
    if not np.isfinite(total) or total <= 0:
        return float(raw[1] - raw[0]), nan, nan, nan
    degrees = total**2 / (error**2 / freedom).sum()
    error_of_difference = np.sqrt(total)
    estimate, middle = float(raw[1] - raw[0]), float(mean[1] - mean[0])
    half = float(t_value(degrees, 1 - LEVEL) * error_of_difference)
    seen = detectable(error_of_difference, degrees, 1 - LEVEL)
    return estimate, min(middle - half, estimate), max(middle + half, estimate), seen


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
    first = np.ones(len(relations.texts), dtype=bool)
    if (groups := matrix.item_groups.get(target)) is not None:  # of items that repeat the first counts
        first[:] = False
        first[np.unique(groups[relations.texts], return_index=True)[1]] = True
    for source in sources:
        row = scores[1 + matrix.sources.index(source)]
        measured = row[np.isfinite(row).any(axis=1)]
        if not len(measured):
            continue
        both = first & np.isfinite(scores[0, 0]) & np.isfinite(measured).all(axis=0)
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
