"""What a controlled change does to answers rather than scores: class shares, lengths, format, stopping.

Families of controlled changes: what one thing changed in a source does, which correlation cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Any

import numpy as np

from traitmap.analysis.explanation.dose import (
    DifferenceInDifferences,
    DoseResponse,
    FormatPart,
    difference_in_differences,
    dose_response,
    subtract_format,
)
from traitmap.analysis.profiles.cell_items import TargetItems, target_items
from traitmap.data.records import Outcome
from traitmap.data.texts import Texts
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import benjamini_hochberg

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
    q = benjamini_hochberg(np.array([curve.response.p for curve in curves], dtype=float))
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
    q = benjamini_hochberg(np.array([contrast.contrast.p for contrast in contrasts], dtype=float))
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


BALANCING = ("balance", "class_weights")
FORMAT = "format_only"
MOST_SAID = 6  # sentences of one kind; the record holds all


@dataclass(frozen=True)
class DoseCurve:
    """Scores on one target over the doses of one change of one source. q: Benjamini-Hochberg over all curves.

    sources: by dose, rising. kind: what was changed; meaning: the unit of the dose.
    """

    parent: str
    kind: str
    meaning: str
    target: str
    sources: tuple[str, ...]
    response: DoseResponse
    q: float


@dataclass(frozen=True)
class Balanced:
    """Balanced less unbalanced on the parent's own target, less the same on another one; q over all."""

    parent: str
    source: str
    contrast: DifferenceInDifferences
    q: float


@dataclass(frozen=True)
class Families:
    """What the controlled changes of a study show. Empty where it has none, or no item scores.

    answered: what they do to the answers themselves, where somebody read the outcomes.
    """

    curves: tuple[DoseCurve, ...] = ()
    balanced: tuple[Balanced, ...] = ()
    format: tuple[FormatPart, ...] = ()
    answered: tuple[AnsweredCurve, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.curves or self.balanced or self.format)


def variations_of(matrix: TransferMatrix) -> dict[str, Mapping[str, Any]]:
    """How each source that is made from another one was made, by its name."""
    told = matrix.conditions.get("sources") or {}
    found = {name: (told.get(name) or {}).get("variation") for name in matrix.sources}
    return {name: one for name, one in found.items() if one}


def without_variations(matrix: TransferMatrix) -> TransferMatrix:
    """The matrix of the sources that are not made from another one: near-copies are no further tasks."""
    made = variations_of(matrix)
    if not made:
        return matrix
    kept = [i for i, name in enumerate(matrix.sources) if name not in made]
    rows = [0, *(1 + i for i in kept)]
    return replace(
        matrix,
        sources=tuple(matrix.sources[i] for i in kept),
        values=matrix.values[kept],
        cells=tuple(cell for cell in matrix.cells if cell.source not in made),
        item_scores={target: scores[rows] for target, scores in matrix.item_scores.items()},
    )


def families(matrix: TransferMatrix) -> Families:
    """Dose and response of every change with doses, balanced against unbalanced, and the format's part."""
    made = variations_of(matrix)
    if not made or not matrix.item_scores:
        return Families()
    curves = list(_curves(matrix))
    q = benjamini_hochberg(np.array([curve.response.p for curve in curves], dtype=float))
    balanced = list(_balanced(matrix, made))
    q_balanced = benjamini_hochberg(np.array([one.contrast.p for one in balanced], dtype=float))
    controls = {
        one["parents"][0]: name
        for name, one in made.items()
        if FORMAT in one["changes"] and one["parents"][0] in matrix.targets
    }
    return Families(
        curves=tuple(replace(one, q=float(value)) for one, value in zip(curves, q, strict=True)),
        balanced=tuple(replace(one, q=float(value)) for one, value in zip(balanced, q_balanced, strict=True)),
        format=subtract_format(matrix, controls) if controls else (),
    )


@dataclass(frozen=True)
class Doses:
    """One change of one source in several doses. sources: dose -> source, rising, the parent among them."""

    parent: str
    kind: str
    meaning: str
    sources: Mapping[float, str]


