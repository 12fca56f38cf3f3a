"""Reasons of cells out of their outcomes: length, class prior, collapse, format, stopping.

Whether sources with longer outputs make adapters write longer, over all sources of a target.

All cells of a run at once: outcomes and texts in, classes, lengths and reasons of every cell out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import atanh, isfinite, nan, sqrt, tanh
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from traitmap.analysis.features import Reason
from traitmap.analysis.profiles.cell_classes import CellClasses, cell_classes
from traitmap.analysis.profiles.cell_items import Key, TargetItems, target_items
from traitmap.analysis.profiles.cell_lengths import NOTHING, CellLengths, SourceLengths, cell_lengths
from traitmap.analysis.profiles.class_metrics import COLLAPSED
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText, Texts
from traitmap.jsonable import jsonable
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Change, Interval, benjamini_hochberg

Reasons = Mapping[tuple[str, str], tuple[Reason, ...]]
LEVEL = 0.05


@dataclass(frozen=True)
class _Tested:
    """A reason before correction, the p-value of its change, and whether it is a reason at all."""

    cell: tuple[str, str]
    kind: str
    words: str
    strength: float
    p: float
    shown: bool = True


def cell_reasons(
    classes: Sequence[CellClasses], lengths: Sequence[CellLengths], *, level: float = LEVEL
) -> Reasons:
    """(source, target) -> reasons of the pooled cell, significant ones first, then by strength.

    Kinds, each with the change from base to adapter that it is tested by:

    - ``length``: mean output length moved toward the source's (strength positive) or away from it.
    - ``class_prior``: the answers' marginal moved toward the source's class shares, or away.
    - ``collapse``: more of the answers are one and the same (positive), or fewer; told where at least nine
      in ten are, tested everywhere.
    - ``format``: fewer answers cannot be parsed (positive), or more.
    - ``metric``: accuracy changed and balanced accuracy did not follow, so that the gain or loss is one of
      class shares (no test: ``significant`` None; strength: the difference of the two).
    - ``stopping``: fewer outputs never stop (positive), or more.

    strength: the share of items, or of probability, that moved, so that all kinds can be compared; for
    ``length`` the Kolmogorov-Smirnov distance of the adapter's lengths from the base's.
    significant: q < level after Benjamini-Hochberg over all kinds and cells together; None where the change
    cannot be tested.
    """
    tested = [one for cell in classes if cell.seed is None for one in _class_reasons(cell)]
    tested += [one for cell in lengths if cell.seed is None for one in _length_reasons(cell)]
    q = benjamini_hochberg(np.array([one.p for one in tested], dtype=float))
    found: dict[tuple[str, str], list[Reason]] = {}
    for one, own in zip(tested, q, strict=True):
        if not one.shown:
            continue
        significant = bool(own < level) if isfinite(own) else None
        found.setdefault(one.cell, []).append(Reason(one.kind, one.words, one.strength, significant))
    return MappingProxyType(
        {
            cell: tuple(sorted(own, key=lambda reason: (not reason.significant, -abs(reason.strength))))
            for cell, own in sorted(found.items())
        }
    )


def _class_reasons(cell: CellClasses) -> list[_Tested]:
    if cell.base is None:
        return []
    found = []
    if cell.prior is not None and cell.toward_prior.difference.known:
        found.append(_prior(cell))
    if cell.onto_commonest.difference.known:
        found.append(_collapse(cell))
    if cell.unsupported:
        found.append(_metric(cell))
    return found


def _prior(cell: CellClasses) -> _Tested:
    change = cell.toward_prior
    way = "toward" if change.difference.value > 0 else "away from"
    moved = f"{_places(cell.base_to_prior.value)} -> {_places(cell.to_prior.value)}"
    gold = f"from gold {_places(cell.base_to_gold.value)} -> {_places(cell.to_gold.value)}"
    return _Tested(
        (cell.source, cell.target),
        "class_prior",
        f"answers moved {way} the source's class shares (TV {moved}; {gold})",
        change.difference.value,
        change.p,
        shown=change.difference.value != 0,
    )


def _metric(cell: CellClasses) -> _Tested:
    """No test of its own: two intervals of the same change are read beside each other."""
    accuracy, balanced = cell.gains["accuracy"], cell.gains["balanced_accuracy"]
    words = (
        f"accuracy {_points(accuracy)} is not borne out by balanced accuracy {_points(balanced)}: the shares "
        "of the answers did it"
    )
    strength = accuracy.value - (balanced.value if balanced.known else 0.0)
    return _Tested((cell.source, cell.target), "metric", words, strength, nan)


def _collapse(cell: CellClasses) -> _Tested:
    """The commonest answer's share, beside the base's share of it and the gold's."""
    share, change = cell.adapter.commonest_share, cell.onto_commonest
    of_base = share.value - change.difference.value
    labels = cell.adapter.labels
    gold = (
        f", gold {_percent(cell.adapter.gold[labels.index(cell.adapter.commonest)])}"
        if cell.adapter.commonest in labels
        else ""
    )
    collapsed = "; collapsed" if cell.adapter.collapsed else ""
    return _Tested(
        (cell.source, cell.target),
        "collapse",
        f"answers {cell.adapter.commonest!r} to {_percent(share.value)} of the items "
        f"[{_percent(share.low)}, {_percent(share.high)}] (base {_percent(of_base)}{gold}){collapsed}",
        change.difference.value,
        change.p,
        shown=share.value >= COLLAPSED,
    )


