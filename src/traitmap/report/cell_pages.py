"""Details of cells as compact data, one part for each target, which the page's script shows when asked."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from traitmap.wording import clean, interval, plain, sentence, signed, typeset

if TYPE_CHECKING:
    from traitmap.analysis.cells import CellDetail, Histogram, ItemExample, RunDetails, TargetDetail
    from traitmap.analysis.explanation.records import OddCell
    from traitmap.analysis.features import Reason
    from traitmap.matrix.reading import Reading


def cell_parts(reading: Reading, details: RunDetails | None) -> dict[int, dict[str, Any]]:
    """Place of a target -> what is told of its cells; targets of which nothing is told are left out."""
    if details is None:
        return {}
    found = {}
    for t, target in enumerate(reading.targets):
        told = details.targets.get(target.name)
        if told is None:
            continue
        cells = {
            str(s): _cell(details.cells[source, target.name], details, target.factor, target.digits)
            for s, source in enumerate(reading.sources)
            if (source, target.name) in details.cells
        }
        found[t] = {**_target(told), "cells": cells}
    return found


def details_note(details: RunDetails | None) -> str:
    """Which cells have details, where it is not all of them."""
    if details is None or not details.chosen:
        return ""
    return (
        f"{len(details.cells)} of {details.measured} measured cells have answers and items here: "
        f"{details.chosen}."
    )


def _target(told: TargetDetail) -> dict[str, Any]:
    found: dict[str, Any] = {
        "texts": {str(item): [clean(asked), clean(gold)] for item, (asked, gold) in told.texts.items()}
    }
    if told.base_counts is not None:
        found["labels"] = [clean(label) for label in told.labels]
        found["columns"] = [clean(column) for column in told.columns]
        found["base"] = told.base_counts.tolist()
    if told.edges:
        found["unit"] = told.unit
        found["edges"] = [round(edge, 1) for edge in told.edges]
        found["baseLengths"] = _lengths(told.base_lengths)
        found["goldLengths"] = _lengths(told.gold_lengths)
    return found


def _cell(cell: CellDetail, details: RunDetails, factor: float, digits: int) -> dict[str, Any]:
    place = (cell.source, cell.target)
    found: dict[str, Any] = {
        "seeds": cell.seeds,
        "items": cell.items,
        "won": cell.won,
        "lost": cell.lost,
        "wonItems": [_example(example, factor, digits) for example in cell.won_examples],
        "lostItems": [_example(one, factor, digits) for one in cell.lost_examples],
    }
    if cell.counts is not None:
        found["counts"] = cell.counts.tolist()
    if cell.lengths is not None:
        found["lengths"] = _lengths(cell.lengths)
    told = _not_said_before(details.reasons.get(place, ()), details.odd.get(place))
    if told:
        found["reasons"] = [
            [_said(one) for one in told if bool(one.significant) is sure] for sure in (True, False)
        ]
    if place in details.odd:
        found["odd"] = _odd(details.odd[place], details.odd_unit)
    return found


def _odd(cell: OddCell, unit: str) -> list[str]:
    """What surface similarity predicts, and why the cell may depart from it."""
    said = (
        f"Odd: the texts' surface predicts {signed(cell.predicted)} {unit}, and the gain departs from that "
        f"by {signed(cell.departure.value)}"
    )
    if isfinite(cell.departure.low):
        said += f" {interval(cell.departure.low, cell.departure.high)}"
    return [typeset(f"{said}."), *map(_said, cell.reasons)]


def _not_said_before(told: Sequence[Reason], odd: OddCell | None) -> list[Reason]:
    """Reasons that the odd cell's own list does not hold already."""
    before = {reason.words for reason in odd.reasons} if odd is not None else set()
    return [one for one in told if one.words not in before]


def _said(reason: Reason) -> str:
    return typeset(clean(sentence(reason.words)).replace(" -> ", " → "))


def _lengths(one: Histogram | None) -> list[Any] | None:
    """Counts, mean, number."""
    return None if one is None else [list(one.counts), round(one.mean, 1), one.n]


def _example(one: ItemExample, factor: float, digits: int) -> list[Any]:
    """Item, seed, the base's and the adapter's answer, and both scores."""
    scores = [plain(score * factor, digits) for score in (one.base_score, one.adapter_score)]
    return [one.item, one.seed, clean(one.base), clean(one.adapter), *scores]
