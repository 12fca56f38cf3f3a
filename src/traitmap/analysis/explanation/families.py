"""Families of controlled changes: what one thing changed in a source does, which correlation cannot tell.

A variation is a source made from another one. Those of one parent that differ in one thing by degrees make a
dose curve, of scores (``families``) and of the answers themselves: class shares, lengths, format, stopping
(``answered_curves``). A balanced source is held against its unbalanced parent, and a format control is taken
off every gain. Variations are near-copies, so they are no further tasks (``without_variations``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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
from traitmap.matrix.statistics import (
    Groups,
    benjamini_hochberg,
    group_scores,
    grouped,
    on_common_items,
)
from traitmap.study.derived import source_of_row

Outcomes = Mapping[tuple[str, int | None, str], Sequence[Outcome]]

BALANCING = ("balance", "class_weights")
FORMAT = "format_only"
DERIVED = ("merge", "checkpoint")  # kinds that change no row: adapters merged, or a training not at its end
MOST_SAID = 6  # sentences of one kind; the record holds all


_SUBJECTS = {  # measures of answers as the subject of a sentence
    "tokens": "output length in tokens",
    "characters": "output length in characters",
    "unparsed": "the share of unparsed answers",
    "endless": "the share of outputs without an end",
}


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

    answered: what they do to the answers themselves, where the outcomes were read.
    """

    curves: tuple[DoseCurve, ...] = ()
    balanced: tuple[Balanced, ...] = ()
    format: tuple[FormatPart, ...] = ()
    answered: tuple[AnsweredCurve, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.curves or self.balanced or self.format)


def variations_of(matrix: TransferMatrix) -> dict[str, Mapping[str, Any]]:
    """How each source that is made from another one was made, by its name.

    Empty for a matrix whose conditions tell of no variations.
    """
    sources = matrix.conditions.get("sources") or {}
    variations = {name: (sources.get(name) or {}).get("variation") for name in matrix.sources}
    return {name: variation for name, variation in variations.items() if variation}


def without_variations(matrix: TransferMatrix) -> TransferMatrix:
    """The matrix of the sources that are not made from another one: near-copies are no further tasks.

    The very same record where there are none.
    """
    return without_sources(matrix, variations_of(matrix))


def without_derived(matrix: TransferMatrix) -> TransferMatrix:
    """The matrix without merges and checkpoints: mixed or unfinished adapters of sources that stand there."""
    made = variations_of(matrix)
    return without_sources(matrix, [name for name, one in made.items() if one["kind"] in DERIVED])


def origins_of(matrix: TransferMatrix) -> dict[str, frozenset[str]]:
    """All sources that each source was made from, over however many steps, by its name."""
    made = variations_of(matrix)

    def origins(name: str) -> frozenset[str]:
        found, ahead = set[str](), [name]
        while ahead:
            parents = (made.get(ahead.pop()) or {}).get("parents", ())
            new = {source_of_row(parent)[0] for parent in parents} - found
            found |= new
            ahead += new
        return frozenset(found)

    return {name: origins(name) for name in made}


def without_sources(matrix: TransferMatrix, names: Collection[str]) -> TransferMatrix:
    """The matrix of all sources but those named; the very same record where none is."""
    return matrix.part([name for name in matrix.sources if name not in names])


def doses_of(matrix: TransferMatrix) -> dict[tuple[str, str, str], dict[float, str]]:
    """Every change that was made in two doses or more, the parent's own counted.

    (parent, kind of change, unit of its dose) -> dose -> source, the doses rising and one source for a dose;
    in the order of the parents' names and the kinds. Steps of one training are a matter of ``checkpoints``.
    """
    made = variations_of(matrix)
    single = [one for one in made.values() if len(one["parents"]) == 1 and one["kind"] not in DERIVED]
    groups = sorted({(one["parents"][0], one["kind"]) for one in single})
    series = {}
    for parent, kind in groups:
        family = {n: v for n, v in made.items() if list(v["parents"]) == [parent] and v["kind"] == kind}
        doses = {
            name: variation["dose"] for name, variation in family.items() if variation["dose"] is not None
        }
        first = next(iter(family.values()))
        if parent in matrix.sources and first["parent_dose"] is not None:
            doses[parent] = first["parent_dose"]
        by_dose = {dose: name for name, dose in sorted(doses.items(), reverse=True)}
        if len(by_dose) > 1:
            series[parent, kind, str(first["meaning"])] = dict(sorted(by_dose.items()))
    return series


