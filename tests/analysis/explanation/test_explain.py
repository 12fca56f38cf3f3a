"""What explain sees, and what it must not: laws of its tests, and studies of known truth."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from planted import matrix_of
from planted_pairs import Shape, simulated
from traitmap.analysis.explanation.design import (
    Composite,
    Design,
    aligned,
    effect_basis,
    make_design,
    node_permutations,
    prepare_alone,
    prepare_composites,
    residual,
    two_way_residual,
)
from traitmap.analysis.explanation.dominance import group_shares, shares_of
from traitmap.analysis.explanation.explain import explain
from traitmap.analysis.explanation.levels import row_strengths
from traitmap.analysis.explanation.pairs import asymmetry, odd_cells, ranked
from traitmap.analysis.explanation.permutation import mantel, permuted_products, slope_limits, slope_of
from traitmap.analysis.profiles.pairs import Feature, PairFeatures, Reason
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, Cell

SQUARE = Shape(12, 12)


def of(shape: Shape, effect: float, seed: int, others: int = 0) -> tuple[Design, Array]:
    """A design and its features, free of effects."""
    matrix, features = simulated(shape, effect, seed, others)
    design = make_design(matrix)
    return design, prepare_alone(aligned(features, design), design.own).values


def alone(design: Design, values: Array, seed: int = 0, draws: int = 199):
    moves = node_permutations(design, draws, seed)
    none = np.zeros((*values.shape, 0))
    return slope_of(design.y, values, none, design.used, effect_basis(design.used), moves)


def test_slopes_are_those_of_least_squares_with_dummies() -> None:
    design, values = of(Shape(9, 11, missing=0.15), 0.4, 1, others=2)
    rows, columns = design.cells
    dummies = np.column_stack([np.eye(9)[rows], np.eye(11)[columns]])
    x = values[design.used]
    plain = np.linalg.lstsq(np.column_stack([x, dummies]), design.y, rcond=None)[0][:3]
    basis = effect_basis(design.used)
    scale = np.linalg.norm(residual(x, basis), axis=0) / np.linalg.norm(residual(design.y, basis))
    moves = node_permutations(design, 99, 0)
    for i in range(3):
        others = np.delete(values, i, axis=2)
        found = slope_of(design.y, values[..., i], others, design.used, basis, moves)
        assert found.effect == pytest.approx(plain[i] * scale[i], abs=1e-8)


def test_source_and_target_effects_change_nothing() -> None:
    design, values = of(SQUARE, 0.5, 2)
    generator = np.random.default_rng(0)
    moved = replace(design, gains=design.gains + 50 * generator.normal(size=(12, 1)) + 9 * np.arange(12.0))
    plain, shifted = alone(design, values[..., 0]), alone(moved, values[..., 0])
    assert shifted.effect == pytest.approx(plain.effect, abs=1e-9)
    assert shifted.p == plain.p
    assert shifted.low == pytest.approx(plain.low, abs=1e-8)


def test_interval_is_the_inverted_test() -> None:
    design, values = of(SQUARE, 0.3, 3)
    x, basis = values[..., 0], effect_basis(design.used)
    moves = node_permutations(design, 499, 0)
    low, high = slope_limits(permuted_products(design.y, x, design.used, basis, moves))
    none = np.zeros((*x.shape, 0))

    def p_at(slope: float) -> float:
        y = design.y - slope * residual(x[design.used], basis)
        return slope_of(y, x, none, design.used, basis, moves).p

    width = high - low
    assert p_at(low + 0.02 * width) > 0.05 > p_at(low - 0.02 * width)
    assert p_at(high - 0.02 * width) > 0.05 > p_at(high + 0.02 * width)


def test_level_and_power_in_small() -> None:
    shapes = (SQUARE, Shape(8, 14, shared=False), Shape(12, 12, missing=0.2))
    false, naive, true = [], [], []
    for shape in shapes:
        for seed in range(50):
            design, values = of(shape, 0.0, seed)
            false.append(alone(design, values[..., 0], seed).p < 0.05)
            moves = node_permutations(design, 19, seed)
            naive.append(mantel(design.y, values[..., 0], design.used, moves).naive_p < 0.05)
        for seed in range(10):
            design, values = of(shape, 0.5, seed)
            true.append(alone(design, values[..., 0], seed).p < 0.05)
    assert 0.01 <= np.mean(false) <= 0.10  # 150 studies at 5 %: outside once in hundreds of tries
    assert np.mean(true) >= 0.8


def test_named_power_is_the_power() -> None:
    named = float(np.median([alone(*first(of(SQUARE, 0.0, seed)), seed).detectable for seed in range(20)]))
    found = [alone(*first(of(SQUARE, named, seed)), seed).p < 0.05 for seed in range(100)]
    assert 0.68 <= np.mean(found) <= 0.92


def first(pair: tuple[Design, Array]) -> tuple[Design, Array]:
    return pair[0], pair[1][..., 0]


def test_joint_permutations_keep_a_task_one_task() -> None:
    design, _ = of(SQUARE, 0.0, 0)
    labels = np.arange(144).reshape(12, 12)
    moves = node_permutations(design, 20, 0)
    rows, columns = design.cells
    assert design.scheme == "joint"
    for index in moves:
        to_row, to_column = np.divmod(labels.ravel()[index], 12)
        assert (to_row != to_column).all()  # an own pair never comes in
        where = {int(r): int(t) for r, t in zip(rows, to_row, strict=True)}
        assert all(where[int(c)] == t for c, t in zip(columns, to_column, strict=True))
    apart, _ = of(Shape(6, 9, shared=False), 0.0, 0)
    assert apart.scheme == "independent"


def test_mantel_agrees_with_scikit_bio() -> None:
    skbio = pytest.importorskip("skbio.stats.distance")
    generator = np.random.default_rng(4)
    points, other = generator.normal(size=(11, 3)), generator.normal(size=(11, 3))
    one = np.linalg.norm(points[:, None] - points[None], axis=-1)
    two = np.linalg.norm((points + other)[:, None] - (points + other)[None], axis=-1)
    r, p, _ = skbio.mantel(one, two, permutations=4999, seed=0)
    names = [f"task{i:02d}" for i in range(11)]
    design = make_design(matrix_of(two, names, names))
    gains = replace(design, gains=two)
    found = mantel(
        gains.y, np.where(design.own, np.nan, one), design.used, node_permutations(design, 4999, 1)
    )
    assert found.r == pytest.approx(r, abs=1e-12)
    assert found.p == pytest.approx(p, abs=0.005)


def test_dominance_of_two_groups_is_the_known_formula() -> None:
    generator = np.random.default_rng(5)
    x = generator.normal(size=(60, 3))
    x[:, 1] += 0.6 * x[:, 0]
    y = x @ [0.6, 0.3, 0.0] + generator.normal(size=60)
    x, y = x - x.mean(axis=0), y - y.mean()

    def r2(columns: list[int]) -> float:
        part = x[:, columns]
        return 1 - float(np.linalg.lstsq(part, y, rcond=None)[1][0] / (y @ y))

    first, second = shares_of(y, x, [[0, 2], [1]])
    assert first + second == pytest.approx(r2([0, 1, 2]), abs=1e-10)
    assert first == pytest.approx((r2([0, 2]) + r2([0, 1, 2]) - r2([1])) / 2, abs=1e-10)
    thirds = shares_of(y, x, [[0], [1], [2]])
    assert thirds.sum() == pytest.approx(r2([0, 1, 2]), abs=1e-10)
    orders = {(): np.zeros(1), (0,): np.array([0.5]), (1,): np.array([0.5]), (0, 1): np.array([0.5])}
    assert group_shares(orders, 2)[0] == pytest.approx([0.25, 0.25])  # twins share alike


def test_odd_cell_is_predicted_without_itself_and_found() -> None:
    generator = np.random.default_rng(6)
    names = [f"task{i:02d}" for i in range(10)]
    values = generator.normal(size=(10, 1)) + generator.normal(size=(1, 10)) + generator.normal(size=(10, 10))
    _, features = simulated(Shape(10, 10), 0.0, 6)
    noise = np.ones((10, 10))

    def cells_of(table: Array):
        design = make_design(matrix_of(table, names, names), noise=noise)
        x = prepare_alone(aligned(features, design), design.own).values
        return odd_cells(design, x, {("task02", "task05"): (Reason("length", "long", 1.0, True),)})

    moved = values.copy()
    moved[2, 5] += 8
    before, after = cells_of(values), cells_of(moved)
    by_pair = {(one.source, one.target): one for one in before.cells}
    odd = after.odd[0]
    assert (odd.source, odd.target) == ("task02", "task05")
    assert odd.predicted == pytest.approx(by_pair["task02", "task05"].predicted, abs=1e-9)
    assert odd.departure.low > 0
    assert odd.reasons[0].words == "long"
    unknown = odd_cells(make_design(matrix_of(moved, names, names)), np.zeros((10, 10, 0)), {})
    assert unknown.beyond_noise is None
    assert "unknown" in unknown.reason


def test_reasons_are_ranked_by_what_was_tested() -> None:
    given = (Reason("a", "", 9.0, False), Reason("b", "", 1.0, True), Reason("c", "", 5.0, None))
    assert [one.kind for one in ranked(given)] == ["b", "c", "a"]


def test_asymmetry_is_the_difference_with_both_noises() -> None:
    generator = np.random.default_rng(7)
    names = [f"task{i:02d}" for i in range(6)]
    base = generator.normal(size=(6, 6))
    values = base + base.T  # symmetric: perfect reciprocity
    values[1, 4] += 10
    design = make_design(matrix_of(values, names, names), noise=np.full((6, 6), 3.0))
    found = asymmetry(design, draws=199, seed=0)
    top = found.pairs[0]
    assert (top.first, top.second) == ("task01", "task04")
    assert top.difference.value == pytest.approx(10)
    assert top.difference.high - top.difference.low == pytest.approx(2 * 1.959964 * np.sqrt(18), abs=1e-4)
    symmetric = make_design(matrix_of(base + base.T, names, names))
    told = asymmetry(symmetric, draws=199, seed=0)
    assert told.reciprocity.value == pytest.approx(1)
    opposed = make_design(matrix_of(base - base.T, names, names))
    assert asymmetry(opposed, draws=199, seed=0).reciprocity.value == pytest.approx(-1)
    assert "unknown" in told.pairs[0].difference.reason


def test_strengths_are_row_effects_and_those_planted_are_called() -> None:
    names, planted = tuple("abcdefgh"), {"a", "h"}
    missed = wrong = 0
    for seed in range(20):
        generator = np.random.default_rng([seed, 8])
        gains = generator.normal(size=(8, 9)) + np.array([4.0, *[0.0] * 6, -4.0])[:, None]
        found = row_strengths(names, gains, np.ones((8, 9), dtype=bool), draws=199, seed=0)
        assert [one.effect.value for one in found] == pytest.approx(gains.mean(axis=1) - gains.mean())
        assert found[0].effect.low > 0 > found[0].null_low
        called = {one.name for one in found if one.q < 0.05}
        missed, wrong = missed + len(planted - called), wrong + len(called - planted)
        assert all((one.p < 0.05) == (one.effect.low > 0 or one.effect.high < 0) for one in found)
    assert missed == 0
    assert wrong <= 5  # of about 45 calls, one in twenty is wrong on average


def unrelated(size: int, spread: float, seed: int, donors: float = 1.0) -> Array:
    """(size, size) gains with effects of sources and targets, and scatter whose spread differs by task.

    No direction of a pair says anything of the other, and no pair is odder than another. donors: spread of
    the effects of sources.
    """
    generator = np.random.default_rng([seed, 41])
    scatter = generator.normal(size=(size, size))
    scatter *= np.exp(spread * generator.normal(size=(size, 1)))
    scatter *= np.exp(spread * generator.normal(size=(1, size)))
    return scatter + donors * generator.normal(size=(size, 1)) + 2 * generator.normal(size=(1, size))


@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_nothing_is_called_at_a_true_zero_whatever_the_spreads(spread: float) -> None:
    """One study in twenty at most; benchmarks/explain_calibration.py has the figures of many."""
    names = [f"task{i:02d}" for i in range(12)]
    called: dict[str, list[bool]] = {"reciprocity": [], "odd": [], "donors": []}
    for seed in range(100):
        design = make_design(matrix_of(unrelated(12, spread, seed), names, names))
        called["reciprocity"].append(asymmetry(design, draws=199, seed=seed).p < 0.05)
        called["odd"].append(bool(odd_cells(design, np.zeros((12, 12, 0)), {}).odd))
        level = unrelated(12, spread, seed, donors=0.0)
        strengths = row_strengths(design.sources, level, design.used, draws=199, seed=seed)
        called["donors"].append(any(one.q < 0.05 for one in strengths))
    assert {name: np.mean(calls) <= 0.11 for name, calls in called.items()} == dict.fromkeys(called, True)


def joint(features: PairFeatures) -> tuple[Composite, ...]:
    return tuple(Composite(one.name, one.group, one.words, (one.name,)) for one in features.features)


def test_explain_finds_the_planted_feature_and_not_its_copies() -> None:
    matrix, features = simulated(SQUARE, 0.6, 11, others=2)
    found = explain(matrix, features=features, composites=joint(features), n_permutations=499)
    assert [one.verdict == "yes" for one in found.joint] == [True, False, False]
    hidden, surface = found.dominance.groups
    assert hidden.verdict == "yes"
    assert hidden.share > hidden.null_p95
    assert hidden.share + surface.share + found.dominance.unexplained == pytest.approx(1)
    assert found.own == tuple((name, name) for name in found.sources)
    json.dumps(found.to_json(), allow_nan=False)


def test_explain_says_cannot_tell_with_what_could_have_been_seen() -> None:
    matrix, features = simulated(Shape(10, 10), 0.0, 1)
    found = explain(matrix, features=features, composites=joint(features), n_permutations=499)
    (one,) = found.joint
    assert one.verdict == "cannot tell"
    assert 0.1 < one.detectable < 0.8
    assert any("cannot tell" in said and f"{one.detectable:.2f}" in said for said in found.words)


def test_order_of_tasks_changes_nothing() -> None:
    matrix, features = simulated(Shape(9, 8), 0.4, 12)
    rows, columns = np.random.default_rng(0).permutation(9), np.random.default_rng(1).permutation(8)
    shuffled = matrix_of(
        matrix.values[np.ix_(rows, columns)],
        [matrix.sources[i] for i in rows],
        [matrix.targets[j] for j in columns],
    )
    settings = {"features": features, "composites": joint(features), "n_permutations": 199}
    assert explain(matrix, **settings).to_json() == explain(shuffled, **settings).to_json()


def test_features_of_one_side_are_told_between_tasks_only() -> None:
    matrix, features = simulated(Shape(10, 12, shared=False), 0.0, 13)
    level = np.random.default_rng(2).normal(size=(10, 1))
    values = matrix.values + 5 * level
    size = Feature("source_size", "size", "size", np.tile(level, (1, 12)), "source")
    found = explain(
        matrix_of(values, matrix.sources, matrix.targets),
        features=replace(features, features=(*features.features, size)),
        n_permutations=499,
    )
    assert "source_size" not in {one.name for one in found.alone}
    (told,) = found.levels
    assert told.verdict == "yes"
    assert told.r.value > 0.8


def test_one_of_several_sources_that_agree_stands_for_all() -> None:
    matrix, features = simulated(Shape(10, 10), 0.5, 4)
    generator = np.random.default_rng(5)
    names = [*matrix.sources, "again", "oncemore"]
    values = np.vstack([matrix.values, matrix.values[[2, 2]] + 0.05 * generator.normal(size=(2, 10))])
    values[10:, 2] = values[10:, 2] + 5  # on the twin's own target they are measured too
    rows = tuple(replace(one, values=one.values[[*range(10), 2, 2]]) for one in features.features)
    wide = replace(features, sources=tuple(names), features=rows)
    settings = {"n_permutations": 199, "own": (("again", "task02"), ("oncemore", "task02"))}
    table = matrix_of(values, names, matrix.targets)
    once = explain(matrix, features=features, n_permutations=199)
    found = explain(table, features=wide, **settings)
    assert set(found.conditions["near_copies"]) < {"again", "oncemore", "task02"}
    assert len(found.sources) == 10
    assert found.pairs == once.pairs
    (warning,) = (warning for warning in found.warnings if warning.code == "near_copies")
    assert "beyond noise" in warning.message
    every = explain(table, features=wide, near_copies=True, **settings)
    assert len(every.sources) == 12
    assert not every.conditions["near_copies"]


@pytest.mark.parametrize("kept", [False, True])
def test_copies_make_no_cause_of_noise(kept: bool) -> None:
    """Nine names of one adapter are one observation, even where most of the sources are its copies."""
    called = []
    for seed in range(40):
        generator = np.random.default_rng([seed, 12])
        matrix, features = simulated(Shape(6, 10, shared=False), 0.0, seed)
        rows = [*range(6), *[0] * 8]
        values = matrix.values[rows]
        values[6:] += 0.05 * generator.normal(size=(8, 10))
        names = [*matrix.sources, *(f"copy{i}" for i in range(8))]
        table = matrix_of(values, names, matrix.targets)
        near = replace(features.features[0], values=features.features[0].values[rows])
        wide = replace(features, sources=tuple(names), features=(near,))
        found = explain(table, features=wide, near_copies=kept, n_permutations=99, seed=seed)
        called.append(found.alone[0].p < 0.05)
    assert np.mean(called) >= 0.2 if kept else np.mean(called) <= 0.125


def test_suppressed_effects_are_no_causes() -> None:
    """A feature that matters only beside one that goes with it: joint significance is not enough."""
    generator = np.random.default_rng(3)
    matrix, features = simulated(SQUARE, 0.0, 3)
    foreign = ~np.eye(12, dtype=bool)
    x = two_way_residual(features.features[0].values, foreign)
    x /= x[foreign].std()
    partner = x + 0.5 * two_way_residual(generator.normal(size=(12, 12)), foreign)
    gains = 3 * (partner - x) + 0.4 * generator.normal(size=(12, 12))
    told = PairFeatures(
        features.sources,
        features.targets,
        (Feature("partner", "hidden", "", partner), Feature("near", "surface", "", x)),
    )
    found = explain(
        matrix_of(gains, matrix.sources, matrix.targets),
        features=told,
        composites=joint(told),
        n_permutations=499,
    )
    near = found.joint[1]
    assert near.q < 0.05
    assert near.verdict == "cannot tell"
    assert any("by itself" in said for said in found.words)


def test_composites_take_what_is_known_of_their_members() -> None:
    design, _ = of(Shape(8, 8), 0.0, 0)
    generator = np.random.default_rng(1)
    one, two = generator.normal(size=(2, 8, 8))
    two[:3] = np.nan
    given = (Feature("one", "hidden", "", one), Feature("two_distance", "hidden", "", two))
    prepared = prepare_alone(given, design.own)
    both = prepare_composites(
        prepared, (Composite("both", "hidden", "", ("one", "two_distance")),), design.own
    )
    assert np.isfinite(both.raw[..., 0][~design.own]).all()
    assert np.corrcoef(prepared.raw[4, ~design.own[4], 1], -two[4, ~design.own[4]])[0, 1] > 0.999
    absorbed = Feature("ratio", "hidden", "", np.arange(8.0)[:, None] - np.arange(8.0))
    assert prepare_alone((absorbed,), design.own).names == ()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"n_permutations": 5}, "n_permutations=5"),
        ({"units": "percent"}, "percent"),
        ({"own": [("task00", "nowhere")]}, "nowhere"),
        ({"noise": np.zeros((2, 2))}, "(2, 2)"),
        ({"texts": {}}, "one of the two"),
    ],
)
def test_wrong_settings_are_told(settings: dict, told: str) -> None:
    matrix, features = simulated(Shape(8, 8), 0.0, 0)
    with pytest.raises(MatrixError, match=told.replace("(", r"\(").replace(")", r"\)")):
        explain(matrix, features=features, **settings)


def test_too_small_a_matrix_is_told() -> None:
    matrix, features = simulated(Shape(3, 3), 0.0, 0)
    with pytest.raises(MatrixError, match="at least 3 sources"):
        explain(matrix, features=features)


def test_targets_in_unlike_units_are_standardised_unless_asked_otherwise() -> None:
    matrix, features = simulated(Shape(8, 8), 0.5, 0)
    matrix = replace(matrix, baseline=np.full(8, 0.5), values=0.5 + matrix.gains / 100)
    told = [("acc" if target != "task03" else "bits") for target in matrix.targets]
    values = matrix.values.copy()
    values[:, 3] = -4 + 10 * (values[:, 3] - 0.5)
    baseline = matrix.baseline.copy()
    baseline[3] = -4
    cells = tuple(
        Cell(
            source=source, target=target, seed=None, metric=told[t], value=values[s, t], n=100, stderr=0.01,
            gain=values[s, t] - baseline[t], gain_low=np.nan, gain_high=np.nan, p=np.nan, q=np.nan,
            unparsed=0.0, status="measured",
        )
        for s, source in enumerate(matrix.sources)
        for t, target in enumerate(matrix.targets)
    )  # fmt: skip
    unlike = replace(matrix, values=values, baseline=baseline, cells=cells)
    found = explain(unlike, features=features)
    assert found.conditions["units"] == "standard"
    assert "standard deviations of the target" in found.words[0]
    assert explain(unlike, features=features, units="points").conditions["units"] == "points"
    shares = replace(
        matrix, cells=tuple(replace(cell, metric="acc") for cell in cells if np.isfinite(cell.value))
    )
    assert explain(shares, features=features).conditions["units"] == "points"
    assert explain(matrix, features=features).conditions["units"] == "standard"  # nobody says what it counts