def _length_reasons(cell: CellLengths) -> list[_Tested]:
    if cell.written != "generated":
        return []
    found = []
    best = cell.best
    if best.change.difference.known and best.source.n:
        found.append(_length(cell))
    if cell.unparsed_change.difference.known and cell.unparsed.value + cell.base_unparsed.value > 0:
        found.append(
            _share_of(cell, "format", "unparsed", cell.base_unparsed, cell.unparsed, cell.unparsed_change)
        )
    if cell.endless_change.difference.known and cell.endless.value + cell.base_endless.value > 0:
        found.append(
            _share_of(
                cell,
                "stopping",
                "outputs that never stop",
                cell.base_endless,
                cell.endless,
                cell.endless_change,
            )
        )
    return found


def _length(cell: CellLengths) -> _Tested:
    best = cell.best
    change, way = best.change.difference, best.interpolation
    ends = f"{best.base.mean:.0f} -> {best.adapter.mean:.0f} {best.unit}, source {best.source.mean:.0f}"
    sign = float(np.sign(change.value * (best.source.mean - best.base.mean)))
    if not way.known:
        words = f"output length changed ({ends}); {way.reason}"
        sign = 1.0
    elif way.value < 0:
        words = f"outputs moved away from the source's length by {_percent(-way.value)} of the way ({ends})"
    else:
        words = (
            f"outputs moved {_percent(way.value)} of the way from the base's length to the source's "
            f"[{100 * way.low:.0f}, {100 * way.high:.0f}] ({ends})"
        )
    distance = best.to_base.kolmogorov_smirnov
    return _Tested((cell.source, cell.target), "length", words, sign * distance, best.change.p)


def _share_of(
    cell: CellLengths, kind: str, what: str, base: Interval, own: Interval, change: Change
) -> _Tested:
    """A share whose fall helps: unparsed answers, outputs without an end."""
    words = f"{what} {_percent(base.value)} -> {_percent(own.value)}"
    return _Tested((cell.source, cell.target), kind, words, -change.difference.value, change.p)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if isfinite(share) else "?"


def _points(change: Interval) -> str:
    limits = f" [{100 * change.low:+.1f}, {100 * change.high:+.1f}]" if isfinite(change.low) else ""
    return f"{100 * change.value:+.1f}{limits}" if change.known else "(unknown)"


def _places(distance: float) -> str:
    """Two places without the leading zero."""
    return f"{distance:.2f}".removeprefix("0")


TREND_DRAWS = 9_999
LEAST_SOURCES = 5  # below, no order of the sources is rarer than one in twenty by far
OVERALL = ""


