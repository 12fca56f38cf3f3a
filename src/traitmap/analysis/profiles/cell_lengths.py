"""Lengths of outputs in every cell: of base, adapter, gold and source, and how far the adapter moved.

Two units, tokens and characters: a source's outputs are often known in one of them only. Distances between
distributions, with their nulls, are those of the chapter lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from traitmap.analysis.profiles.cell_items import TargetItems
from traitmap.analysis.profiles.lengths import (
    UNKNOWN,
    Distribution,
    LengthDistance,
    distribution_of,
    paired_distance,
    sample_distance,
)
from traitmap.errors import MatrixError
from traitmap.matrix.crossed import VarianceTerm, crossed_contrast, crossed_mean, share_interval
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import UNBOUNDED, Change, Groups, Interval, grouped, ratio_interval, unknown

Unit = Literal["tokens", "characters"]
NOTHING = np.empty(0)


@dataclass(frozen=True)
class LengthComparison:
    """Lengths in one unit. What is not known has a distribution of 0 numbers, with the reason.

    adapter, base, gold: on the target's items (all seeds of the adapter together). source: the outputs that
        the source teaches.
    mean: of the adapter. change: adapter minus base on the same items.
    to_base, to_gold, to_source: distances of the adapter; base_to_gold, base_to_source: of the base.
    interpolation: (adapter - base) / (source - base) of mean lengths: 0 is the base's habit, 1 the source's
        own length, below 0 away from it, above 1 beyond it. Fieller's interval over items, seeds and source
        texts; unknown where base and source cannot be told apart.
    """

    unit: Unit
    adapter: Distribution
    base: Distribution
    gold: Distribution
    source: Distribution
    mean: Interval
    change: Change
    to_base: LengthDistance
    to_gold: LengthDistance
    to_source: LengthDistance
    base_to_gold: LengthDistance
    base_to_source: LengthDistance
    interpolation: Interval


@dataclass(frozen=True)
class CellLengths:
    """Lengths of one cell, for one seed or pooled over seeds (seed None).

    written: ``generated`` outputs, or the ``chosen`` answer of a multiple-choice target (tokens only).
    endless, base_endless: share of outputs that never stopped by themselves.
    unparsed, base_unparsed: share of outputs in which the task found no answer.
    endless_change, unparsed_change: adapter minus base.
    """

    source: str
    target: str
    seed: int | None
    written: Literal["generated", "chosen"]
    tokens: LengthComparison
    characters: LengthComparison | None
    endless: Interval
    base_endless: Interval
    endless_change: Change
    unparsed: Interval
    base_unparsed: Interval
    unparsed_change: Change

    @property
    def best(self) -> LengthComparison:
        """The unit in which more is known: tokens where the source's are, else characters."""
        if self.characters is None or self.tokens.source.n:
            return self.tokens
        return self.characters


def cell_lengths(
    items: TargetItems,
    *,
    source_tokens: Mapping[str, Array] | None = None,
    source_characters: Mapping[str, Array] | None = None,
    gold_tokens: Array | None = None,
    seed: int = 0,
) -> list[CellLengths]:
    """Lengths of every cell of a target, pooled over seeds and by seed, in the order of ``items.groups``.

    source_tokens, source_characters: (m,) lengths of each source's outputs; a source that a mapping lacks is
    unknown in that unit. gold_tokens: (n,) of the gold answers, where they were counted. seed: of the nulls.
    MatrixError where there is another number of gold answers than of items.
    """
    if gold_tokens is not None and len(gold_tokens) != items.n:
        raise MatrixError(
            f"target {items.target!r}: {len(gold_tokens)} token counts of gold answers for {items.n} items; "
            "give one for each item"
        )
    tokens = _comparisons(items, items.tokens, gold_tokens, source_tokens or {}, unit="tokens", seed=seed)
    characters: Sequence[LengthComparison | None] = [None] * len(tokens)
    if items.generated:
        gold, known = items.gold_characters, source_characters or {}
        characters = _comparisons(items, items.characters, gold, known, unit="characters", seed=seed)
    endless, unparsed = 1 - items.stopped, (~items.parsed).astype(float)
    return [
        CellLengths(
            source=source,
            target=items.target,
            seed=cell_seed,
            written="generated" if items.generated else "chosen",
            tokens=tokens[place],
            characters=characters[place],
            endless=_endless(endless[list(rows)], items.item_groups),
            base_endless=unknown("no base")
            if items.base is None
            else _endless(endless[[items.base]], items.item_groups),
            endless_change=endless_change,
            unparsed=share_interval(unparsed[list(rows)], items.item_groups),
            base_unparsed=unknown("no base")
            if items.base is None
            else share_interval(unparsed[items.base], items.item_groups),
            unparsed_change=unparsed_change,
        )
        for place, ((source, cell_seed, rows), endless_change, unparsed_change) in enumerate(
            zip(items.groups, items.changes(endless), items.changes(unparsed), strict=True)
        )
    ]


