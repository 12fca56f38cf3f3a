"""Combinations of sources: predicted from single rows, proposed, who cancels whom; on known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations as subsets
from typing import Any

import numpy as np
import pytest

from planted_combinations import measured_matrix, planted_combinations
from traitmap.analysis.combination import (
    CONCAT,
    Combination,
    CombinationTable,
    Fit,
    combinations_in,
    fit,
    read_combinations,
)
from traitmap.analysis.corrections import LEAST, kept_margins
from traitmap.analysis.interference import Distances, interference, row_contrast
from traitmap.analysis.mixing import Mix, named, propose
from traitmap.data.fingerprints import Update, fingerprints
from traitmap.errors import MatrixError
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import Estimate


def contrast_of(matrix: TransferMatrix) -> Any:
    def contrast(first: str, second: str, names: Sequence[str]) -> Estimate:
        return row_contrast(matrix, {first: 1.0, second: -1.0}, dict.fromkeys(names, 1 / len(names)))

    return contrast


def one_module(generator: np.random.Generator) -> Update:
    """The update of an adapter with one module of rank 2."""
    return {"layers.0.q_proj": (generator.normal(size=(2, 6)), generator.normal(size=(6, 2)))}


def some_of(table: CombinationTable, rows: Sequence[int]) -> CombinationTable:
    parts: dict[str, Any] = {
        name: getattr(table, name)[list(rows)] for name in ("measured", "measured_counted", "measured_noise")
    }
    return replace(table, combinations=tuple(table.combinations[at] for at in rows), **parts)


# What a combination is, and what is predicted of it.


def test_a_run_tells_which_rows_are_combinations_of_which() -> None:
    planted = planted_combinations(pairs=3, method="cat")
    found = combinations_in(planted.matrix)
    assert len(found) == 3
    for name, combination in found.items():
        assert name == "_".join(("cat", *combination.parents))
        assert (combination.weights, combination.method) == ((0.5, 0.5), "cat")
    table = read_combinations(planted.matrix)
    assert table.singles == tuple(f"s{at}" for at in range(8))
    assert table.measured.shape == (3, 6)


def test_without_a_measured_combination_the_mean_of_the_parents_is_said_and_no_interval() -> None:
    table = read_combinations(planted_combinations(pairs=0).matrix)
    fitted = fit(table)
    values, _ = fitted.predict([Combination("x", ("s1", "s4"), (0.25, 0.75), CONCAT)])
    assert values[0] == pytest.approx(0.25 * table.gains[1] + 0.75 * table.gains[4])
    mix = propose(fitted, ["t0", "t1"], keep=["t2"])
    assert mix.pick is None
    assert {one.safe for one in mix.proposals} == {"cannot tell"}
    assert not np.isfinite([one.gain.low for one in mix.proposals]).any()
    assert "no combination is measured" in mix.rests_on


def test_a_way_of_combining_that_was_not_measured_has_no_interval() -> None:
    fitted = fit(read_combinations(planted_combinations(pairs=10).matrix))
    assert np.isfinite(fitted.half(CONCAT))
    assert fitted.half("ties") == float("inf")
    of_ties = propose(fitted, ["t0"], method="ties", probes=0)
    assert {one.gain.reason for one in of_ties.proposals} == {"no interval is known"}


def test_fingerprints_count_where_they_tell_of_every_single_source() -> None:
    """A proposal may combine sources that no measured combination holds."""
    planted = planted_combinations(pairs=3)
    names = read_combinations(planted.matrix).singles
    generator = np.random.default_rng(0)
    whole = fingerprints({name: one_module(generator) for name in names})
    parents = [
        name for name in names if any(name in c.parents for c in combinations_in(planted.matrix).values())
    ]
    assert len(parents) < len(names)
    part = fingerprints({name: one_module(generator) for name in parents})
    assert read_combinations(planted.matrix, weights=whole).weights is whole
    assert read_combinations(planted.matrix, weights=part).weights is None
    never_trained = replace(whole, norm=np.where(np.arange(len(names)) == 2, 0.0, whole.norm))
    assert read_combinations(planted.matrix, weights=never_trained).weights is None
    for prints in (whole, part):
        fitted = fit(read_combinations(planted.matrix, weights=prints))
        assert ("weights" in {score.name for score in fitted.scores}) == (prints is whole)
        assert np.isfinite(
            fitted.predict([Combination("x", (names[-1], names[0]), (0.5, 0.5), CONCAT)])[0]
        ).all()


@pytest.mark.parametrize("lead", [0.0, 0.8])
def test_the_model_finds_how_far_combinations_lie_on_the_way_to_the_better_parent(lead: float) -> None:
    planted = planted_combinations(pairs=28, lead=lead, stray=0.5, items=2000)
    table = read_combinations(planted.matrix)
    fitted = fit(some_of(table, range(20)))
    rest = list(range(20, 28))
    values, _ = fitted.predict([table.combinations[at] for at in rest])
    parents = [table.gains[[table.place(name) for name in table.combinations[at].parents]] for at in rest]
    mean, best = (np.array([getattr(part, how)(axis=0) for part in parents]) for how in ("mean", "max"))
    errors = {
        name: float(np.abs(table.measured[rest] - guess).mean())
        for name, guess in {"model": values, "mean": mean, "best": best}.items()
    }
    assert errors["model"] <= 1.15 * min(errors["mean"], errors["best"])
    if lead:
        assert errors["model"] < 0.8 * errors["mean"]


def test_errors_of_models_have_intervals_over_combinations() -> None:
    table = read_combinations(planted_combinations(pairs=12).matrix)
    parents = [[table.place(name) for name in c.parents] for c in table.combinations]
    mean = np.array([table.gains[rows].mean(axis=0) for rows in parents])

    def error_of_mean(strays: Sequence[float]) -> Any:
        measured = mean + np.array(strays)[:, None]
        fitted = fit(replace(table, measured=measured, measured_counted=measured))
        return next(score.rmse for score in fitted.scores if score.name == "mean")

    same = error_of_mean([4.0] * 12)  # every combination strays alike: whichever are drawn, 4 points
    assert (same.value, same.low, same.high) == pytest.approx((4, 4, 4))
    wild = error_of_mean([4.0] * 11 + [20.0])
    assert wild.value == pytest.approx(np.sqrt((11 * 16 + 400) / 12))
    assert wild.low == pytest.approx(4)  # drawn without it in 1 of 3
    counts = np.random.default_rng(5).binomial(12, 1 / 12, 200_000)
    drawn = np.sqrt(((12 - counts) * 16 + counts * 400) / 12)
    assert wild.high == pytest.approx(np.quantile(drawn, 0.95))


def test_a_held_out_combination_is_predicted_without_those_that_share_two_of_its_parents() -> None:
    table = read_combinations(planted_combinations(pairs=12, lead=0.6).matrix)
    twin = replace(table.combinations[0], name="twin", weights=(0.6, 0.4))

    def beside_a_twin(value: float) -> Fit:
        told = np.full((1, len(table.targets)), value)
        return fit(
            replace(
                table,
                combinations=(*table.combinations, twin),
                measured=np.vstack([table.measured, told]),
                measured_counted=np.vstack([table.measured_counted, told]),
                measured_noise=np.vstack([table.measured_noise, table.measured_noise[:1]]),
            )
        )

    low, high = beside_a_twin(5.0), beside_a_twin(9.0)
    assert low.chosen == high.chosen == {CONCAT: "lead"}
    # the same penalty: what the twin was measured at moves every prediction but that of its own parents
    assert [one.penalty for one in low.scores] == [one.penalty for one in high.scores]
    assert np.array_equal(low.errors[0], high.errors[0])
    assert np.abs(low.errors[1:12] - high.errors[1:12]).max(axis=1).min() > 0


def test_permuting_sources_and_scaling_gains_change_nothing_else() -> None:
    table = read_combinations(planted_combinations(pairs=14, lead=0.6).matrix)
    asked = [named(pair, (0.5, 0.5), CONCAT) for pair in subsets(table.singles, 2)]
    values, deviation = fit(table).predict(asked)
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    moved = replace(
        table,
        singles=tuple(table.singles[at] for at in order),
        gains=table.gains[order],
        counted=table.counted[order],
        noise=table.noise[order],
    )
    assert fit(moved).predict(asked)[0] == pytest.approx(values, abs=1e-6)
    scaled = replace(
        table,
        gains=3 * table.gains,
        counted=3 * table.counted,
        measured=3 * table.measured,
        measured_counted=3 * table.measured_counted,
        scale=3 * table.scale,
    )
    assert fit(scaled).predict(asked)[0] == pytest.approx(3 * values)
    assert fit(scaled).predict(asked)[1] == pytest.approx(3 * deviation)


def test_intervals_hold_nine_in_ten_and_are_wider_where_fewer_were_measured() -> None:
    inside: dict[int, list[float]] = {6: [], 20: []}
    widths: dict[int, list[float]] = {6: [], 20: []}
    for seed in range(25):
        table = read_combinations(planted_combinations(pairs=28, lead=0.3, seed=seed).matrix)
        rest = list(range(20, 28))
        for count in inside:
            fitted = fit(some_of(table, range(count)))
            values, deviation = fitted.predict([table.combinations[at] for at in rest])
            half = fitted.half(CONCAT) * deviation
            inside[count].append(float((np.abs(table.measured[rest] - values) <= half).mean()))
            widths[count].append(float(half.mean()))
    assert 0.86 < np.mean(inside[20]) < 0.95
    assert np.mean(inside[6]) > 0.88
    assert np.mean(widths[6]) > 1.1 * np.mean(widths[20])


# Proposals.


def proposals_of(seed: int, **world: Any) -> tuple[Mix, CombinationTable, Any]:
    planted = planted_combinations(seed=seed, **world)
    table = read_combinations(planted.matrix)
    mix = propose(fit(table), ["t0", "t1"], keep=["t2", "t3"], contrast=contrast_of(planted.matrix), probes=0)
    return mix, table, planted


@pytest.mark.parametrize("pairs", [4, 16])
def test_where_nothing_has_an_effect_nothing_beats_the_best_source(pairs: int) -> None:
    claims = sum(proposals_of(seed, size=0, stray=0, pairs=pairs)[0].pick is not None for seed in range(40))
    assert claims <= 2  # 5 % of tables


def test_a_combination_that_is_far_better_is_named_and_the_lead_is_against_every_source() -> None:
    truth = {f"s{at}": np.array([-20.0, -20.0, 0.0, 0.0]) for at in range(6)}
    truth["s0"], truth["s1"] = np.array([30.0, -20.0, 0.0, 0.0]), np.array([-20.0, 30.0, 0.0, 0.0])
    names = [pair for pair in subsets(truth, 2) if set(pair) != {"s0", "s1"}][:10]
    combos = [Combination("_".join(("mix", *pair)), pair, (0.5, 0.5), CONCAT) for pair in names]
    for combination in combos:
        truth[combination.name] = np.max([truth[name] for name in combination.parents], axis=0)
    matrix = measured_matrix(truth, combos, items=800, seed=0)
    mix = propose(fit(read_combinations(matrix)), ["t0", "t1"], keep=["t2"], margin=5)
    assert mix.pick is not None
    assert set(mix.pick.combination.parents) >= {"s0", "s1"}
    assert mix.pick.status == "predicted"
    assert mix.pick.lead.low > 0
    assert mix.single is not None
    assert mix.single.source in ("s0", "s1")


def test_what_is_called_safe_does_no_harm() -> None:
    safe = kept = 0
    for seed in range(40):
        mix, table, planted = proposals_of(seed, pairs=16, lead=0.5)
        known = {one.name for one in table.combinations}
        for one in mix.proposals[:1]:
            if one.safe == "yes":
                name = one.combination.name
                truth = planted.truth[name] if name in known else planted.true_gain(one.combination)
                safe += 1
                kept += bool((truth[2:4] > -mix.margin).all())
    assert safe > 10
    assert kept >= 0.9 * safe


def test_a_prediction_is_called_safe_for_other_items_too() -> None:
    """Its bound has the noise of the parents' items, by weight, beside what predictions stray by."""
    fitted = fit(read_combinations(planted_combinations(pairs=16).matrix))
    table = fitted.table
    quiet = replace(fitted, table=replace(table, noise=np.zeros_like(table.noise)))
    combination = Combination("x", ("s1", "s4"), (0.25, 0.75), CONCAT)
    noise = 0.25 * table.noise[1, 2] + 0.75 * table.noise[4, 2]
    assert table.noise[1, 2] != pytest.approx(table.noise[4, 2])
    loose, exact = (
        propose(of, ["t0"], keep=["t2"], only=[combination]).proposals[0].keep["t2"] for of in (fitted, quiet)
    )
    assert loose.value == exact.value
    apart = (loose.value - loose.low) ** 2 - (exact.value - exact.low) ** 2
    assert apart == pytest.approx(1.644854**2 * noise, rel=1e-4)


