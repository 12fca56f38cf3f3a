"""Sentences hold no unknown numbers and deny no verdict, whatever the table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import nan

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planted import matrix_of
from planted_pairs import Shape, simulated
from traitmap.analysis.explanation.design import Composite
from traitmap.analysis.explanation.dose import dose_response
from traitmap.analysis.explanation.explain import explain
from traitmap.analysis.explanation.records import Explanation
from traitmap.analysis.recommendation.recommend import recommend_sources
from traitmap.analysis.traits.findings import at_most
from traitmap.analysis.traits.records import TraitWarning
from traitmap.errors import MatrixError
from traitmap.wording import probability, related

UNKNOWN = re.compile(r"\b(nan|inf)\b")


def sentences(found: Explanation) -> Iterator[str]:
    yield from found.words
    for warning in found.warnings:
        yield from (warning.message, warning.action)
    for cell in found.odd.odd:
        yield from (reason.words for reason in cell.reasons)


@settings(deadline=None, max_examples=25)
@example(rows=3, columns=5, shared=False, kind="plain", others=4, seed=0)
@example(rows=3, columns=4, shared=False, kind="additive", others=1, seed=0)  # effects explain everything
@example(rows=4, columns=5, shared=False, kind="few levels", others=1, seed=19)  # all sources are alike
@given(
    rows=st.integers(3, 7),
    columns=st.integers(3, 7),
    shared=st.booleans(),
    kind=st.sampled_from(["plain", "constant columns", "constant rows", "few levels", "gaps", "additive"]),
    others=st.integers(1, 4),
    seed=st.integers(0, 50),
)
def test_no_sentence_holds_an_unknown_number(
    rows: int, columns: int, shared: bool, kind: str, others: int, seed: int
) -> None:
    matrix, features = simulated(Shape(rows, columns, shared=shared), 0.3, seed, others=others)
    values = matrix.values.copy()
    generator = np.random.default_rng(seed)
    if kind == "constant columns":
        values[:, : columns // 2] = 1.0
    elif kind == "constant rows":
        values[: rows // 2] = 1.0
    elif kind == "few levels":
        values = np.sign(values)
    elif kind == "gaps":
        values[generator.random(values.shape) < 0.3] = nan
    elif kind == "additive":
        values = np.arange(rows)[:, None] + 2.0 * np.arange(columns)
    matrix = matrix_of(values, matrix.sources, matrix.targets)
    composites = (
        Composite("near", "hidden", "near", ("near",)),
        Composite("copy", "surface", "", ("copy0",)),
    )
    told: list[str] = []
    try:
        told += sentences(explain(matrix, features=features, composites=composites, n_permutations=99))
    except MatrixError as error:
        told.append(str(error))
    try:
        advice = recommend_sources(matrix, matrix.targets[-1], features=features)
        told += [advice.words, *advice.notes, str(advice)]
        told += [reason.words for one in advice.ranked for reason in one.reasons]
        told += [one.words for one in advice.next_probes]
    except MatrixError as error:
        told.append(str(error))
    assert [words for words in told if UNKNOWN.search(words)] == []


def test_a_curve_of_two_items_has_no_unknown_number_in_its_sentence() -> None:
    response = dose_response([0.0, 1.0], np.zeros((2, 1, 2)))
    assert not UNKNOWN.search(response.words)


@pytest.mark.parametrize("value", [0.0495, 0.0498, 0.04996, 0.0499999])
def test_no_p_below_the_level_is_shown_as_the_level(value: float) -> None:
    assert probability(value).startswith(".049")
    assert float(probability(value)) <= value
    assert related("q", value) == f"q = {probability(value)}"
    assert probability(0.05) == ".050"
    assert related("q", nan) == "q unknown"


def test_many_warnings_are_counted() -> None:
    warnings = [TraitWarning("alike", f"{i}", "") for i in range(400)]
    warnings += [TraitWarning("outlier", f"{i}", "") for i in range(3)] + [TraitWarning("few", "few", "")]
    shown = at_most(warnings)
    assert len(shown) <= 25
    assert [warning.code for warning in shown].count("outlier") == 3
    assert "few" in {warning.code for warning in shown}
    assert shown[-1].code == "more_warnings"
    assert f"{404 - len(shown) + 1} more warnings" in shown[-1].message
    assert at_most(warnings[-4:]) == tuple(warnings[-4:])