def interpolation(adapter: Array, base: Array, source: Array) -> Interval:
    """How far from the base's mean length (0) to the source's (1) the adapter's lies, by Fieller.

    adapter: (S, n) or (n,) and base: (n,) on the same items; source: (m,), all in one unit. The items'
    scatter is shared by numerator and denominator. Unknown below two lengths of base or source, and where
    these two cannot be told apart.
    """
    adapter = np.atleast_2d(adapter)
    n, m = len(base), len(source)
    if n < 2 or m < 2:
        return unknown("fewer than two lengths of base or source")
    moved = crossed_contrast(
        [VarianceTerm("adapter", "", 1.0, adapter), VarianceTerm("base", "", -1.0, base)]
    )
    way = float(source.mean() - base.mean())
    by_item = adapter.mean(axis=0)
    interval = ratio_interval(
        moved.value,
        way,
        variances=(moved.error**2, float(source.var(ddof=1)) / m + float(base.var(ddof=1)) / n),
        covariance=-float(np.cov(by_item - base, base)[0, 1]) / n,
        quantile=moved.quantile,
    )
    if interval.reason == UNBOUNDED:
        return unknown("the lengths of base and source cannot be told apart")
    return interval


def _comparisons(
    items: TargetItems,
    lengths: Array,
    gold: Array | None,
    sources: Mapping[str, Array],
    *,
    unit: Unit,
    seed: int,
) -> list[LengthComparison]:
    """Every group's lengths in one unit."""
    base = None if items.base is None else lengths[items.base]
    no_source = (
        f"the source's outputs are not known in {unit}"
        if items.generated
        else "answers are chosen, not written"
    )
    of_base = distribution_of(NOTHING if base is None else base, "the base was not measured")
    of_gold = distribution_of(
        NOTHING if gold is None else gold, "the gold answers were not counted in tokens"
    )
    base_to_gold = _paired(base, gold, seed)
    known: dict[str, tuple[Distribution, LengthDistance]] = {}
    comparisons = []
    for (source, _, rows), change in zip(items.groups, items.changes(lengths, binary=False), strict=True):
        # an answer that is chosen cannot become as long as the source's outputs
        outputs = sources.get(source, NOTHING) if items.generated else NOTHING
        if source not in known:
            distance = UNKNOWN if base is None else sample_distance(base, outputs, seed=seed)
            known[source] = (distribution_of(outputs, no_source), distance)
        adapter = lengths[list(rows)]
        comparisons.append(
            LengthComparison(
                unit=unit,
                adapter=distribution_of(adapter.ravel()),
                base=of_base,
                gold=of_gold,
                source=known[source][0],
                mean=crossed_mean(grouped(adapter, items.item_groups)).interval(low=0.0),
                change=change,
                to_base=_paired(adapter, base, seed),
                to_gold=_paired(adapter, gold, seed),
                to_source=sample_distance(adapter, outputs, seed=seed),
                base_to_gold=base_to_gold,
                base_to_source=known[source][1],
                interpolation=interpolation(
                    grouped(adapter, items.item_groups), grouped(base, items.item_groups), outputs
                )
                if base is not None and len(outputs)
                else unknown(known[source][0].reason or of_base.reason),
            )
        )
    return comparisons


def _paired(adapter: Array | None, reference: Array | None, seed: int) -> LengthDistance:
    if adapter is None or reference is None:
        return UNKNOWN
    return paired_distance(np.atleast_2d(adapter), reference, seed=seed)


def _endless(endless: Array, item_groups: Groups | None) -> Interval:
    """Share that never stopped among the answers of which it is known."""
    if not np.isfinite(endless).all():
        return unknown("it was not recorded whether outputs stopped")
    return share_interval(endless, item_groups)