def doses_of(matrix: TransferMatrix) -> tuple[Doses, ...]:
    """Every change that was made in two doses or more, the parent's own counted."""
    made = variations_of(matrix)
    groups = sorted({(one["parents"][0], one["kind"]) for one in made.values() if len(one["parents"]) == 1})
    found = []
    for parent, kind in groups:
        own = {n: v for n, v in made.items() if list(v["parents"]) == [parent] and v["kind"] == kind}
        doses = {name: one["dose"] for name, one in own.items() if one["dose"] is not None}
        first = next(iter(own.values()))
        if parent in matrix.sources and first["parent_dose"] is not None:
            doses[parent] = first["parent_dose"]
        by_dose = {dose: name for name, dose in sorted(doses.items(), reverse=True)}  # one source for a dose
        if len(by_dose) > 1:
            found.append(Doses(parent, kind, str(first["meaning"]), dict(sorted(by_dose.items()))))
    return tuple(found)


def _curves(matrix: TransferMatrix) -> Iterator[DoseCurve]:
    """One per parent, change and target with scores of two doses or more."""
    for one in doses_of(matrix):
        for target in matrix.targets:
            found = _response(matrix, one.sources, target, one.meaning)
            if found is not None:
                names, response = found
                yield DoseCurve(one.parent, one.kind, one.meaning, target, names, response, float("nan"))


def _response(
    matrix: TransferMatrix, by_dose: Mapping[float, str], target: str, meaning: str
) -> tuple[tuple[str, ...], DoseResponse] | None:
    scores = {dose: _scores(matrix, name, target) for dose, name in sorted(by_dose.items())}
    known = {dose: one for dose, one in scores.items() if one is not None}
    if len(known) < 2 or len({one.shape for one in known.values()}) > 1:
        return None
    try:
        found = dose_response(
            list(known), np.stack(list(known.values())), measure=f"the score on {target}", dose=meaning
        )
    except MatrixError:
        return None
    return tuple(by_dose[dose] for dose in known), found


def _balanced(matrix: TransferMatrix, made: Mapping[str, Mapping[str, Any]]) -> Iterator[Balanced]:
    for name, one in made.items():
        parent = one["parents"][0]
        if not set(one["changes"]) & set(BALANCING) or not {parent} <= set(matrix.sources):
            continue
        for other in matrix.targets:
            if parent not in matrix.targets or other == parent:
                continue
            pair = (parent, other)
            ours = {target: _scores(matrix, name, target) for target in pair}
            theirs = {target: _scores(matrix, parent, target) for target in pair}
            a = {target: found for target, found in ours.items() if found is not None}
            b = {target: found for target, found in theirs.items() if found is not None}
            if len(a) == len(b) == 2:
                contrast = difference_in_differences(a, b, names=(name, parent))
                if isfinite(contrast.p):
                    yield Balanced(parent, name, contrast, float("nan"))


def _scores(matrix: TransferMatrix, source: str, target: str) -> Array | None:
    """(seeds, items) scores of an adapter that has been measured with every seed, else None."""
    if target not in matrix.item_scores:
        return None
    found = matrix.item_scores[target][1 + matrix.sources.index(source)]
    return found if np.isfinite(found).any(axis=1).all() else None


def families_in_words(found: Families) -> tuple[str, ...]:
    """Trends and contrasts that stand after correction, and how many questions have no answer."""
    sentences = []
    for title, told, all_of in (
        (
            "controlled changes of dose",
            _clearest([(curve.q, curve.response.p, curve.response.words) for curve in found.curves]),
            found.curves,
        ),
        (
            "controlled changes of dose, read off the answers",
            _clearest([(one.q, one.response.p, one.response.words) for one in found.answered]),
            found.answered,
        ),
        (
            "balanced sources",
            _clearest([(one.q, one.contrast.p, one.contrast.words) for one in found.balanced]),
            found.balanced,
        ),
        (
            "gains less their format",
            [one.words for one in found.format if one.verdict != "cannot tell"],
            found.format,
        ),
    ):
        if all_of:
            sentences.append(
                f"Of {len(all_of)} {title}, {len(told)} can be told after correction; the rest cannot."
            )
            sentences += [f"{said[:1].upper()}{said[1:]}" for said in told[:MOST_SAID]]
    return tuple(sentences)


def _clearest(found: Sequence[tuple[float, float, str]]) -> list[str]:
    """Words of what stands after correction (q, p, words), the least p first."""
    return [words for q, _, words in sorted(found, key=lambda one: one[1]) if q < 0.05]