def test_a_margin_is_of_points_and_elsewhere_of_as_many_usual_gains() -> None:
    """Two points are little; two bits per byte would pass for no harm whatever an adapter does."""
    fitted = fit(read_combinations(planted_combinations(pairs=12).matrix))
    units = ("points",) * 5 + ("bits per byte",)
    scale = np.array([8.0] * 5 + [0.4])
    table = replace(fitted.table, units=units, scale=scale)
    mix = propose(replace(fitted, table=table), ["t0"], keep=["t2", "t5"], margin=2)
    assert mix.margins == {"t2": 2.0, "t5": pytest.approx(2 * 0.4 / 8)}
    assert "2 on t2 and 0.1 on t5" in dict(mix.lines)["no harm"]
    for one in mix.proposals:
        assert (one.safe == "yes") == (one.keep["t2"].low > -2 and one.keep["t5"].low > -0.1)


def test_margins_of_a_table_without_points_are_as_they_are_given() -> None:
    scale = np.array([0.5, 3.0])
    assert kept_margins(2.0, ("bits per byte", "tokens"), scale).tolist() == [2.0, 2.0]
    assert kept_margins(2.0, ("points", "tokens"), np.array([8.0, 20.0])).tolist() == [2.0, 5.0]


def test_gains_that_are_no_skill_count_as_none_and_losses_count() -> None:
    matrix = planted_combinations(pairs=10).matrix
    table = read_combinations(matrix)
    s = int(table.gains[:, 0].argmax())
    unclean = frozenset({(table.singles[s], "t0"), (table.combinations[0].name, "t0")})
    filtered = read_combinations(matrix, unclean)
    assert table.gains[s, 0] > 0
    assert filtered.counted[s, 0] == 0
    assert filtered.gains[s, 0] == table.gains[s, 0]
    before, after = (propose(fit(of), ["t0"], probes=0) for of in (table, filtered))
    assert before.single is not None
    assert after.single is not None
    assert before.single.source == table.singles[s] != after.single.source
    asked = [
        named((table.singles[s], other), (0.5, 0.5), CONCAT)
        for other in table.singles
        if other != table.singles[s]
    ]
    for combination in asked:  # as if none was measured: what is predicted counts the same way
        told = propose(fit(filtered), ["t0"], only=[combination], probes=0).proposals[0]
        assert told.gain.value < told.by_target["t0"].value - 1


