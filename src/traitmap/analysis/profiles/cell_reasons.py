"""Reasons of cells out of their outcomes: length, class prior, collapse, format, stopping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from types import MappingProxyType

import numpy as np

from traitmap.analysis.interval import Interval
from traitmap.analysis.paired_change import Change
from traitmap.analysis.profiles.cell_classes import CellClasses
from traitmap.analysis.profiles.cell_lengths import CellLengths
from traitmap.analysis.profiles.class_metrics import COLLAPSED
from traitmap.analysis.reason import Reason
from traitmap.matrix_statistics import benjamini_hochberg

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
