"""What a controlled change does to answers rather than scores: class shares, lengths, format, stopping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np

from traitmap.analysis.explanation.contrast import DifferenceInDifferences, difference_in_differences
from traitmap.analysis.explanation.dose import DoseResponse, dose_response
from traitmap.analysis.profiles.cell_items import TargetItems, target_items
from traitmap.data.records import Outcome
from traitmap.data.texts import Texts
from traitmap.matrix_record import Array
from traitmap.matrix_statistics import benjamini_hochberg

Outcomes = Mapping[tuple[str, int | None, str], Sequence[Outcome]]


@dataclass(frozen=True)
class AnsweredCurve:
    """One measure of the answers on one target over doses. sources: by dose, rising.

    measure: ``answers X`` (share of class X), ``tokens``, ``characters``, ``unparsed`` or ``endless``.
    q: Benjamini-Hochberg over all curves of the call.
    """

    target: str
    measure: str
    sources: tuple[str, ...]
    response: DoseResponse
    q: float


@dataclass(frozen=True)
class AnsweredContrast:
    """Two sources on two targets by one measure of the answers; q over all contrasts of the call."""

    measure: str
    contrast: DifferenceInDifferences
    q: float


def item_measures(items: TargetItems, rows: Sequence[int]) -> dict[str, Array]:
    """Measure -> (S, n) values of some adapters' answers, whose mean is the number; only what is known."""
    chosen = list(rows)
    found = {
        f"answers {label}": (items.predicted[chosen] == code).astype(float)
        for code, label in enumerate(items.labels)
    }
    if items.generated:
        found["tokens"] = items.tokens[chosen]
        found["characters"] = items.characters[chosen]
        found["unparsed"] = (~items.parsed[chosen]).astype(float)
        found["endless"] = 1 - items.stopped[chosen]
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def answered_curves(
    outcomes: Outcomes, doses: Mapping[str, float], *, dose: str = "the dose", texts: Texts | None = None
) -> tuple[AnsweredCurve, ...]:
    """Every measure of every target over a family of sources that differ in one thing by degrees.

    outcomes: (source, seed, target) -> outcomes, as in ``cell_profiles``. doses: of each source of the
    family, one source for a dose. texts: of the targets. Sources that lack a seed that others have are left
    out of a target's curves, and a target with fewer than two doses has none. Measures that are the same for
    every answer of every source are left out.
    """
    curves = []
    for items in _targets(outcomes, texts or {}):
        rows = {source: own for source, own in _rows(items).items() if source in doses}
        most = max((len(own) for own in rows.values()), default=0)
        family = sorted((source for source in rows if len(rows[source]) == most), key=lambda one: doses[one])
        if len({doses[source] for source in family}) < 2:
            continue
        measured = [item_measures(items, rows[source]) for source in family]
        for name in measured[0]:
            values = np.stack([one[name] for one in measured if name in one])
            if len(values) == len(family) and np.ptp(values) > 0:
                response = dose_response(
                    [doses[source] for source in family],
                    values,
                    measure=f"{_said(name)} on {items.target}",
                    dose=dose,
                )
                curves.append(AnsweredCurve(items.target, name, tuple(family), response, nan))
    q = benjamini_hochberg(np.array([one.response.p for one in curves], dtype=float))
    return tuple(replace(one, q=float(value)) for one, value in zip(curves, q, strict=True))


def answered_contrasts(
    outcomes: Outcomes,
    sources: tuple[str, str],
    targets: tuple[str, str],
    *,
    texts: Texts | None = None,
) -> tuple[AnsweredContrast, ...]:
    """How much more the answers of two sources differ on one target than on another, by every shared measure.

    With a balanced source and its unbalanced twin: whether balancing moves the share of a class on its own
    target as much as on another one that has this class too.
    """
    found = {items.target: items for items in _targets(outcomes, texts or {}) if items.target in targets}
    if set(found) != set(targets) or any(not set(sources) <= set(_rows(items)) for items in found.values()):
        return ()
    measured = {
        source: {target: item_measures(found[target], _rows(found[target])[source]) for target in targets}
        for source in sources
    }
    one, other = (measured[source] for source in sources)
    names = [
        name
        for name in one[targets[0]]
        if all(name in own[target] for own in (one, other) for target in targets)
    ]
    contrasts = [
        AnsweredContrast(
            name,
            difference_in_differences(
                {target: one[target][name] for target in targets},
                {target: other[target][name] for target in targets},
                names=sources,
            ),
            nan,
        )
        for name in names
    ]
    q = benjamini_hochberg(np.array([each.contrast.p for each in contrasts], dtype=float))
    return tuple(replace(each, q=float(value)) for each, value in zip(contrasts, q, strict=True))


def _targets(outcomes: Outcomes, texts: Texts) -> Iterator[TargetItems]:
    by_target: dict[str, dict[tuple[str, int | None], Sequence[Outcome]]] = {}
    for (source, seed, target), own in outcomes.items():
        by_target.setdefault(target, {})[source, seed] = own
    for target, own_outcomes in by_target.items():
        items = target_items(target, own_outcomes, texts.get(target, ()))
        if items is not None:
            yield items


def _rows(items: TargetItems) -> dict[str, tuple[int, ...]]:
    """Rows of each source, all its seeds."""
    return {source: rows for source, seed, rows in items.groups if seed is None}


def _said(measure: str) -> str:
    """A measure as the subject of a sentence."""
    return {
        "tokens": "output length in tokens",
        "characters": "output length in characters",
        "unparsed": "the share of unparsed answers",
        "endless": "the share of outputs without an end",
    }.get(measure, f"the share of {measure.removeprefix('answers ')!r} among the answers")