def families(matrix: TransferMatrix) -> Families:
    """Dose and response of every change with doses, balanced against unbalanced, and the format's part.

    Empty where the matrix has no variations or no item scores. The q-values are Benjamini-Hochberg's over
    all curves, and over all balanced contrasts.
    """
    made = variations_of(matrix)
    if not made or not matrix.item_scores:
        return Families()
    curves = list(_curves(matrix))
    q = benjamini_hochberg(np.array([curve.response.p for curve in curves], dtype=float))
    balanced = list(_balanced(matrix, made))
    q_balanced = benjamini_hochberg(np.array([one.contrast.p for one in balanced], dtype=float))
    controls = {
        variation["parents"][0]: name
        for name, variation in made.items()
        if FORMAT in variation["changes"] and variation["parents"][0] in matrix.targets
    }
    return Families(
        curves=tuple(replace(curve, q=float(value)) for curve, value in zip(curves, q, strict=True)),
        balanced=tuple(replace(one, q=float(value)) for one, value in zip(balanced, q_balanced, strict=True)),
        format=subtract_format(matrix, controls) if controls else (),
    )


def _curves(matrix: TransferMatrix) -> Iterator[DoseCurve]:
    """One per parent, change and target with scores of two doses or more; q is still unknown."""
    for (parent, kind, meaning), by_dose in doses_of(matrix).items():
        for target in matrix.targets:
            scores = {dose: _scores(matrix, name, target) for dose, name in by_dose.items()}
            known = {dose: array for dose, array in scores.items() if array is not None}
            if len(known) < 2 or len({array.shape for array in known.values()}) > 1:
                continue
            common = on_common_items(*known.values())
            if common[0].shape[1] < 2:
                continue
            try:
                response = dose_response(
                    list(known),
                    np.stack(common),
                    measure=f"the score on {target}",
                    dose=meaning,
                )
            except MatrixError:
                continue
            sources = tuple(by_dose[dose] for dose in known)
            yield DoseCurve(parent, kind, meaning, target, sources, response, nan)


def _balanced(matrix: TransferMatrix, made: Mapping[str, Mapping[str, Any]]) -> Iterator[Balanced]:
    """Every balanced source against its parent, on the parent's own target and each other; q is unknown."""
    for name, variation in made.items():
        parent = variation["parents"][0]
        if not set(variation["changes"]) & set(BALANCING):
            continue
        if parent not in matrix.sources or parent not in matrix.targets:
            continue
        for other in matrix.targets:
            if other == parent:
                continue
            scores = [
                {
                    target: known
                    for target in (parent, other)
                    if (known := _scores(matrix, source, target)) is not None
                }
                for source in (name, parent)
            ]
            if any(len(of_source) < 2 for of_source in scores):
                continue
            for target in (parent, other):
                scores[0][target], scores[1][target] = on_common_items(scores[0][target], scores[1][target])
            contrast = difference_in_differences(*scores, names=(name, parent))
            if isfinite(contrast.p):
                yield Balanced(parent, name, contrast, nan)


def _scores(matrix: TransferMatrix, source: str, target: str) -> Array | None:
    """(seeds, items or groups) scores of an adapter that has been measured with every seed, else None."""
    if target not in matrix.item_scores:
        return None
    scores = group_scores(matrix.item_scores[target], matrix.item_groups.get(target))
    scores = scores[1 + matrix.sources.index(source)]
    return scores if np.isfinite(scores).any(axis=1).all() else None


