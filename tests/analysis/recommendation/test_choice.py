"""The simple recommender unless there is reason, merits of places, and no interval for what is unlike all."""

from dataclasses import replace

import numpy as np
import pytest

from traitmap.analysis.profiles.pairs import Feature, PairFeatures
from traitmap.analysis.recommendation.knowledge import make_problem
from traitmap.analysis.recommendation.problem import Likeness, effects_of, level_of, merits
from traitmap.analysis.recommendation.protocol import evaluate
from traitmap.analysis.recommendation.recommend import measured_probes, recommend_sources
from traitmap.analysis.recommendation.selection import beyond, hold_out_target, select, simplest
from traitmap.errors import MatrixError
from traitmap.matrix.record import TransferMatrix


def matrix_of(gains: np.ndarray) -> TransferMatrix:
    rows, columns = gains.shape
    names = tuple(f"s{i}" for i in range(rows)), tuple(f"t{i}" for i in range(columns))
    base = np.full(columns, 50.0)
    return TransferMatrix(*names, base + gains, base)


def test_merits_are_savage_scores_and_know_the_order_alone() -> None:
    """Of three: 1/3, 1/3 + 1/2, 1/3 + 1/2 + 1, here less their mean in their standard deviations."""
    scores = np.array([1 / 3, 5 / 6, 11 / 6])
    expected = (scores - 1) / scores.std(ddof=1)
    effect = np.array([[5.0, -1e6], [7.0, np.nan], [1.0, 3.0], [np.nan, 4.0]])
    np.testing.assert_allclose(merits(effect)[:, 0], [expected[1], expected[2], expected[0], np.nan])
    np.testing.assert_allclose(merits(effect)[[0, 2, 3], 1], expected)
    tied = merits(np.array([[1.0], [2.0], [2.0 + 1e-12]]))[:, 0]
    assert tied[1] == tied[2] > tied[0]
    assert (merits(np.ones((3, 1))) == 0).all()


def rising(mean: float, count: int = 12) -> np.ndarray:
    """Scores of targets with one mean whose standard error is 0.1."""
    pattern = np.resize([1.0, -1.0], count)
    return mean + 0.1 * pattern / pattern.std(ddof=1) * np.sqrt(count)


@pytest.mark.parametrize(
    ("popular", "additive", "stack", "chosen"),
    [
        (0.5, 0.5, 0.65, "popularity"),  # 1.5 errors better
        (0.5, 0.5, 0.75, "stack"),  # 2.5 better than either
        (0.5, 0.72, 0.75, "additive"),  # the best is left for one that is .3 errors behind
        (-0.3, -0.2, 0.1, "popularity"),  # better than popularity, not than chance
    ],
)
def test_popularity_stands_unless_something_is_clearly_better(
    popular: float, additive: float, stack: float, chosen: str
) -> None:
    units = np.arange(12)
    scores = {"popularity": np.full(12, popular), "additive": np.full(12, additive), "stack": rising(stack)}
    if additive > popular:  # the error of the difference from the best is 0.1 as well
        scores["additive"] = np.full(12, additive)
    assert simplest(scores, units) == chosen
    twice = {name: np.repeat(of, 2) for name, of in scores.items()}
    assert simplest(twice, np.repeat(units, 2)) == chosen, "targets that are held out together are one"


def test_noise_is_called_noise_first_and_gets_popularitys_order() -> None:
    gains = np.random.default_rng(4).normal(size=(8, 9))
    judged = evaluate(matrix_of(gains))
    assert judged.headline.startswith("Nothing beats chance here, popularity does not either (NDCG ")
    order = [f"s{i}" for i in np.argsort(-gains.mean(axis=1))[:5]]
    assert judged.headline.endswith(f"popularity's order is {', '.join(order)} and so on.")
    assert judged.to_json()["headline"] == judged.headline
    told = recommend_sources(matrix_of(gains), "t3")
    assert told.headline.startswith("Nothing beats chance on the 8 other targets")
    others = np.delete(gains, 3, axis=1).mean(axis=1)
    assert [one.source for one in told.ranked] == [f"s{i}" for i in np.argsort(-others)]
    assert str(told).startswith("Sources for t3 (points): Nothing beats chance")