def test_safe_and_better_are_what_the_bounds_say_and_not_what_is_expected() -> None:
    doubted = {"safe": 0, "better": 0}
    for seed in range(8):
        planted = planted_combinations(seed=seed, pairs=8, lead=0.8)
        fitted = fit(read_combinations(planted.matrix))
        for one in propose(fitted, ["t0", "t1"], keep=["t2", "t3"], top=80, probes=0).proposals:
            lows = [bound.low for bound in one.keep.values()]
            assert (one.safe == "yes") == all(low > -2 for low in lows)
            assert (one.better == "yes") == (one.lead.low > 0)
            expected = all(bound.value > -2 for bound in one.keep.values())
            doubted["safe"] += expected and one.safe == "cannot tell"
            doubted["better"] += one.lead.value > 0 and one.better == "cannot tell"
    assert min(doubted.values()) > 3


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"targets": ["t9"]}, "no target 't9'; legal: t0"),
        ({"targets": ["t0"], "keep": ["t0"]}, "t0: a target to gain on and to keep"),
        ({"targets": []}, "no target to combine sources for"),
        ({"targets": ["t0"], "margin": -1}, "margin -1"),
        ({"targets": ["t0"], "margin": float("nan")}, "margin nan"),
        ({"targets": ["t0"], "most": 1}, "give 2 or more"),
    ],
)
def test_what_cannot_be_asked_is_told(asked: dict[str, Any], words: str) -> None:
    fitted = fit(read_combinations(planted_combinations(pairs=4).matrix))
    with pytest.raises(MatrixError, match=words):
        propose(fitted, **asked)


