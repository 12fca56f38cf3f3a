"""Relation effects: silent on zero counts, silent on difficulty, and there where one was planted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from traitmap.analysis.profiles.parser import Relations
from traitmap.analysis.profiles.relations import (
    RelationEffects,
    difference_test,
    relation_effects,
    relation_in_words,
    welch_interval,
    win_odds_ratio,
    win_test,
)
from traitmap.matrix.record import TransferMatrix


def relations_of(present: np.ndarray, words: np.ndarray | None = None) -> Relations:
    n, count = present.shape
    return Relations(
        parser="rule",
        scheme="UD",
        derived={},
        labels=tuple(f"r{number:02d}" for number in range(count)),
        counts=present.astype(np.int32),
        texts=np.arange(n),
        available=n,
        words=np.full(n, 20) if words is None else words,
    )


def matrix_of(base: np.ndarray, *adapters: np.ndarray) -> TransferMatrix:
    """One target; adapters (seeds, n)."""
    rows = [np.broadcast_to(base, adapters[0].shape), *adapters]
    return TransferMatrix(
        sources=tuple(f"s{number}" for number in range(len(adapters))),
        targets=("t",),
        values=np.array([[adapter.mean()] for adapter in adapters]),
        baseline=np.array([base.mean()]),
        item_scores={"t": np.stack(rows).astype(float)},
    )


def effects_of(
    present: np.ndarray, base: np.ndarray, adapter: np.ndarray, words: np.ndarray | None = None, **more: Any
) -> RelationEffects:
    return relation_effects(
        matrix_of(base, np.atleast_2d(adapter)), {"t": relations_of(present, words)}, **more
    )


def published_artefact() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """1,319 items, base 9.8 % right, adapter 16 %; on five rare relations the base has no success by chance,
    the adapter 6, 3, 2, 1 and 1, as few as its rate lets one expect."""
    generator = np.random.default_rng(3)
    n, support, successes = 1319, (40, 22, 16, 10, 7), (6, 3, 2, 1, 1)
    base = np.zeros(n)
    base[: round(0.0978 * n)] = 1
    adapter = np.zeros(n)
    adapter[: round(0.06 * n)] = 1  # of the base's successes
    adapter[-round(0.10 * n) :] = 1  # and new ones
    present = np.zeros((n, 45), bool)
    never, wins = np.flatnonzero((base == 0) & (adapter == 0)), np.flatnonzero((base == 0) & (adapter == 1))
    for number, (items, right) in enumerate(zip(support, successes, strict=True)):
        present[generator.choice(wins, right, replace=False), number] = True
        present[generator.choice(never, items - right, replace=False), number] = True
    present[:, 5:] = generator.random((n, 40)) < generator.uniform(0.02, 0.9, 40)
    return present, base, adapter


def test_zero_counts_of_the_base_make_tall_ratios_and_no_finding() -> None:
    present, base, adapter = published_artefact()
    right = (present.T @ adapter), (present.T @ base)
    naive = right[0] / np.maximum(right[1], 0.049)  # a constant floor in place of the zeros
    assert naive[:5] == pytest.approx(np.array([6, 3, 2, 1, 1]) / 0.049)
    assert naive[:5].min() > 20 > 3 > naive[5:].max()

    found = effects_of(present, base, adapter)
    assert found.findings == ()
    assert min(effect.q for effect in found.tested) > 0.05
    rare = found.effects[:5]
    assert [effect.base_right for effect in rare] == [0] * 5
    assert [effect.adapter_right for effect in rare] == [6, 3, 2, 1, 1]
    assert rare[0].tested
    assert rare[0].odds_ratio.low < 1 < rare[0].odds_ratio.high
    assert rare[1].p > 0.5
    for effect in rare[2:]:  # no outcome of one or two changed items could have been significant
        assert not effect.tested
        assert effect.reason
    assert [effect.detectable for effect in rare[2:4]] == [np.inf] * 2
    # smoothed rates are no zeros and no ratios of zeros
    assert 0 < rare[0].base_with.value < 0.05
    assert rare[0].base_with.high > 0.05


def test_a_planted_effect_is_found_and_no_other_relation_is() -> None:
    generator = np.random.default_rng(0)
    n = 1319
    present = generator.random((n, 30)) < 0.2
    base = generator.random(n) < 0.1
    adapter = generator.random((2, n)) < np.where(present[:, 7], 0.45, 0.12)
    found = effects_of(present, base, adapter)
    assert [effect.relation for effect in found.findings] == ["r07"]
    (effect,) = found.findings
    assert effect.q < 0.01
    assert effect.odds_ratio.low > 1
    assert effect.difference.low > 0.2
    assert effect.odds_ratio.value > effect.detectable
    assert "rises more" in relation_in_words(effect)


def test_a_relation_of_hard_items_is_not_one_that_the_adapter_handles() -> None:
    """Every item gains the same log odds; items with the relation are harder, so their points move less."""
    generator = np.random.default_rng(1)
    points = odds = 0
    for trial in range(200):
        present = generator.random(600) < 0.3
        easy = np.where(present, -4.0, 0.0) + generator.normal(0, 1, 600)
        base, adapter = (generator.random(600) < 1 / (1 + np.exp(-easy - shift)) for shift in (0.0, 1.2))
        wins, losses = (adapter & ~base).astype(float), (base & ~adapter).astype(float)
        none = np.zeros(600, int)
        points += difference_test(wins - losses, present[:, None], none, draws=199, seed=trial)[0] < 0.05
        odds += win_test(wins, losses, present, none) < 0.05
    assert points > 100  # the naive difference takes difficulty for sensitivity
    assert odds <= 20  # 5 % of 200 is 10; doubled tails of a discrete test stay below


def test_items_that_are_easy_in_every_seed_do_not_look_like_gains() -> None:
    """Most decided items are won, in more seeds on items with the relation: no more than chance."""
    generator = np.random.default_rng(11)
    rejected = 0
    for trial in range(150):
        present = generator.random(300) < 0.3
        decided = generator.binomial(2, np.where(present, 0.9, 0.3)).astype(float)
        wins = generator.binomial(decided.astype(int), 0.85).astype(float)
        rejected += win_test(wins, decided - wins, present, np.zeros(300, int), seed=trial) < 0.05
    assert rejected <= 16  # 5 % of 150 is 7.5; a centre at one half would take most of them for gains


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_level_is_held_at_small_support(seeds: int) -> None:
    generator = np.random.default_rng(2)
    rejected = tested = 0
    for trial in range(400):
        present = np.zeros(200, bool)
        present[: generator.integers(10, 16)] = True
        ability = generator.normal(-1, 1.5, 200)
        base = generator.random(200) < 1 / (1 + np.exp(-ability))
        adapter = generator.random((seeds, 200)) < 1 / (1 + np.exp(-ability - 0.8))
        wins, losses = (adapter & ~base).sum(0).astype(float), (base & ~adapter).sum(0).astype(float)
        p = win_test(wins, losses, present, np.zeros(200, int), seed=trial)
        tested += np.isfinite(p)
        rejected += p < 0.05
    assert tested > 100
    assert rejected / tested < 0.08


def test_one_seed_gives_fishers_exact_test_and_the_textbook_interval() -> None:
    generator = np.random.default_rng(4)
    for _ in range(20):
        present = generator.random(80) < 0.3
        wins = (generator.random(80) < 0.4).astype(float)
        losses = (generator.random(80) < 0.3) * (1 - wins)
        table = np.array([[(wins * at).sum(), (losses * at).sum()] for at in (present, ~present)])
        tails = [stats.fisher_exact(table, alternative=tail).pvalue for tail in ("less", "greater")]
        found = win_test(wins, losses, present, np.zeros(80, int))
        assert found == pytest.approx(min(1, 2 * min(tails)))
        value, low, high, _ = win_odds_ratio(wins, losses, present)
        gart = stats.contingency.odds_ratio(table.astype(int) + 1)  # of the same order as half added
        assert low < gart.statistic < high
        added = table + 0.5
        assert value == pytest.approx(added[0, 0] * added[1, 1] / added[0, 1] / added[1, 0])
        assert np.log(high / low) == pytest.approx(2 * 1.959964 * np.sqrt((1 / added).sum()))


def test_drawing_gives_what_enumerating_gives_and_copied_seeds_add_nothing() -> None:
    generator = np.random.default_rng(5)
    wins = (generator.random(60) < 0.5).astype(float)
    losses = (generator.random(60) < 0.4) * (1 - wins)
    present = generator.random(60) < np.where(wins, 0.4, 0.2)
    none = np.zeros(60, int)
    exact = win_test(wins, losses, present, none)
    assert win_test(2 * wins, 2 * losses, present, none) == pytest.approx(exact)
    lone = np.append(2 * wins, 1.0), np.append(2 * losses, 0.0), np.append(present, False)
    drawn = win_test(*lone, np.append(none, 1), seed=0)  # another stratum of one item forces draws
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact / 9_999))
    assert win_odds_ratio(2 * wins, 2 * losses, present) == pytest.approx(
        win_odds_ratio(wins, losses, present)
    )


def test_what_length_explains_is_significant_but_no_finding() -> None:
    generator = np.random.default_rng(6)
    n = 1500
    words = generator.integers(1, 4, n) * 20
    present = generator.random((n, 3)) < 0.1
    present[:, 0] = generator.random(n) < words / 70  # long texts have the relation
    base = generator.random(n) < 0.3
    adapter = generator.random(n) < np.select([words == 20, words == 40], [0.2, 0.4], 0.6)
    effect = effects_of(present, base, adapter, words).effects[0]
    assert effect.q < 0.05
    assert effect.p_within > 0.05
    assert not effect.significant
    assert "one length" in relation_in_words(effect)


def test_classes_are_held_fixed_too() -> None:
    """An adapter that says one word gains on one class: not on the relations that this class has."""
    generator = np.random.default_rng(7)
    gold = generator.choice(["good", "bad"], 800)
    present = generator.random((800, 2)) < np.where(gold == "good", 0.5, 0.1)[:, None]
    base = generator.random(800) < 0.5
    found = effects_of(present, base, gold == "good", classes={"t": list(gold)})
    assert all(effect.q < 0.05 for effect in found.effects)
    assert found.findings == ()
    assert "length and class" in relation_in_words(found.effects[0])


def test_scores_that_are_not_right_or_wrong_are_tested_too() -> None:
    generator = np.random.default_rng(8)
    present = generator.random((300, 12)) < 0.2
    base = generator.normal(-2, 0.3, 300)
    adapter = base + generator.normal(0.1, 0.2, (2, 300)) + 0.3 * present[:, 4]
    found = effects_of(present, base, adapter)
    assert [effect.relation for effect in found.findings] == ["r04"]
    (effect,) = found.findings
    assert effect.difference.low < 0.3 < effect.difference.high
    assert not effect.odds_ratio.known
    assert 0 < effect.detectable < 0.3
    assert effect.p < 1e-4  # more draws where 9,999 cannot tell it from 0
    assert np.isnan(effect.base_right)


def test_what_length_explains_of_a_score_is_no_finding_either() -> None:
    generator = np.random.default_rng(10)
    words = generator.integers(1, 4, 600) * 20
    present = generator.random((600, 1)) < words[:, None] / 70
    base = generator.normal(-2, 0.3, 600)
    effect = effects_of(present, base, base + words / 40 + generator.normal(0, 0.2, 600), words).effects[0]
    assert effect.q < 0.05
    assert effect.p_within > 0.05


def test_the_permuted_difference_is_a_test_of_the_right_size() -> None:
    generator = np.random.default_rng(9)
    p = np.concatenate(
        [
            difference_test(
                generator.normal(0, np.where(one[:, 0], 3, 1)), one, np.zeros(100, int), draws=199, seed=trial
            )
            for trial, one in enumerate(generator.random((250, 100, 1)) < 0.15)
        ]
    )  # items with the relation vary more: an unstudentised permutation rejects far too often
    assert 0.02 < (p < 0.05).mean() < 0.09
    same = welch_interval(np.array([0.1, 0.2, 0.4, 0.3]), np.array([True, True, False, False]), binary=False)
    plain = stats.ttest_ind([0.1, 0.2], [0.4, 0.3], equal_var=False).confidence_interval()
    assert same[1:3] == pytest.approx((plain.low, plain.high))


def test_no_changed_item_is_no_number() -> None:
    present = np.zeros((100, 2), bool)
    present[:20, 0] = present[:5, 1] = True
    base = np.arange(100) % 2 == 0
    found = effects_of(present, base, base)
    assert not found.tested
    assert "items with the relation: 5" in found.effects[1].reason
    assert "0 of 20 items" in found.effects[0].reason
    assert "changed" in found.effects[0].odds_ratio.reason
    assert found.effects[0].difference.value == 0
    assert found.effects[0].difference.low < 0 < found.effects[0].difference.high
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["effects"][0]["detectable"] is None
    assert told["tests"] == 0


def test_only_measured_items_and_seeds_count_and_order_does_not() -> None:
    present, base, adapter = published_artefact()
    whole = np.stack([adapter, np.full(len(adapter), np.nan)]).astype(float)
    one, two = effects_of(present, base, whole), effects_of(present, base, adapter)
    assert one.effects == two.effects or one.to_json()["effects"] == two.to_json()["effects"]
    order = np.random.default_rng(0).permutation(len(base))
    shuffled = effects_of(present[order], base[order], adapter[order])
    assert [effect.p for effect in shuffled.tested] == pytest.approx([effect.p for effect in one.tested])
