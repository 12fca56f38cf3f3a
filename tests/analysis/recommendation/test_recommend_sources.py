"""An obvious best source is found, noise is called noise, and what must not be recommended is not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from traitmap.analysis.profiles.pairs import Feature, PairFeatures
from traitmap.analysis.recommendation.posterior import (
    Posterior,
    chance_best,
    chance_better,
    condition_on,
    inflate_variance,
    next_probes,
    predictive_posterior,
    smallest_difference,
)
from traitmap.analysis.recommendation.problem import factor_of, units_of
from traitmap.analysis.recommendation.recommend import Probe, measured_probes, recommend_sources, with_top
from traitmap.analysis.recommendation.records import Recommendation
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, Cell, TransferMatrix

SOURCES = tuple(f"source{i}" for i in range(8))
TARGETS = tuple(f"target{i}" for i in range(7))


def table(gains: Array, **changes: Any) -> TransferMatrix:
    base = np.linspace(0.4, 0.6, len(TARGETS))
    whole: dict[str, Any] = {
        "sources": SOURCES, "targets": TARGETS, "values": base + gains, "baseline": base
    }  # fmt: skip
    return TransferMatrix(**(whole | changes))


def noise(seed: int) -> Array:
    return 0.02 * np.random.default_rng([3, seed]).standard_normal((len(SOURCES), len(TARGETS)))


def with_best(best: int = 5) -> TransferMatrix:
    gains = 0.1 * noise(1)
    gains[best] += 0.10
    return table(gains)


@pytest.fixture(scope="module")
def obvious() -> Recommendation:
    return recommend_sources(with_best(), "target2")


def test_an_obvious_best_source_stands_out(obvious: Recommendation) -> None:
    assert obvious.ranked[0].source == "source5"
    assert obvious.verdict == "clear"
    assert obvious.popular[0] == "source5"
    assert obvious.ranked[0].best > 0.95
    assert obvious.ranked[0].harm < 0.05
    assert obvious.ranked[0].gain.low > 0
    assert not obvious.new
    assert obvious.unit == "points"
    assert obvious.ranked[0].gain.value == pytest.approx(10, abs=4)
    assert obvious.measured["first"] == pytest.approx(obvious.measured["best"])
    assert obvious.ranked[0].reasons
    assert obvious.ranked[0].reasons[0].strength > 0


def test_the_column_of_the_target_is_not_looked_at(obvious: Recommendation) -> None:
    other = with_best()
    values = other.values.copy()
    values[:, 2] = np.random.default_rng(0).random(len(SOURCES))
    again = recommend_sources(table(0 * values, values=values), "target2")
    assert [one.source for one in again.ranked] == [one.source for one in obvious.ranked]
    assert [one.gain for one in again.ranked] == [one.gain for one in obvious.ranked]
    assert again.ranked[0].measured != obvious.ranked[0].measured


def test_the_row_of_the_target_is_not_looked_at_either() -> None:
    """Where the target is new it is no source: its own row must not tell how alike targets are."""
    names = ("target2", *SOURCES[1:])
    one, two = with_best().gains, with_best().gains
    two[0] = np.random.default_rng(1).standard_normal(len(TARGETS)) / 5
    found = [recommend_sources(table(gains, sources=names), "target2") for gains in (one, two)]
    assert [a.gain for a in found[0].ranked] == [a.gain for a in found[1].ranked]


def test_pure_noise_is_called_noise() -> None:
    found = [recommend_sources(table(noise(seed)), "target0") for seed in range(3)]
    assert [one.verdict for one in found] == ["inconclusive"] * 3
    assert all("Cannot tell" in one.words for one in found)
    assert all(one.smallest > 0.5 for one in found)
    assert all(one.ranked[0].best < 0.6 for one in found)


def test_contaminated_sources_and_the_targets_own_are_set_aside() -> None:
    matrix = with_best()
    own = table(matrix.gains, sources=("target2", *SOURCES[1:]))
    found = recommend_sources(own, "target2", contaminated={"source5": "holds 9 of 10 items"})
    assert [one.source for one in found.set_aside] == ["target2", "source5"]
    assert [one.kind for one in found.set_aside] == ["own", "contaminated"]
    assert not {"target2", "source5"} & {one.source for one in found.ranked}
    assert not {"target2", "source5"} & {*found.popular, *(one.source for one in found.next_probes)}
    with pytest.raises(MatrixError, match="no source is left"):
        recommend_sources(matrix, "target2", contaminated=dict.fromkeys(SOURCES, "all"))


def test_few_touched_items_are_told_and_do_not_exclude() -> None:
    found = recommend_sources(with_best(), "target2", touched={"source5": "holds 1 of 900 items"})
    assert found.ranked[0].source == "source5"
    assert found.ranked[0].touched == "holds 1 of 900 items"


def test_json_is_complete_and_plain(obvious: Recommendation) -> None:
    told = json.loads(json.dumps(obvious.to_json(), allow_nan=False))
    assert told.keys() == set(Recommendation.__dataclass_fields__)
    assert [one["source"] for one in told["ranked"]] == [one.source for one in obvious.ranked]
    first = told["ranked"][0]
    assert {"value", "low", "high"} <= first["gain"].keys()
    assert {"reasons", "harm", "best", "side_effects", "measured", "popularity"} <= first.keys()
    assert with_top(obvious, 2).ranked == obvious.ranked[:2]
    assert "source5" in str(obvious)


def test_features_tell_new_targets_apart() -> None:
    """Even sources help even targets; only the features of a new target say which it is."""
    names = (*TARGETS, "new even", "new odd")
    even = np.array([*(i % 2 == 0 for i in range(len(TARGETS))), True, False], dtype=float)
    alike = (np.arange(len(SOURCES))[:, None] % 2 == 0) == (even[None, :] > 0)
    gains = np.where(alike, 0.06, -0.03)[:, : len(TARGETS)] + 0.1 * noise(2)
    spread = np.broadcast_to(even, alike.shape)
    features = PairFeatures(
        SOURCES,
        names,
        (
            Feature("answer_form_distance", "hidden", "answers of the target's form", 1 - alike),
            Feature("target_classes", "hidden", "number of classes of the target", spread.copy(), "target"),
        ),
    )
    for target, parity in (("new even", 0), ("new odd", 1)):
        own = [t for t, name in enumerate(names) if name in (*TARGETS, target)]
        kept = PairFeatures(
            SOURCES,
            tuple(names[t] for t in own),
            tuple(Feature(f.name, f.group, f.words, f.values[:, own], f.scope) for f in features.features),
        )
        found = recommend_sources(table(gains), target, features=kept)
        assert found.new
        assert not found.measured
        assert {one.source for one in found.ranked[:4]} == {SOURCES[i] for i in range(parity, 8, 2)}
        assert not found.ranked[0].measured.known


def test_care_names_targets_and_the_worst_loss_stands_in(obvious: Recommendation) -> None:
    matrix = with_best()
    found = recommend_sources(matrix, "target2", care=("target0", "target6"))
    assert [one.name for one in found.ranked[0].side_effects] == ["target0", "target6"]
    assert found.ranked[0].side_effects[0].effect.value == pytest.approx(100 * matrix.gains[5, 0])
    assert obvious.ranked[0].side_effects == ()
    for one in obvious.ranked[1:]:
        s = SOURCES.index(one.source)
        others = [t for t in range(len(TARGETS)) if t != 2]
        (worst,) = one.side_effects
        assert worst.effect.value == pytest.approx(100 * matrix.gains[s, others].min())


def test_a_probe_moves_its_source_and_narrows_it(obvious: Recommendation) -> None:
    found = recommend_sources(with_best(), "target2", probes=[Probe("source1", 0.30, stderr=0.005)])
    assert found.ranked[0].source == "source1"
    assert found.ranked[0].probed
    assert found.ranked[0].gain.value == pytest.approx(30, abs=3)
    # so far from what was predicted, only the probe itself is left to believe
    assert found.ranked[0].gain.high - found.ranked[0].gain.low == pytest.approx(2 * 1.645 * 0.5, abs=0.05)
    assert "source1" not in {one.source for one in found.next_probes}


def test_a_probe_as_predicted_narrows_its_source_and_leaves_the_order(obvious: Recommendation) -> None:
    found = recommend_sources(with_best(), "target2", probes=[Probe("source1", 0.0, stderr=0.0005)])
    before, after = (
        next(one for one in of.ranked if one.source == "source1").gain for of in (obvious, found)
    )
    assert after.high - after.low < before.high - before.low
    assert found.ranked[0].source == "source5"


def test_measured_cells_serve_as_probes() -> None:
    matrix, nan = with_best(), float("nan")
    gain = float(matrix.gains[4, 2])
    ends = (gain - 0.0392, gain + 0.0392)
    cell = Cell("source4", "target2", None, "acc", 0.5, 100, nan, gain, *ends, nan, nan, nan, "measured")
    (probe,) = measured_probes(table(matrix.gains, cells=(cell,)), "target2")
    assert probe == Probe("source4", gain, pytest.approx(0.02), 100)
    with pytest.raises(MatrixError, match="no source has a gain on 'target0'"):
        measured_probes(matrix, "target0")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"care": ("target0", "absent")}, "'absent' is neither a target nor a trait"),
        ({"probes": [Probe("absent", 0.1)]}, "fits no source"),
        ({"probes": [Probe("source1", 5.0)]}, "0.05 for five points"),
    ],
)
def test_unknown_names_and_units_are_told(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(MatrixError, match=told):
        recommend_sources(with_best(), "target2", **settings)


def test_too_few_other_targets_are_told() -> None:
    values = table(noise(0)).values.copy()
    values[:, 3:] = np.nan
    with pytest.raises(MatrixError, match="target"):
        recommend_sources(table(0 * values, values=values), "target1")


def test_targets_without_base_are_left_out_and_told() -> None:
    matrix = with_best()
    base = matrix.baseline.copy()
    base[6] = np.nan
    found = recommend_sources(table(0 * base, values=matrix.values, baseline=base), "target2")
    assert any("target6" in note for note in found.notes)
    assert found.ranked[0].source == "source5"
    assert np.isfinite(found.ranked[0].harm)


def belief_of(means: list[float], correlation: float = 0.0) -> Posterior:
    count = len(means)
    return Posterior(np.array(means), (1 - correlation) * np.eye(count) + correlation)


def test_updating_a_belief_follows_the_normal_distribution() -> None:
    """One probe: closed form of the bivariate normal; a probe without noise is believed whole."""
    belief = belief_of([1.0, 0.0], 0.6)
    after = condition_on(belief, [0], np.array([3.0]), np.array([0.5]))
    assert after.mean == pytest.approx([1 + 2 / 1.5, 0.6 * 2 / 1.5])
    assert np.diag(after.covariance) == pytest.approx([1 - 1 / 1.5, 1 - 0.36 / 1.5])
    sure = condition_on(belief, [0], np.array([3.0]), np.array([0.0]))
    assert sure.mean[0] == pytest.approx(3.0)
    assert sure.deviation[0] == pytest.approx(0.0, abs=1e-3)
    assert condition_on(belief, [], np.array([]), np.array([])) is belief


def test_a_surprising_probe_widens_the_belief_until_it_is_usual() -> None:
    belief = belief_of([0.0, 0.0], 0.5)
    usual = inflate_variance(belief, [0], np.array([1.0]), np.array([0.1]))
    assert usual is belief
    far = inflate_variance(belief, [0], np.array([10.0]), np.array([0.1]))
    assert far.covariance[0, 0] + 0.1 == pytest.approx(100.0, rel=1e-6)
    assert far.covariance[0, 1] / far.covariance[0, 0] == pytest.approx(0.5)


def test_two_probes_at_once_are_two_probes_in_turn() -> None:
    belief = belief_of([0.0, 0.5, 1.0], 0.3)
    once = condition_on(belief, [0, 2], np.array([1.0, -1.0]), np.array([0.2, 0.3]))
    first = condition_on(belief, [0], np.array([1.0]), np.array([0.2]))
    turn = condition_on(first, [2], np.array([-1.0]), np.array([0.3]))
    assert once.mean == pytest.approx(turn.mean)
    assert once.covariance == pytest.approx(turn.covariance)


def test_errors_that_all_sources_share_do_not_blur_their_order() -> None:
    rng = np.random.default_rng(5)
    level, cell = rng.standard_normal(40), rng.standard_normal((6, 40))
    shared = predictive_posterior(np.zeros(6), 1.0, level + 0.1 * cell)
    single = predictive_posterior(np.zeros(6), 1.0, 0.1 * level + cell)
    assert smallest_difference(shared) < 0.3 * smallest_difference(single)
    assert np.diag(shared.covariance).mean() == pytest.approx(1.0, abs=0.01)
    assert np.diag(single.covariance).mean() == pytest.approx(1.0, abs=0.01)


def test_chances_agree_with_each_other() -> None:
    belief = belief_of([0.4, 0.0])
    chances = chance_best(belief, seed=0)
    assert chances.sum() == pytest.approx(1.0)
    assert chances[0] == pytest.approx(1 - chance_better(belief, 0)[1], abs=0.03)
    assert chance_better(belief, 0)[0] == 0.5


def test_the_next_probe_is_the_one_that_can_change_the_top() -> None:
    belief = Posterior(np.array([1.0, 0.9, -5.0]), np.diag([0.0001, 1.0, 0.01]))
    found = next_probes(belief, [0, 1, 2], 0.01)
    assert found[0][0] == 1
    assert found[0][1] > 0.4
    assert found[-1][2] == pytest.approx(0.0, abs=1e-9)
    # worth of a probe without noise: the mean of the larger of a normal and a constant
    sure = next_probes(Posterior(np.array([0.0, 0.0]), np.diag([0.0, 1.0])), [1], 0.0)[0]
    assert sure[2] == pytest.approx(1 / np.sqrt(2 * np.pi), abs=0.01)


def cell(target: str, metric: str) -> Cell:
    nan = float("nan")
    return Cell("source0", target, None, metric, 0.5, 9, *[nan] * 7, "measured")


def test_a_target_in_another_unit_counts_as_much_as_before() -> None:
    """Gains in nats, a thousand times as large, change neither the order nor the points."""
    gains = with_best().gains
    gains[:, 4] *= 3
    cells = tuple(cell(name, "acc" if t != 4 else "likelihood") for t, name in enumerate(TARGETS))
    small = table(gains, cells=cells)
    gains[:, 4] *= 1000
    large = table(gains, cells=cells)
    one, two = (recommend_sources(matrix, "target2") for matrix in (small, large))
    before, after = ({a.source: a.gain.value for a in found.ranked} for found in (one, two))
    assert before == pytest.approx(after, abs=1e-6)
    assert one.ranked[0].source == two.ranked[0].source == "source5"
    assert any("target4" in note for note in one.notes)
    assert one.unit == "points"
    assert recommend_sources(small, "target4").unit == "likelihood"


def test_units_of_tables_with_and_without_metrics() -> None:
    values = np.full((8, 7), 0.5)
    assert set(units_of(table(0 * values, values=values))) == {"share"}
    values[0, 0] = 40
    assert set(units_of(table(0 * values, values=values))) == {"as given"}
    named = table(0 * values, values=values, cells=(cell("target0", "elo"), cell("target1", "acc")))
    assert units_of(named)[:3] == ("elo", "share", "as given")
    assert factor_of(named, "target1") == 100
    assert factor_of(named, "target0") == 1