def test_probes_are_not_measured_already_and_differ() -> None:
    table = read_combinations(planted_combinations(pairs=LEAST).matrix)
    mix = propose(fit(table), ["t0", "t1"], probes=6)
    known = {frozenset(one.parents) for one in table.combinations}
    asked = [frozenset(one.combination.parents) for one in mix.probes]
    assert len(asked) == len(set(asked)) == 6
    assert not known & set(asked)


# Who cancels whom.


def test_a_pair_that_cancels_is_named_with_its_target_and_others_are_not() -> None:
    planted = planted_combinations(pairs=10, stray=0.0, items=1500)
    combos = list(read_combinations(planted.matrix).combinations)
    truth = dict(planted.truth)
    worse = combos[3]
    lower = np.minimum.reduce([truth[name] for name in worse.parents])
    truth[worse.name] = np.where(np.arange(6) == 2, np.maximum(lower - 15, -45), truth[worse.name])
    matrix = measured_matrix(truth, combos, items=1500, seed=3)
    record = interference(matrix, fit(read_combinations(matrix)))
    cancels = [(one.combination.name, one.on) for one in record.interactions if one.kind == "cancels"]
    assert cancels[0] == (worse.name, "t2")
    assert len(cancels) <= 3
    assert record.interactions[0].beyond_best.value <= record.interactions[0].beyond_mean.value < -10


