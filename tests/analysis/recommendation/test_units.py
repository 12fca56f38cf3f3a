"""Nothing depends on the unit of a table, whatever columns are constant or nearly so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planted import matrix_of
from planted_pairs import Shape, simulated
from traitmap.analysis.explanation.explain import explain
from traitmap.analysis.explanation.records import Explanation
from traitmap.analysis.recommendation.completion import complete
from traitmap.analysis.recommendation.recommend import recommend_sources
from traitmap.analysis.traits.decompose import decompose
from traitmap.errors import MatrixError
from traitmap.matrix.record import TransferMatrix

SOURCES, TARGETS = 10, 7
PATTERNS = st.lists(
    st.sampled_from(["varies", "constant", "nearly constant"]), min_size=TARGETS, max_size=TARGETS
)
HALF = ["constant"] * 4 + ["varies"] * 3
MOST = ["constant", "nearly constant", "constant", "constant", "nearly constant", "varies", "varies"]


def table(pattern: list[str], seed: int, *, based: bool = True, gaps: bool = False) -> TransferMatrix:
    """Shares of right answers, 0 to 1; a nearly constant column differs by rounding alone."""
    generator = np.random.default_rng(seed)
    shape = (SOURCES, TARGETS)
    values = generator.normal(size=(SOURCES, 1)) + generator.normal(size=(1, TARGETS))
    values = np.clip(0.5 + 0.1 * (values + generator.normal(size=shape)), 0.02, 0.98)
    rounding = 1e-13 * generator.normal(size=shape)
    for t, kind in enumerate(pattern):
        if kind != "varies":
            values[:, t] = values[0, t] + (rounding[:, t] if kind == "nearly constant" else 0.0)
    if gaps:
        values[generator.random(shape) < 0.3] = np.nan
    matrix = matrix_of(values, [f"s{i}" for i in range(SOURCES)], [f"t{j}" for j in range(TARGETS)])
    return replace(matrix, baseline=np.full(TARGETS, 0.45 if based else np.nan))


def in_per_cent(matrix: TransferMatrix) -> TransferMatrix:
    return replace(matrix, values=100 * matrix.values, baseline=100 * matrix.baseline)


@settings(deadline=None, max_examples=15)
@example(pattern=HALF, target=6, seed=0, based=True)
@example(pattern=MOST, target=0, seed=1, based=True)
@given(pattern=PATTERNS, target=st.integers(0, TARGETS - 1), seed=st.integers(0, 20), based=st.booleans())
def test_a_table_in_per_cent_gets_the_same_recommendation(
    pattern: list[str], target: int, seed: int, based: bool
) -> None:
    matrix = table(pattern, seed, based=based)
    share = recommend_sources(matrix, f"t{target}")
    per_cent = recommend_sources(in_per_cent(matrix), f"t{target}")  # both are shown in points
    assert [advice.source for advice in share.ranked] == [advice.source for advice in per_cent.ranked]
    assert share.conditions["model"] == per_cent.conditions["model"]
    for one, other in zip(share.ranked, per_cent.ranked, strict=True):
        for name in ("value", "low", "high"):
            assert getattr(one.gain, name) == pytest.approx(getattr(other.gain, name), rel=1e-6, abs=1e-6)
        assert one.best == pytest.approx(other.best, abs=0.01)
    assert share.notes == per_cent.notes


def test_columns_that_say_nothing_are_named() -> None:
    notes = recommend_sources(table(HALF, 0), "t6").notes
    assert any("All sources do the same on t0, t1, t2 and t3" in note for note in notes)
    assert not any("do the same" in note for note in recommend_sources(table(["varies"] * 7, 0), "t6").notes)


@settings(deadline=None, max_examples=8)
@example(pattern=HALF, seed=0)
@given(pattern=PATTERNS, seed=st.integers(0, 20))
def test_a_table_in_per_cent_is_completed_alike(pattern: list[str], seed: int) -> None:
    matrix = table(pattern, seed, gaps=True)
    share, per_cent = complete(matrix), complete(in_per_cent(matrix))
    assert 100 * share.values == pytest.approx(per_cent.values, abs=1e-5)
    widths = [
        [cell.gain_high - cell.gain_low for cell in done.cells if cell.status == "predicted"]
        for done in (share, per_cent)
    ]
    assert 100 * np.array(widths[0]) == pytest.approx(np.array(widths[1]), abs=1e-5)


EIGHT = ["varies"] * 8
MANY_TIES = ["constant", "one source", "one source", *["nearly constant"] * 3, "one source", "constant"]
LEVELS = ["hardly varies", *EIGHT[2:], "one source"]  # all sources gain alike, but for a thousandth
PLACES = st.lists(
    st.sampled_from(["varies", "constant", "nearly constant", "hardly varies", "one source"]),
    min_size=8,
    max_size=8,
)


@settings(deadline=None, max_examples=12)
@example(pattern=EIGHT, seed=1, shifted=False, based="all")
@example(pattern=EIGHT, seed=1, shifted=True, based="none")
@example(pattern=LEVELS, seed=3, shifted=True, based="all")
@example(pattern=LEVELS, seed=4, shifted=True, based="some")
@example(pattern=["constant", "nearly constant", *EIGHT[2:]], seed=0, shifted=False, based="all")
@example(pattern=["one source"] * 8, seed=2, shifted=True, based="all")
@example(pattern=MANY_TIES, seed=12, shifted=False, based="all")  # couples of tasks: rounding alone
@example(pattern=MANY_TIES[::-1], seed=19, shifted=True, based="all")
@given(
    pattern=PLACES,
    seed=st.integers(0, 20),
    shifted=st.booleans(),
    based=st.sampled_from(["all", "some", "none"]),
)
def test_explanations_do_not_depend_on_the_unit_of_any_column(
    pattern: list[str], seed: int, shifted: bool, based: str
) -> None:
    """Each column by a factor of its own and shifted by its own number, with its base where it has one."""
    generator = np.random.default_rng([seed, 6])
    matrix, features = simulated(Shape(8, 8), 0.5, seed)
    values = 40 + matrix.values
    for t, kind in enumerate(pattern):
        if kind in ("constant", "nearly constant"):
            values[:, t] = 41.0
        if kind == "nearly constant":
            values[:, t] += 1e-12 * generator.normal(size=8)
        if kind == "hardly varies":
            values[:, t] = 45.0 + 1e-3 * matrix.values[:, t]
        if kind == "one source":
            values[:, t] = 41.0 + np.where(np.arange(8) == (t + 2) % 8, values[:, t] - 41.0, 0.0)
    known = {"all": np.ones(8, dtype=bool), "some": np.arange(8) > 2, "none": np.zeros(8, dtype=bool)}
    plain = replace(matrix, values=values, baseline=np.where(known[based], 40.5, np.nan))
    factor = 10.0 ** generator.uniform(-6, 6, 8)
    shift = factor * generator.uniform(-20, 20, 8) if shifted else np.zeros(8)
    scaled = replace(plain, values=values * factor + shift, baseline=plain.baseline * factor + shift)
    results = []
    for table_ in (plain, scaled):
        try:
            results.append(explain(table_, features=features, n_permutations=99, seed=1))
        except MatrixError as error:
            results.append(str(error))
    assert results[0] == results[1] if isinstance(results[0], str) else _alike(*results)


def _alike(one: Explanation, other: Explanation) -> bool:
    """Whether two explanations say the same but for rounding: every number, verdict, sentence and warning."""
    first, second = (_leaves(found.to_json()) for found in (one, other))
    assert first.keys() == second.keys()
    for place, value in first.items():
        if isinstance(value, float):
            assert second[place] == pytest.approx(value, rel=1e-4, abs=1e-5), place
        elif not isinstance(value, str) or "words" not in place:  # a last digit may be rounded otherwise
            assert second[place] == value, place
    return True


def _leaves(data: Any, place: str = "") -> dict[str, Any]:
    if isinstance(data, dict):
        return {k: v for name, part in data.items() for k, v in _leaves(part, f"{place}.{name}").items()}
    if isinstance(data, list):
        return {k: v for i, part in enumerate(data) for k, v in _leaves(part, f"{place}[{i}]").items()}
    return {place: data}


def test_targets_that_say_nothing_are_left_out_of_an_explanation_by_name() -> None:
    matrix, features = simulated(Shape(8, 8), 0.5, 3)
    values = 40 + matrix.values
    values[:, 1], values[:, 4] = 41.0, 1e3 + 1e-11 * np.arange(8)
    found = explain(replace(matrix, values=values), features=features, n_permutations=99)
    left_out = (matrix.targets[1], matrix.targets[4])
    (warning,) = (warning for warning in found.warnings if warning.code == "targets_left_out")
    assert warning.about == left_out
    assert all(name in warning.message for name in left_out)


def test_a_target_that_hardly_varies_has_no_level_and_gives_the_others_none() -> None:
    """In its own standard deviations what all sources gain there is any number."""
    matrix, features = simulated(Shape(9, 9), 0.5, 3)
    values = matrix.values.copy()
    name, others = matrix.targets[3], [t for t in matrix.targets if t != matrix.targets[3]]
    values[:, 3] = 5 + 1e-3 * values[:, 3]
    found = explain(replace(matrix, values=values), features=features, n_permutations=99)
    without = explain(matrix.part(targets=others), features=features, n_permutations=99)
    strengths = {one.name: one.effect for one in found.recipients}
    assert not strengths[name].known
    assert "hardly differ" in strengths[name].reason
    for one in without.recipients:
        assert strengths[one.name].value == pytest.approx(one.effect.value, abs=1e-9)
    assert all(name not in (pair.first, pair.second) for pair in found.asymmetry.pairs)
    (warning,) = (warning for warning in found.warnings if warning.code == "level_without_scatter")
    assert warning.about == (name,)
    points = explain(replace(matrix, values=values), features=features, n_permutations=99, units="points")
    assert all(one.effect.known for one in points.recipients)


def test_without_a_base_nothing_is_said_of_gains() -> None:
    """Scores less their mean on the target stand for gains; no target gains more than another."""
    matrix, features = simulated(Shape(9, 9), 0.5, 3)
    values = matrix.values + np.linspace(20, 80, 9)
    found = explain(
        replace(matrix, values=values, baseline=np.full(9, np.nan)), features=features, n_permutations=99
    )
    assert found.quantity == "score less mean"
    assert not any(one.effect.known for one in found.recipients)
    assert found.asymmetry.pairs == ()
    assert found.asymmetry.reciprocity.known  # effects are taken out of it
    assert "Asymmetry: cannot tell; the base is unknown." in found.words
    assert "Recipients: cannot tell; the base is unknown." in found.words
    assert not any("unknown;" in words or "Gains are" in words for words in found.words)
    with_base = explain(matrix, features=features, n_permutations=99)
    assert [one.effect.value for one in found.donors] == pytest.approx(
        [one.effect.value for one in with_base.donors]
    )
    for name in found.targets:
        scores = [cell.gain for cell in found.odd.cells if cell.target == name]
        assert np.mean(scores) == pytest.approx(0.0, abs=1e-9)


def test_a_target_on_which_lower_is_better_is_turned() -> None:
    matrix, features = simulated(Shape(8, 8), 0.5, 3)
    turned = matrix.values.copy()
    turned[:, 2] *= -1
    loss = replace(matrix, values=turned, conditions={"higher_is_better": {matrix.targets[2]: False}})
    one, other = (explain(table_, features=features, n_permutations=99) for table_ in (matrix, loss))
    assert one.words == other.words
    assert one.alone == other.alone


@pytest.mark.parametrize("pattern", [["varies"] * TARGETS, HALF, ["varies", "constant"] * 3 + ["varies"]])
def test_traits_do_not_depend_on_scale_and_shift_of_any_column(pattern: list[str]) -> None:
    """A trait is a direction among standardised columns, so each column may have a unit of its own."""
    matrix, generator = table(pattern, 3), np.random.default_rng(1)
    scale, shift = 10.0 ** generator.integers(-3, 4, TARGETS), 10 * generator.normal(size=TARGETS)
    other = replace(matrix, values=matrix.values * scale + shift, baseline=matrix.baseline * scale + shift)
    one, two = (decompose(subject, n_bootstrap=50, n_permutations=50) for subject in (matrix, other))
    assert one.n_components == two.n_components
    assert one.targets == two.targets
    np.testing.assert_allclose(one.loadings, two.loadings, atol=1e-6)
    np.testing.assert_allclose(one.explained_variance_ratio, two.explained_variance_ratio, atol=1e-9)
