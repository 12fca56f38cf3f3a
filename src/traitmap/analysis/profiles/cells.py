"""All cells of a run beyond their scores: outcomes and texts in, classes, lengths and reasons out.

``cell_profiles`` arranges the outcomes by target and asks cell_classes and cell_lengths about each. Out of
what they say come the reasons of cells (length, class prior, collapse, format, metric, stopping), tested over
the whole matrix at once, and trends: whether sources with longer outputs go with adapters that write longer,
over all sources of a target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import atanh, isfinite, nan, sqrt, tanh
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from traitmap.analysis.profiles.cell_classes import CellClasses, cell_classes
from traitmap.analysis.profiles.cell_items import Key, target_items
from traitmap.analysis.profiles.cell_lengths import CellLengths, cell_lengths
from traitmap.analysis.profiles.classes import COLLAPSED
from traitmap.analysis.profiles.pairs import Reason
from traitmap.data.records import Outcome
from traitmap.data.texts import Texts
from traitmap.jsonable import jsonable
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Groups, Interval, benjamini_hochberg, detectable
from traitmap.wording import related

Reasons = Mapping[tuple[str, str], tuple[Reason, ...]]
CellRecord = TypeVar("CellRecord", CellClasses, CellLengths)

DRAWS = 1_000
LEVEL = 0.05
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
    smallest_visible: minimal detectable correlation, found in four of five such studies (Fisher's z, with the
        variance of Bonett and Wright, Psychometrika 65:23-28, 2000). reason: why something is unknown.
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
        numbers = f"rank correlation {self.correlation:+.2f} over {self.sources} sources"
        numbers += f", {related('p', self.p)}"
        if self.p < 0.05:
            follows = "longer" if self.correlation > 0 else "shorter"
            return f"{where} sources with longer outputs go with adapters that write {follows} ({numbers})."
        return (
            f"{where} it cannot be told whether lengths follow the source ({numbers}; below "
            f"{self.smallest_visible:.2f} it would not have been seen)."
        )


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
        """Classes of one cell (seed None: pooled over seeds), or None where the target has none."""
        return _cell_of(self.classes, source, target, seed)

    def lengths_of(self, source: str, target: str, seed: int | None = None) -> CellLengths | None:
        """Lengths of one cell (seed None: pooled over seeds), or None where there are none."""
        return _cell_of(self.lengths, source, target, seed)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON data; unknown numbers are null. Reasons as a list with their cell."""
        return {
            "classes": jsonable(self.classes),
            "lengths": jsonable(self.lengths),
            "trends": jsonable(self.trends),
            "reasons": [
                {"source": source, "target": target, **jsonable(reason)}
                for (source, target), reasons in self.reasons.items()
                for reason in reasons
            ],
        }


def _cell_of(records: Sequence[CellRecord], source: str, target: str, seed: int | None) -> CellRecord | None:
    cell = (source, target, seed)
    return next((record for record in records if (record.source, record.target, record.seed) == cell), None)