def test_where_combinations_are_their_parents_mean_hardly_any_is_said_to_cancel() -> None:
    found = 0
    for seed in range(15):
        planted = planted_combinations(pairs=12, stray=0.0, seed=seed)
        found += bool(interference(planted.matrix, fit(read_combinations(planted.matrix))).interactions)
    assert found <= 3  # 5 % of tables


def test_a_conflict_shows_in_what_was_planted_and_not_in_what_was_not() -> None:
    planted = planted_combinations(pairs=28, stray=0.0, items=600)
    combos = list(read_combinations(planted.matrix).combinations)
    rng = np.random.default_rng(5)
    names = tuple(f"s{at}" for at in range(8))
    apart, other = (rng.uniform(0, 1, (8, 8)) for _ in range(2))
    apart, other = (part + part.T for part in (apart, other))
    truth = dict(planted.truth)
    for combination in combos:
        first, second = (names.index(name) for name in combination.parents)
        truth[combination.name] = np.clip(truth[combination.name] - 12 * apart[first, second], -45, 45)
    matrix = measured_matrix(truth, combos, items=600, seed=3)
    distances = Distances(names, {"direction of updates": apart, "signs of updates": other})
    clues = {
        one.distance: one
        for one in interference(matrix, fit(read_combinations(matrix)), distances=distances).clues
    }
    assert clues["direction of updates"].answer == "yes"
    assert clues["direction of updates"].r > 0.4
    assert clues["signs of updates"].answer == "cannot tell"