def test_popularity_alone_is_said_to_be_enough() -> None:
    gains = 0.5 * np.arange(8.0)[:, None] + np.random.default_rng(0).normal(size=(8, 10))
    assert evaluate(matrix_of(gains)).headline.startswith("Nothing beats popularity here")
    assert recommend_sources(matrix_of(gains), "t0").headline.startswith(
        "Nothing beats popularity on the 9 other targets, so this is popularity's order: s7, "
    )


def test_a_recommender_that_is_better_is_said_to_be() -> None:
    random = np.random.default_rng(0)
    vectors = {f"{axis}{i}": random.normal(size=3) for axis in "st" for i in range(10)}
    gains = np.array([[3 * vectors[f"s{i}"] @ vectors[f"t{j}"] for j in range(10)] for i in range(10)])
    judged = evaluate(matrix_of(gains + random.normal(size=gains.shape)), embeddings=vectors)
    assert judged.headline.startswith("Recommendations beat popularity here: NDCG ")
    assert judged.differences["nested"]["ndcg"].low > 0


def test_what_is_unlike_all_others_gets_no_interval() -> None:
    """Two targets are asked for: one among the others, one a long way off in the only feature of pairs."""
    random = np.random.default_rng(1)
    matrix = matrix_of(random.normal(size=(8, 1)) + 0.5 * random.normal(size=(8, 12)))
    place = np.append(np.linspace(0, 1, 11), 8.0)

    def features(last: float) -> PairFeatures:
        at = np.append(place[:-1], last)
        values = random.normal(size=(8, 1)) + np.broadcast_to(at, (8, 12))
        one = Feature(
            "target_output_length", "hidden", "output length", np.broadcast_to(at, (8, 12)), "target"
        )
        two = Feature("alike", "surface", "alike", values)
        return PairFeatures(matrix.sources, matrix.targets, (one, two))

    near = recommend_sources(matrix, "t11", features=features(0.55))
    far = recommend_sources(matrix, "t11", features=features(8.0))
    assert all(np.isfinite(advice.gain.low) for advice in near.ranked)
    assert far.headline.startswith("Cannot tell: t11 is unlike any target measured here.")
    for advice in far.ranked:
        assert advice.gain.known
        assert np.isnan(advice.gain.low)
        assert advice.gain.reason == "unlike any target measured here: no interval"
        assert np.isnan(advice.harm)
    assert far.verdict == "inconclusive"
    judged = evaluate(matrix, attributes={"kind": dict.fromkeys(matrix.targets, "a")})
    assert judged.conditions["no_interval"] == []


def test_the_furthest_of_many_that_are_alike_is_no_outlier() -> None:
    distance = np.linspace(1.0, 2.0, 20)[:, None]
    assert not beyond(distance, distance).any()
    assert not beyond(np.array([[2.4]]), distance).any()
    assert beyond(np.array([[2.6]]), distance).all()
    assert not beyond(np.array([[np.nan]]), distance).any()


def test_errors_that_grow_with_distance_widen_intervals_where_it_is_far() -> None:
    """Two thirds of the targets are near each other and say the same; the others are far and do not."""
    random = np.random.default_rng(2)
    level = np.arange(10.0)[:, None]
    near = level + 0.3 * random.normal(size=(10, 16))
    far = random.permuted(np.repeat(level, 8, axis=1), axis=0) + random.normal(size=(10, 8))
    matrix = matrix_of(np.hstack([near, far]))
    at = np.append(np.linspace(0, 1, 16), 3 + 2.0 * np.arange(8))
    values = np.broadcast_to(at, (10, 24))
    features = PairFeatures(
        matrix.sources, matrix.targets, (Feature("target_majority", "hidden", "majority", values, "target"),)
    )
    width = {}
    for name in ("t4", "t20"):
        problem = hold_out_target(matrix, name, features=features)
        model = problem.families["popularity"]
        width[name] = float((model.high - model.low)[:, problem.at].mean())
    assert width["t20"] > 1.3 * width["t4"]