@dataclass(frozen=True)
class LengthTrend:
    """Rank correlation over sources of a source's own mean output length and that of its adapter's outputs.

    One adapter that writes longer may do so because any training makes the base write longer, or because
    the task asks for it; only the comparison of sources tells that the length came from the source.

    target: name, or empty for the mean over targets. correlation: Spearman's. p: of so large a one when
    sources are exchanged (the same exchange for all targets). sources: how many.
    smallest_visible: a correlation found in four of five such studies (Fisher's z, with the variance of
        Bonett and Wright, Psychometrika 65:23-28, 2000). reason: why something is unknown.
    """

    target: str
    correlation: float
    p: float
    sources: int
    smallest_visible: float
    reason: str = ""

    @property
    def words(self) -> str:
        """The finding in a sentence, or that it cannot be told."""
        where = f"On {self.target}" if self.target else "Over all targets"
        if not isfinite(self.correlation):
            return f"{where} it cannot be told whether lengths follow the source: {self.reason}."
        told = f"rank correlation {self.correlation:+.2f} over {self.sources} sources, p {self.p:.2g}"
        if self.p < 0.05:
            follows = "longer" if self.correlation > 0 else "shorter"
            return f"{where} sources with longer outputs make adapters write {follows} ({told})."
        return (
            f"{where} it cannot be told whether lengths follow the source ({told}; below "
            f"{self.smallest_visible:.2f} it would not have been seen)."
        )


def length_trends(lengths: Sequence[CellLengths], *, seed: int = 0) -> tuple[LengthTrend, ...]:
    """One trend per target of generated answers, and their mean over targets last. Pooled cells only."""
    by_target: dict[str, dict[str, tuple[float, float]]] = {}
    for cell in lengths:
        best = cell.best
        if cell.seed is None and cell.written == "generated" and best.source.n:
            means = (best.source.mean, best.adapter.mean)
            by_target.setdefault(cell.target, {})[cell.source] = means
    names = sorted({source for own in by_target.values() for source in own})
    order = _orders(len(names), seed)
    found, observed, nulls = [], [], []
    for target, own in by_target.items():
        place = np.array([names.index(source) for source in own])
        teaches, writes = np.array(list(own.values())).T
        one, null = _correlations(teaches, writes, place, order)
        found.append(_trend(target, one, null, len(own)))
        if null is not None:
            observed.append(one)
            nulls.append(null)
    if len(observed) > 1:
        mean = float(np.mean(observed))
        p = _p(mean, np.mean(nulls, axis=0))
        found.append(
            LengthTrend(OVERALL, mean, p, len(names), nan, "the visible size depends on the targets")
        )
    return tuple(found)


def _correlations(teaches: Array, writes: Array, place: Array, order: Array) -> tuple[float, Array | None]:
    """Spearman's correlation, and its values (draws,) when sources are exchanged."""
    if len(teaches) < LEAST_SOURCES or np.ptp(teaches) == 0 or np.ptp(writes) == 0:
        return nan, None
    one, other = (stats.zscore(stats.rankdata(values)) for values in (teaches, writes))
    # keys of all sources, of which a target may lack some: their order there is the exchange
    exchanged = np.argsort(order[:, place], axis=1)
    return float(one @ other) / len(one), one[exchanged] @ other / len(one)


def _trend(target: str, correlation: float, null: Array | None, count: int) -> LengthTrend:
    if null is None:
        few = count < LEAST_SOURCES
        reason = f"{count} sources, {LEAST_SOURCES} are needed" if few else "all lengths are the same"
        return LengthTrend(target, nan, nan, count, nan, reason)
    return LengthTrend(target, correlation, _p(correlation, null), count, _visible(count))


def _p(observed: float, null: Array) -> float:
    return float((1 + (np.abs(null) >= abs(observed) - 1e-9).sum()) / (1 + len(null)))


