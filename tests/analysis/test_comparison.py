"""Runs held against each other: simulated answers whose truth is known, and laws that no data may break."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planted import matrix_of
from traitmap.analysis import Side, compare_sides
from traitmap.analysis.agreement import agreement
from traitmap.analysis.comparison_words import cells_table
from traitmap.analysis.verdicts import cell_verdicts
from traitmap.errors import MatrixError
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.matrix.statistics import benjamini_hochberg, paired_gain

NAN = float("nan")
TARGETS = 6


def run_of(scores: dict[str, np.ndarray], sources: list[str], metric: str = "acc", **conditions):
    """A matrix with tests, as a run gives it. scores: target -> (1 + S, seeds, n), the base first."""
    tested = {
        target: paired_gain(part[1:] - part[:1], binary=bool(np.isin(part, (0, 1)).all()))
        for target, part in scores.items()
    }
    q = benjamini_hochberg(np.stack([p for *_, p in tested.values()], axis=1))
    cells = tuple(
        Cell(
            source,
            target,
            None,
            metric,
            float(scores[target][1 + row].mean()),
            scores[target].shape[2],
            NAN,
            *(float(part[row]) for part in tested[target]),
            float(q[row, column]),
            0.0,
            "measured",
        )
        for row, source in enumerate(sources)
        for column, target in enumerate(scores)
    )
    means = np.stack([part.mean(axis=(1, 2)) for part in scores.values()], axis=1)
    return matrix_of(
        means[1:],
        sources=sources,
        targets=list(scores),
        baseline=means[0],
        item_scores=scores,
        cells=cells,
        conditions=conditions,
    )


def answers(shares: np.ndarray, *, items: int, seed: int, difficulty: float = 2.0, seeds: int = 1):
    """target -> (1 + S, seeds, items) of 0 and 1. shares: (1 + S, T), the base first."""
    generator = np.random.default_rng(seed)
    odds = np.log(shares / (1 - shares))
    scores = {}
    for column in range(shares.shape[1]):
        hard = difficulty * generator.normal(size=items)
        chance = 1 / (1 + np.exp(-(odds[:, column, None, None] + hard)))
        scores[f"t{column}"] = (generator.random((len(shares), seeds, items)) < chance).astype(float)
        scores[f"t{column}"][0] = scores[f"t{column}"][0, :1]
    return scores


def side(name: str, matrix: TransferMatrix, items: bool = True) -> Side:
    named = {
        target: [f"{target} {i}" for i in range(part.shape[2])] for target, part in matrix.item_scores.items()
    }
    return Side(name, matrix, cell_verdicts(matrix), named if items else {})


def shares_of(gains: list[list[float]]) -> np.ndarray:
    """(1 + S, T) with a base of one half throughout."""
    return np.vstack([np.full(len(gains[0]), 0.5), 0.5 + np.array(gains)])


SOURCES = ["a", "b", "c", "d", "e"]
GAINS = [
    [0.3, -0.3, 0.0, 0.0, 0.0, 0.2],
    [0.0, 0.0, 0.3, -0.2, 0.0, 0.0],
    [-0.3, 0.0, 0.0, 0.0, 0.2, 0.0],
    [0.0, 0.2, 0.0, 0.3, 0.0, -0.3],
    [0.0, 0.0, -0.2, 0.0, 0.0, 0.3],
]


@pytest.fixture(scope="module")
def first() -> TransferMatrix:
    return run_of(answers(shares_of(GAINS), items=300, seed=1), SOURCES)


def test_a_run_against_itself_does_not_differ(first):
    one = compare_sides([side("one", first), side("two", first)])
    assert {cell.difference.value for cell in one.cells} == {0.0}
    assert not one.differing
    assert {cell.outcome for cell in one.cells} <= {"holds", "in some", "within noise"}
    significant = {(cell.source, cell.target) for cell in first.cells if cell.q < 0.05}
    assert {(cell.source, cell.target) for cell in one.holding} == significant
    agreed = one.agreements[0]
    assert agreed.gains.value.value == pytest.approx(1)
    assert agreed.gains.p < 0.05
    assert agreed.traits.subspace.value.value == pytest.approx(1)
    assert agreed.picks is not None
    assert (agreed.picks.same, agreed.picks.lost.value) == (TARGETS, 0.0)


def test_an_effect_that_one_run_alone_has_does_not_hold(first):
    changed = [[*row] for row in GAINS]
    changed[0][0] = 0.0
    second = run_of(answers(shares_of(changed), items=300, seed=2), SOURCES)
    found = compare_sides([side("one", first), side("two", second, items=False)])
    by_place = {(cell.source, cell.target): cell for cell in found.cells}
    assert by_place["a", "t0"].outcome == "differs"
    assert by_place["a", "t1"].outcome == "holds"
    assert by_place["a", "t0"].difference.high < 0, "the second has less"


def test_opposite_signs_are_told(first):
    changed = [[*row] for row in GAINS]
    changed[0][0] = -0.3
    second = run_of(answers(shares_of(changed), items=300, seed=2), SOURCES)
    found = compare_sides([side("one", first), side("two", second, items=False)])
    assert (
        next(cell for cell in found.cells if (cell.source, cell.target) == ("a", "t0")).outcome == "opposite"
    )
    assert "of opposite sign" in dict(found.lines)["DIFFERS"]


def test_swapping_the_runs_turns_the_sign(first):
    second = run_of(answers(shares_of(GAINS), items=300, seed=3), SOURCES)
    there = compare_sides([side("one", first), side("two", second)])
    back = compare_sides([side("two", second), side("one", first)])
    for one, other in zip(there.cells, back.cells, strict=True):
        assert one.difference.value == pytest.approx(-other.difference.value)
        assert one.difference.low == pytest.approx(-other.difference.high)
        assert (one.outcome, one.q_differs) == (other.outcome, pytest.approx(other.q_differs))


def test_the_same_items_tell_more_than_others():
    """Two runs whose items share their difficulty: pairing narrows the interval where the base is one."""
    generator = np.random.default_rng(5)
    hard = 3 * generator.normal(size=400)

    def run(seed: int) -> TransferMatrix:
        drawn = np.random.default_rng(seed)
        chance = 1 / (1 + np.exp(-(np.array([0.0, 1.0])[:, None] + hard)))
        return run_of({"t": (drawn.random((2, 1, 400)) < chance[:, None]).astype(float)}, ["a"])

    one, two = run(1), run(2)
    paired = compare_sides([side("one", one), side("two", two)]).cells[0]
    apart = compare_sides([side("one", one), side("two", two, items=False)]).cells[0]
    assert (paired.paired, apart.paired) == (True, False)
    assert paired.difference.value == pytest.approx(apart.difference.value)
    width = [cell.difference.high - cell.difference.low for cell in (paired, apart)]
    assert width[0] == pytest.approx(width[1], rel=0.05), "gains are paired with their bases already"
    shared_base = replace(
        two,
        item_scores={"t": np.stack([one.item_scores["t"][0], two.item_scores["t"][1]])},
    )
    shared = compare_sides([side("one", one), side("two", shared_base)]).cells[0]
    assert shared.difference.high - shared.difference.low < 0.8 * width[1], "one base takes no part"


def test_only_items_that_both_asked_are_compared(first):
    part = {target: scores[..., :200] for target, scores in first.item_scores.items()}
    fewer = run_of(part, SOURCES)
    found = compare_sides([side("all", first), side("part", fewer)])
    assert {(cell.paired, cell.n) for cell in found.cells} == {(True, 200)}
    assert {cell.difference.value for cell in found.cells} == {0.0}
    shuffled = Side(
        "part",
        run_of({target: scores[..., ::-1] for target, scores in part.items()}, SOURCES),
        cell_verdicts(fewer),
        {target: [f"{target} {i}" for i in reversed(range(200))] for target in part},
    )
    again = compare_sides([side("all", first), shuffled])
    assert {cell.difference.value for cell in again.cells} == {0.0}, "items are matched by what they are"


def test_a_true_null_is_called_as_often_as_it_may():
    """Two runs of the same truth on other items: about one in twenty differences stands at p < .05."""
    called = asked = 0
    for seed in range(40):
        runs = [
            run_of(answers(shares_of(GAINS), items=150, seed=2 * seed + k, seeds=1 + seed % 2), SOURCES)
            for k in (0, 1)
        ]
        found = compare_sides([side("one", runs[0], items=False), side("two", runs[1], items=False)])
        for cell in found.cells:
            asked += 1
            called += not cell.difference.low <= 0 <= cell.difference.high
    assert 0.02 < called / asked < 0.07, called / asked


def test_tables_of_noise_agree_as_often_as_chance():
    """Each null keeps its level: at 5 %, between 0 and 12 of 100 are called."""
    called = {"gains": 0, "pattern": 0, "sources": 0, "picks": 0, "components": 0}
    own = np.zeros((8, 7), dtype=bool)
    for seed in range(100):
        generator = np.random.default_rng(seed)
        column_effects = 3 * generator.normal(size=7)
        one, other = (column_effects + generator.normal(size=(8, 7)) for _ in range(2))
        loadings = tuple(np.linalg.svd(table - table.mean(axis=0))[2].T for table in (one, other))
        found = agreement(
            one, other, own, own, places=(0, 1), loadings=loadings, supported=(0, 0), draws=99, seed=seed
        )
        assert found.picks is not None
        called["gains"] += found.gains.p < 0.05
        called["pattern"] += found.pattern.p < 0.05
        called["sources"] += found.sources.p < 0.05
        called["picks"] += found.picks.p < 0.05
        called["components"] += found.traits.subspace.p < 0.05
    assert all(count <= 12 for count in called.values()), called


def test_agreement_does_not_depend_on_units_of_targets():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(8, 7))
    one, other = (truth + generator.normal(size=truth.shape) for _ in range(2))
    own = np.eye(8, 7, dtype=bool)
    factors = np.array([1, 100, 0.01, 3, 1, 1, 50.0])

    def found(table, second):
        return agreement(
            table, second, own, np.zeros_like(own), places=(0, 1), loadings=None, supported=(0, 0), draws=49
        )

    plain, scaled = found(one, other), found(one * factors, other * factors)
    for name in ("gains", "pattern", "sources"):
        assert getattr(plain, name).value.value == pytest.approx(getattr(scaled, name).value.value)
        assert getattr(plain, name).p == pytest.approx(getattr(scaled, name).p)
    assert plain.picks.lost.value == pytest.approx(scaled.picks.lost.value)


def test_what_a_pick_loses_is_a_share_of_best_over_average():
    """By hand: 10 where 20 is best and the average is 10 loses all; 30 where 30 is best nothing."""
    one = np.array([[5.0, 1.0], [1.0, 5.0], [0.0, 0.0], [0.0, 0.0]])
    other = np.array([[10.0, 0.0], [20.0, 30.0], [10.0, 0.0], [0.0, 10.0]])
    found = agreement(
        one, other, *np.zeros((2, 4, 2), bool), places=(0, 1), loadings=None, supported=(0, 0), draws=9
    )
    assert found.picks is not None
    assert found.picks.same == 1
    assert found.picks.lost.value == pytest.approx((1.0 + 0.0) / 2)


def test_components_are_matched_whatever_their_order():
    loadings = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 3)))[0]
    found = agreement(
        np.zeros((5, 9)),
        np.zeros((5, 9)),
        np.zeros((5, 9), bool),
        np.zeros((5, 9), bool),
        places=(0, 1),
        loadings=(loadings, -loadings[:, [2, 0, 1]]),
        supported=(3, 2),
    ).traits
    assert [part.value.value for part in found.components] == pytest.approx([1, 1, 1])
    assert found.subspace.p < 0.01


def test_tables_without_a_base_agree_by_scores_less_the_targets_mean():
    generator = np.random.default_rng(3)
    truth = generator.normal(size=(8, 7))
    tables = [
        matrix_of(50 + level + truth + 0.1 * generator.normal(size=truth.shape), baseline=np.full(7, NAN))
        for level in (0, 20)
    ]
    found = compare_sides([side(name, table) for name, table in zip("ab", tables, strict=True)])
    assert found.agreements[0].gains.value.value > 0.9
    assert not found.transfers
    assert "no intervals" in dict(found.lines)["HOLDS"]


def test_other_metrics_are_not_compared(first):
    other = run_of(dict(first.item_scores), SOURCES, metric="f1")
    found = compare_sides([side("one", first), side("two", other)])
    assert {cell.outcome for cell in found.cells} == {"unknown"}
    assert "other metrics: acc, f1" in found.cells[0].reason


def test_what_was_changed_is_told(first):
    def of(rate: float, seed: int) -> Side:
        study = {"name": "x", "training": {"learning_rate": rate, "max_steps": 60}}
        return side("run", replace(first, conditions={"study": study, "seeds": [seed], "base": "b"}))

    told = compare_sides([of(1e-4, 0), of(1e-3, 0)]).conditions
    assert [(one.name, one.values) for one in told] == [("training.learning_rate", ("0.0001", "0.001"))]
    assert not compare_sides([of(1e-4, 0), of(1e-4, 0)]).conditions


def test_lines_say_the_numbers_of_the_record(first):
    second = run_of(answers(shares_of(GAINS), items=300, seed=9), SOURCES)
    found = compare_sides([side("one", first), side("two", second, items=False)])
    lines = dict(found.lines)
    assert lines["HOLDS"].startswith(f"{len(found.holding)} of {len(found.transfers)} transfers")
    assert f"{found.agreements[0].gains.value.value:.2f}" in lines["AGREE"]
    assert "nan" not in " ".join(lines.values()).lower()


def test_nothing_in_common_is_an_error(first):
    other = run_of({"else": next(iter(first.item_scores.values()))}, SOURCES)
    with pytest.raises(MatrixError, match="no target is in all of them"):
        compare_sides([side("one", first), side("two", other)])
    with pytest.raises(MatrixError, match="name two or more"):
        compare_sides([side("one", first)])


def test_cells_that_a_run_does_not_know_are_named_with_their_reason(first):
    damaged = [
        replace(cell, gain=NAN, gain_low=NAN, gain_high=NAN, status="missing", reason="its file is damaged")
        if (cell.source, cell.target) == (first.sources[0], first.targets[1])
        else cell
        for cell in first.cells
    ]
    second = replace(first, cells=tuple(damaged))
    notes = " ".join(cells_table(compare_sides([side("one", first), side("two", second)])).notes)
    assert f"Not known in two: {first.sources[0]} -> {first.targets[1]} (its file is damaged)." in notes
    assert "Not known in one" not in notes


def test_gains_that_may_be_something_else_are_counted_among_those_that_hold(first):
    found = compare_sides([side("one", first), side("two", first)])
    doubted = found.holding[0]
    cells = tuple(
        replace(cell, kinds=("clean gain", "unknown")) if cell == doubted else cell for cell in found.cells
    )
    lines = dict(replace(found, cells=cells).lines)
    assert "(1 of them may be something else than skill)" in lines["HOLDS"]
    assert "may be" not in dict(found.lines)["HOLDS"]