def test_similarity_that_says_it_all_is_used() -> None:
    random = np.random.default_rng(3)
    matrix = matrix_of(random.normal(size=(9, 10)))
    effects = effects_of(matrix).effect
    told = {
        (s, t): float(effects[i, j])
        for i, s in enumerate(matrix.sources)
        for j, t in enumerate(matrix.targets)
    }
    judged = evaluate(matrix, similarity={"oracle": told})
    assert judged.models["nested"]["ndcg"].value == pytest.approx(100.0)
    turned = evaluate(replace(matrix), similarity={"oracle": {pair: -value for pair, value in told.items()}})
    assert turned.models["nested"]["ndcg"].value == pytest.approx(100.0)


def two_kinds(shift: float = 0.0, scale: float = 1.0) -> tuple[np.ndarray, Likeness]:
    """Gains of eight sources on twelve targets of two kinds, the second 20 points up and five times as wide;
    the last target of each kind is not measured."""
    random = np.random.default_rng(3)
    kind = np.repeat([0, 1], 6)
    gains = np.where(kind, 20.0, 0.0) + np.where(kind, 5.0, 1.0) * random.normal(size=(8, 12))
    gains[:, [5, 11]] = np.nan
    return shift + scale * gains, Likeness("kind", "kind", np.equal.outer(kind, kind).astype(float))


def test_a_new_target_is_expected_where_those_like_it_are() -> None:
    gains, alike = two_kinds()
    centre, spread = level_of(gains, [alike])
    usual, usual_spread = level_of(gains)
    assert usual[5] == usual[11]
    assert usual_spread[5] == usual_spread[11]
    assert centre[5] < 5 < 15 < centre[11]
    assert spread[5] < 2 < 3 < spread[11]
    measured = np.isfinite(gains).any(axis=0)
    assert np.abs(centre - usual)[measured].max() < np.abs(centre - usual)[~measured].min()
    few, alone = two_kinds()[0][:, [0, 1, 6, 7, 11]], Likeness("kind", "kind", alike.values[:5, :5])
    np.testing.assert_array_equal(level_of(few, [alone]), level_of(few))  # from four targets nothing is told


def test_what_is_expected_has_the_tables_own_unit_and_no_stranger_moves_it() -> None:
    gains, alike = two_kinds()
    centre, spread = level_of(gains, [alike])
    moved = level_of(two_kinds(shift=-3.0, scale=0.01)[0], [alike])
    np.testing.assert_allclose(moved[0], 0.01 * centre - 3)
    np.testing.assert_allclose(moved[1], 0.01 * spread)
    gains[:, 0] *= 1e4  # one target of the first kind is in another unit
    assert abs(level_of(gains, [alike])[0][5]) < 60


@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_collapsed_sources_are_no_reason_to_leave_popularity(seed: int) -> None:
    """They lie far below in popularity's means and one place below in merits: no better order."""
    random = np.random.default_rng(seed)
    level, noise = random.normal(size=(14, 1)), random.normal(size=(14, 14))
    collapsed = -8.0 * (np.arange(14)[:, None] < 3)
    chosen, families = select(make_problem(effects_of(matrix_of(level + noise + collapsed))))
    assert families["additive"].criterion > families["popularity"].criterion
    assert chosen == "popularity"


def test_where_all_sources_do_the_same_there_is_nothing_to_choose() -> None:
    words = evaluate(matrix_of(np.zeros((5, 6)))).headline
    assert words.startswith("All sources do the same on every target here")


def test_probes_without_a_base_say_what_is_lacking() -> None:
    gains = np.random.default_rng(0).normal(size=(5, 6))
    unbased = replace(matrix_of(gains), baseline=np.full(6, np.nan))
    with pytest.raises(MatrixError, match="no base is known, and so no gain, on 't1'"):
        measured_probes(unbased, "t1")