def _visible(count: int) -> float:
    """The rho whose atanh is 1.96 + .84 standard errors, each sqrt((1 + rho^2 / 2) / (n - 3))."""
    needed = float(stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
    rho = 0.5
    for _ in range(50):
        rho = tanh(needed * sqrt((1 + rho**2 / 2) / (count - 3)))
    return rho if atanh(rho) < 10 else 1.0


def _orders(count: int, seed: int) -> Array:
    """(draws, count) random keys whose order exchanges the sources."""
    return np.random.default_rng(seed).random((TREND_DRAWS, count))


DRAWS = 1_000

Profile = TypeVar("Profile", CellClasses, CellLengths)


@dataclass(frozen=True)
class CellProfiles:
    """What the outcomes of a run say about every cell beyond its score.

    classes, lengths: one record per (source, target), pooled over seeds (seed None), and one per seed;
        classes only on targets that have some, lengths only where something is written or chosen.
    trends: whether lengths follow the source, per target and over all.
    reasons: (source, target) -> reasons with significance corrected over the whole matrix.
    """

    classes: tuple[CellClasses, ...]
    lengths: tuple[CellLengths, ...]
    trends: tuple[LengthTrend, ...]
    reasons: Reasons

    def classes_of(self, source: str, target: str, seed: int | None = None) -> CellClasses | None:
        """Classes of one cell, or None."""
        return next((class_ for class_ in self.classes if _is(class_, source, target, seed)), None)

    def lengths_of(self, source: str, target: str, seed: int | None = None) -> CellLengths | None:
        """Lengths of one cell, or None."""
        return next((length for length in self.lengths if _is(length, source, target, seed)), None)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values; unknown numbers are null. Reasons as a list with their cell."""
        return {
            "classes": jsonable(self.classes),
            "lengths": jsonable(self.lengths),
            "trends": jsonable(self.trends),
            "reasons": [
                {"source": source, "target": target, **jsonable(reason)}
                for (source, target), own in self.reasons.items()
                for reason in own
            ],
        }


def cell_profiles(
    outcomes: Mapping[tuple[str, int | None, str], Sequence[Outcome]],
    *,
    source_texts: Texts | None = None,
    target_texts: Texts | None = None,
    label_counts: Mapping[str, Mapping[str, int]] | None = None,
    source_tokens: Mapping[str, Sequence[int]] | None = None,
    gold_tokens: Mapping[str, Sequence[int]] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> CellProfiles:
    """Profile every cell of a run by what was answered.

    outcomes: (source, seed, target) -> outcomes in the order of the items; the base's under
        ``("__baseline__", None, target)``, an adapter that existed before with seed None. Cells that were not
        measured are left out. The order of sources and targets is that of this mapping.
    source_texts: training examples by source: their outputs' lengths, and their labels where no label_counts
        (source -> label word -> examples) are given. target_texts: items by target; choices name classes.
    source_tokens, gold_tokens: tokens of source outputs and of gold answers where somebody counted them;
        without them, lengths are compared with the source's in characters.
    draws: resampled sets of items for each interval. MatrixError where adapters answered different items.
    """
    texts, tokens = source_texts or {}, source_tokens or {}
    counts = {
        **_label_counts(texts),
        **{name: dict(own) for name, own in (label_counts or {}).items() if own},
    }
    sources = {
        name: SourceLengths(_numbers(tokens.get(name)), _characters(texts.get(name, ())))
        for name in dict.fromkeys([*texts, *tokens])
    }
    classes: list[CellClasses] = []
    lengths: list[CellLengths] = []
    for items in _targets(outcomes, target_texts or {}):
        classes += _each_seed(items, cell_classes(items, counts, draws=draws, seed=seed))
        own = (gold_tokens or {}).get(items.target)
        gold = None if own is None else _numbers(own)
        lengths += _each_seed(items, cell_lengths(items, sources, gold_tokens=gold, seed=seed))
    return CellProfiles(
        classes=tuple(classes),
        lengths=tuple(lengths),
        trends=length_trends(lengths, seed=seed),
        reasons=cell_reasons(classes, lengths),
    )


def _targets(
    outcomes: Mapping[tuple[str, int | None, str], Sequence[Outcome]], texts: Texts
) -> list[TargetItems]:
    """Arrays of every target that has classes or lengths."""
    by_target: dict[str, dict[Key, Sequence[Outcome]]] = {}
    for (source, seed, target), own in outcomes.items():
        by_target.setdefault(target, {})[source, seed] = own
    found = (target_items(target, own, texts.get(target, ())) for target, own in by_target.items())
    return [items for items in found if items is not None]


def _each_seed(items: TargetItems, found: list[Profile]) -> list[Profile]:
    """The records, with the one seed's own where pooling over it changes nothing."""
    single = items.single_seeds
    return found + [replace(one, seed=single[one.source]) for one in found if one.source in single]


def _label_counts(texts: Texts) -> dict[str, dict[str, int]]:
    return {
        name: dict(Counter(text.label for text in own if text.label is not None))
        for name, own in texts.items()
    }


def _characters(texts: Sequence[TaskText]) -> Array:
    return np.array([len(text.output.strip()) for text in texts if text.output], dtype=float)


def _numbers(values: Sequence[int] | None) -> Array:
    return NOTHING if values is None else np.asarray(values, dtype=float)


def _is(one: CellClasses | CellLengths, source: str, target: str, seed: int | None) -> bool:
    return (one.source, one.target, one.seed) == (source, target, seed)