def cell_profiles(
    outcomes: Mapping[tuple[str, int | None, str], Sequence[Outcome]],
    *,
    source_texts: Texts | None = None,
    target_texts: Texts | None = None,
    label_counts: Mapping[str, Mapping[str, int]] | None = None,
    source_tokens: Mapping[str, Sequence[int]] | None = None,
    gold_tokens: Mapping[str, Sequence[int]] | None = None,
    item_groups: Mapping[str, Groups] | None = None,
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
    item_groups: target -> (n,) group of each item, where some repeat: groups are then the sample.
    draws: resampled sets of items for each interval. MatrixError where adapters answered different items.
    """
    texts, tokens = source_texts or {}, source_tokens or {}
    counts: dict[str, Mapping[str, int]] = {
        name: Counter(text.label for text in examples if text.label is not None)
        for name, examples in texts.items()
    }
    counts |= {name: words for name, words in (label_counts or {}).items() if words}
    characters = {
        name: np.array([len(text.output.strip()) for text in examples if text.output], dtype=float)
        for name, examples in texts.items()
    }
    token_lengths = {name: np.asarray(numbers, dtype=float) for name, numbers in tokens.items()}
    by_target: dict[str, dict[Key, Sequence[Outcome]]] = {}
    for (source, source_seed, target), answers in outcomes.items():
        by_target.setdefault(target, {})[source, source_seed] = answers
    classes: list[CellClasses] = []
    lengths: list[CellLengths] = []
    for target, answers_of in by_target.items():
        items = target_items(
            target, answers_of, (target_texts or {}).get(target, ()), (item_groups or {}).get(target)
        )
        if items is None:
            continue
        single = items.single_seeds
        classes += _with_single_seeds(cell_classes(items, counts, draws=draws, seed=seed), single)
        gold = (gold_tokens or {}).get(target)
        cells = cell_lengths(
            items,
            source_tokens=token_lengths,
            source_characters=characters,
            gold_tokens=None if gold is None else np.asarray(gold, dtype=float),
            seed=seed,
        )
        lengths += _with_single_seeds(cells, single)
    return CellProfiles(
        classes=tuple(classes),
        lengths=tuple(lengths),
        trends=length_trends(lengths, seed=seed),
        reasons=cell_reasons(classes, lengths),
    )


def _with_single_seeds(records: list[CellRecord], seeds: Mapping[str, int]) -> list[CellRecord]:
    """The records, with the one seed's own where pooling over it changes nothing."""
    return records + [
        replace(record, seed=seeds[record.source]) for record in records if record.source in seeds
    ]


def cell_reasons(
    classes: Sequence[CellClasses], lengths: Sequence[CellLengths], *, level: float = LEVEL
) -> Reasons:
    """(source, target) -> reasons of the pooled cell, significant ones first, then by strength.

    Kinds, each with the change from base to adapter that it is tested by:

    - ``length``: mean output length moved toward the source's (strength positive) or away from it.
    - ``class_prior``: the answers' marginal moved toward the source's class shares, or away.
    - ``collapse``: more of the answers are one and the same (positive), or fewer; shown where at least nine
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
    tested = [
        ((cell.source, cell.target), *test)
        for cell in classes
        if cell.seed is None
        for test in _class_reasons(cell)
    ]
    tested += [
        ((cell.source, cell.target), *test)
        for cell in lengths
        if cell.seed is None
        for test in _length_reasons(cell)
    ]
    q = benjamini_hochberg(np.array([p for _, _, p, _ in tested], dtype=float))
    reasons: dict[tuple[str, str], list[Reason]] = {}
    for (place, reason, _, shown), q_value in zip(tested, q, strict=True):
        if shown:
            significant = bool(q_value < level) if isfinite(q_value) else None
            reasons.setdefault(place, []).append(replace(reason, significant=significant))
    return MappingProxyType(
        {
            place: tuple(sorted(unsorted, key=lambda reason: (not reason.significant, -abs(reason.strength))))
            for place, unsorted in sorted(reasons.items())
        }
    )


def _class_reasons(cell: CellClasses) -> Iterator[tuple[Reason, float, bool]]:
    """Reasons out of the classes, the p-value of each one's change, and whether it is shown."""
    if cell.base is None:
        return
    change = cell.toward_prior
    if cell.prior is not None and change.difference.known:
        way = "toward" if change.difference.value > 0 else "away from"
        moved = f"{_places(cell.base_to_prior.value)} -> {_places(cell.to_prior.value)}"
        gold = f"from gold {_places(cell.base_to_gold.value)} -> {_places(cell.to_gold.value)}"
        words = f"answers moved {way} the source's class shares (TV {moved}; {gold})"
        reason = Reason("class_prior", words, change.difference.value)
        yield reason, change.p, change.difference.value != 0
    change = cell.onto_commonest
    if change.difference.known:
        share, labels, commonest = cell.adapter.commonest_share, cell.adapter.labels, cell.adapter.commonest
        words = (
            f"answers {commonest!r} to {_percent(share.value)} of the items [{_percent(share.low)}, "
            f"{_percent(share.high)}] (base {_percent(share.value - change.difference.value)}"
        )
        if commonest in labels:
            words += f", gold {_percent(cell.adapter.gold[labels.index(commonest)])}"
        words += "); collapsed" if cell.adapter.collapsed else ")"
        yield Reason("collapse", words, change.difference.value), change.p, share.value >= COLLAPSED
    if cell.unsupported:  # no test of its own: two intervals of the same change are read beside each other
        accuracy, balanced = cell.gains["accuracy"], cell.gains["balanced_accuracy"]
        words = (
            f"accuracy {_points(accuracy)} is not borne out by balanced accuracy {_points(balanced)}: the "
            "shares of the answers did it"
        )
        strength = accuracy.value - (balanced.value if balanced.known else 0.0)
        yield Reason("metric", words, strength), nan, True


def _length_reasons(cell: CellLengths) -> Iterator[tuple[Reason, float, bool]]:
    """Reasons out of generated answers, as ``_class_reasons`` gives them; all are shown."""
    if cell.written != "generated":
        return
    best = cell.best
    change, way = best.change.difference, best.interpolation
    if change.known and best.source.n:
        ends = f"{best.base.mean:.0f} -> {best.adapter.mean:.0f} {best.unit}, source {best.source.mean:.0f}"
        sign = float(np.sign(change.value * (best.source.mean - best.base.mean)))
        if not way.known:
            words = f"output length changed ({ends}); {way.reason}"
            sign = 1.0
        elif way.value < 0:
            words = (
                f"outputs moved away from the source's length by {_percent(-way.value)} of the way ({ends})"
            )
        else:
            words = (
                f"outputs moved {_percent(way.value)} of the way from the base's length to the source's "
                f"[{100 * way.low:.0f}, {100 * way.high:.0f}] ({ends})"
            )
        yield Reason("length", words, sign * best.to_base.kolmogorov_smirnov), best.change.p, True
    for kind, subject, base, share, moved in (  # shares whose fall helps
        ("format", "unparsed", cell.base_unparsed, cell.unparsed, cell.unparsed_change),
        ("stopping", "outputs that never stop", cell.base_endless, cell.endless, cell.endless_change),
    ):
        if moved.difference.known and share.value + base.value > 0:
            words = f"{subject} {_percent(base.value)} -> {_percent(share.value)}"
            yield Reason(kind, words, -moved.difference.value), moved.p, True


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if isfinite(share) else "?"


def _points(change: Interval) -> str:
    limits = f" [{100 * change.low:+.1f}, {100 * change.high:+.1f}]" if isfinite(change.low) else ""
    return f"{100 * change.value:+.1f}{limits}" if change.known else "(unknown)"


def _places(distance: float) -> str:
    """Two places without the leading zero."""
    return f"{distance:.2f}".removeprefix("0")


def length_trends(lengths: Sequence[CellLengths], *, seed: int = 0) -> tuple[LengthTrend, ...]:
    """One trend per target of generated answers, and their mean over targets last. Pooled cells only.

    Sources are exchanged by the same random keys on all targets, so that the mean has a null of its own.
    """
    by_target: dict[str, dict[str, tuple[float, float]]] = {}
    for cell in lengths:
        best = cell.best
        if cell.seed is None and cell.written == "generated" and best.source.n:
            means = (best.source.mean, best.adapter.mean)
            by_target.setdefault(cell.target, {})[cell.source] = means
    names = sorted({source for means in by_target.values() for source in means})
    keys = np.random.default_rng(seed).random((TREND_DRAWS, len(names)))
    trends, correlations, nulls = [], [], []
    for target, means_of in by_target.items():
        place = np.array([names.index(source) for source in means_of])
        source_means, adapter_means = np.array(list(means_of.values())).T
        count = len(place)
        if count < LEAST_SOURCES or np.ptp(source_means) == 0 or np.ptp(adapter_means) == 0:
            few = count < LEAST_SOURCES
            reason = f"{count} sources, {LEAST_SOURCES} are needed" if few else "all lengths are the same"
            trends.append(LengthTrend(target, nan, nan, count, nan, reason))
            continue
        first, second = (stats.zscore(stats.rankdata(values)) for values in (source_means, adapter_means))
        # keys of all sources, of which a target may lack some: their order there is the exchange
        exchanged = np.argsort(keys[:, place], axis=1)
        rho, null = float(first @ second) / count, first[exchanged] @ second / count
        trends.append(LengthTrend(target, rho, _p(rho, null), count, _detectable_correlation(count)))
        correlations.append(rho)
        nulls.append(null)
    if len(correlations) > 1:
        mean = float(np.mean(correlations))
        p = _p(mean, np.mean(nulls, axis=0))
        reason = "the visible size depends on the targets"
        trends.append(LengthTrend(OVERALL, mean, p, len(names), nan, reason))
    return tuple(trends)


def _p(observed: float, null: Array) -> float:
    return float((1 + (np.abs(null) >= abs(observed) - 1e-9).sum()) / (1 + len(null)))


def _detectable_correlation(count: int) -> float:
    """The rho whose atanh is 1.96 + .84 standard errors, each sqrt((1 + rho^2 / 2) / (n - 3))."""
    needed = detectable(1.0)
    rho = 0.5
    for _ in range(50):
        rho = tanh(needed * sqrt((1 + rho**2 / 2) / (count - 3)))
    return rho if atanh(rho) < 10 else 1.0
