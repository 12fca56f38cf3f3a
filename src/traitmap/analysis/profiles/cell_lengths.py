"""Lengths of a cell: those of base, adapter, gold and source, and how far the adapter went to its source."""

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
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import (
    NO_CHANGE_KNOWN,
    UNBOUNDED,
    Change,
    Interval,
    VarianceTerm,
    crossed_contrast,
    crossed_mean,
    paired_changes,
    ratio_interval,
    share_interval,
    unknown,
)

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


@dataclass(frozen=True)
class SourceLengths:
    """Lengths of a source's outputs; empty where unknown."""

    tokens: Array
    characters: Array


def cell_lengths(
    items: TargetItems,
    sources: Mapping[str, SourceLengths],
    *,
    gold_tokens: Array | None = None,
    seed: int = 0,
) -> list[CellLengths]:
    """Lengths of every cell of a target.

    sources: output lengths by source. gold_tokens: (n,) of the gold answers, where they were counted;
    MatrixError where there is another number of them.
    """
    if gold_tokens is not None and len(gold_tokens) != items.n:
        raise MatrixError(
            f"target {items.target!r}: {len(gold_tokens)} token counts of gold answers for {items.n} items; "
            "give one for each item"
        )
    none = SourceLengths(NOTHING, NOTHING)
    # an answer that is chosen cannot become as long as the source's outputs
    own = [sources.get(source, none) if items.generated else none for source, _, _ in items.groups]
    tokens = _comparisons(
        items, items.tokens, gold_tokens, [one.tokens for one in own], unit="tokens", seed=seed
    )
    characters: Sequence[LengthComparison | None] = [None] * len(own)
    if items.generated:
        characters = _comparisons(
            items,
            items.characters,
            items.gold_characters,
            [one.characters for one in own],
            unit="characters",
            seed=seed,
        )
    endless, unparsed = 1 - items.stopped, (~items.parsed).astype(float)
    endless_changes, unparsed_changes = _share_changes(items, endless), _share_changes(items, unparsed)
    return [
        CellLengths(
            source=source,
            target=items.target,
            seed=own_seed,
            written="generated" if items.generated else "chosen",
            tokens=tokens[place],
            characters=characters[place],
            endless=_endless(endless[list(rows)]),
            base_endless=unknown("no base") if items.base is None else _endless(endless[[items.base]]),
            endless_change=endless_changes[place],
            unparsed=share_interval(unparsed[list(rows)]),
            base_unparsed=unknown("no base") if items.base is None else share_interval(unparsed[items.base]),
            unparsed_change=unparsed_changes[place],
        )
        for place, (source, own_seed, rows) in enumerate(items.groups)
    ]


def interpolation(adapter: Array, base: Array, source: Array) -> Interval:
    """How far from the base's mean length (0) to the source's (1) the adapter's lies, by Fieller.

    adapter: (S, n) or (n,) and base: (n,) on the same items; source: (m,). The items' scatter is shared by
    numerator and denominator.
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
    found = ratio_interval(
        moved.value,
        way,
        variances=(moved.error**2, float(source.var(ddof=1)) / m + float(base.var(ddof=1)) / n),
        covariance=-float(np.cov(by_item - base, base)[0, 1]) / n,
        quantile=moved.quantile,
    )
    if found.reason == UNBOUNDED:
        return unknown("the lengths of base and source cannot be told apart")
    return found


def _comparisons(
    items: TargetItems,
    lengths: Array,
    gold: Array | None,
    sources: Sequence[Array],
    *,
    unit: Unit,
    seed: int,
) -> list[LengthComparison]:
    """Every group's lengths in one unit."""
    groups = items.groups
    base = None if items.base is None else lengths[items.base]
    changes = [NO_CHANGE_KNOWN] * len(groups)
    if base is not None:
        changes = paired_changes([lengths[list(rows)] - base for _, _, rows in groups], binary=False)
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
    found = []
    for (source, _, rows), teaches, change in zip(groups, sources, changes, strict=True):
        if source not in known:
            apart = UNKNOWN if base is None else sample_distance(base, teaches, seed=seed)
            known[source] = (distribution_of(teaches, no_source), apart)
        own = lengths[list(rows)]
        found.append(
            LengthComparison(
                unit=unit,
                adapter=distribution_of(own.ravel()),
                base=of_base,
                gold=of_gold,
                source=known[source][0],
                mean=crossed_mean(own).interval(low=0.0),
                change=change,
                to_base=_paired(own, base, seed),
                to_gold=_paired(own, gold, seed),
                to_source=sample_distance(own, teaches, seed=seed),
                base_to_gold=base_to_gold,
                base_to_source=known[source][1],
                interpolation=interpolation(own, base, teaches)
                if base is not None and len(teaches)
                else unknown(known[source][0].reason or of_base.reason),
            )
        )
    return found


def _paired(own: Array | None, other: Array | None, seed: int) -> LengthDistance:
    if own is None or other is None:
        return UNKNOWN
    return paired_distance(np.atleast_2d(own), other, seed=seed)


def _share_changes(items: TargetItems, hits: Array) -> list[Change]:
    """Adapter minus base of a share, for every group; hits (A, n) 1 or 0."""
    if items.base is None:
        return [NO_CHANGE_KNOWN] * len(items.groups)
    return paired_changes([hits[list(rows)] - hits[items.base] for _, _, rows in items.groups], binary=True)


def _endless(endless: Array) -> Interval:
    """Share that never stopped among the answers of which it is known."""
    if not np.isfinite(endless).all():
        return unknown("it was not recorded whether outputs stopped")
    return share_interval(endless)