def item_measures(items: TargetItems, rows: Sequence[int]) -> dict[str, Array]:
    """Measure -> (S, n) values of some adapters' answers, whose mean is the number; only what is known.

    rows: of the adapters. Shares of classes, and for written answers tokens, characters, unparsed, endless.
    """
    adapters = list(rows)
    measures = {
        f"answers {label}": (items.predicted[adapters] == code).astype(float)
        for code, label in enumerate(items.labels)
    }
    if items.generated:
        measures["tokens"] = items.tokens[adapters]
        measures["characters"] = items.characters[adapters]
        measures["unparsed"] = (~items.parsed[adapters]).astype(float)
        measures["endless"] = 1 - items.stopped[adapters]
    return {name: values for name, values in measures.items() if np.isfinite(values).all()}


def answered_curves(
    outcomes: Outcomes,
    doses: Mapping[str, float],
    *,
    dose: str = "the dose",
    texts: Texts | None = None,
    item_groups: Mapping[str, Groups] | None = None,
) -> tuple[AnsweredCurve, ...]:
    """Every measure of every target over a family of sources that differ in one thing by degrees.

    outcomes: (source, seed, target) -> outcomes, as in ``cell_profiles``. doses: of each source of the
    family, one source for a dose. texts: of the targets. item_groups: of their items that repeat. Sources
    that lack a seed that others have are left out of a target's curves, and a target with fewer than two
    doses has none. Measures that are the same for every answer of every source are left out.
    """
    by_target: dict[str, dict[tuple[str, int | None], Sequence[Outcome]]] = {}
    for (source, seed, target), answers in outcomes.items():
        by_target.setdefault(target, {})[source, seed] = answers
    curves = []
    for target, answers_of in by_target.items():
        items = target_items(
            target, answers_of, (texts or {}).get(target, ()), (item_groups or {}).get(target)
        )
        if items is None:
            continue
        rows = {source: at for source, seed, at in items.groups if seed is None and source in doses}
        most = max((len(at) for at in rows.values()), default=0)
        family = sorted((source for source in rows if len(rows[source]) == most), key=doses.__getitem__)
        if len({doses[source] for source in family}) < 2:
            continue
        measured = [item_measures(items, rows[source]) for source in family]
        for name in measured[0]:
            values = np.stack([measures[name] for measures in measured if name in measures])
            if len(values) == len(family) and np.ptp(values) > 0:
                of_class = f"the share of {name.removeprefix('answers ')!r} among the answers"
                response = dose_response(
                    [doses[source] for source in family],
                    grouped(values, items.item_groups),
                    measure=f"{_SUBJECTS.get(name, of_class)} on {target}",
                    dose=dose,
                )
                curves.append(AnsweredCurve(target, name, tuple(family), response, nan))
    q = benjamini_hochberg(np.array([curve.response.p for curve in curves], dtype=float))
    return tuple(replace(curve, q=float(value)) for curve, value in zip(curves, q, strict=True))


def families_in_words(found: Families) -> tuple[str, ...]:
    """Trends and contrasts that stand after correction, and how many questions have no answer.

    At most ``MOST_SAID`` sentences of one kind, those of the least p first.
    """
    clear_format = [part.words for part in found.format if part.verdict != "cannot tell"]
    sentences = []
    for title, count, clear in (
        (
            "controlled changes of dose",
            len(found.curves),
            _clearest([(curve.q, curve.response.p, curve.response.words) for curve in found.curves]),
        ),
        (
            "controlled changes of dose, read off the answers",
            len(found.answered),
            _clearest([(curve.q, curve.response.p, curve.response.words) for curve in found.answered]),
        ),
        (
            "balanced sources",
            len(found.balanced),
            _clearest([(one.q, one.contrast.p, one.contrast.words) for one in found.balanced]),
        ),
        ("gains less their format", len(found.format), clear_format),
    ):
        if count:
            sentences.append(
                f"Of {count} {title}, {len(clear)} can be told after correction; the rest cannot."
            )
            sentences += [f"{words[:1].upper()}{words[1:]}" for words in clear[:MOST_SAID]]
    return tuple(sentences)


def _clearest(results: Sequence[tuple[float, float, str]]) -> list[str]:
    """Words of what stands after correction (q, p, words), the least p first."""
    return [words for q, _, words in sorted(results, key=lambda result: result[1]) if q < 0.05]
