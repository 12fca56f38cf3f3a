"""Metrics of rankings: published numbers, and the laws that their definitions promise."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from traitmap.analysis.recommendation import protocol as metrics

PUBLISHED = {
    "RoE_MiniLM": (64.52, 4.11),
    "TaskShop_RoE_t5l": (71.54, 2.66),
    "LLMsim_davinci003": (56.69, 3.67),
    "TaskShop_LLM_t5l": (59.69, 2.73),
}


@pytest.mark.shared
@pytest.mark.parametrize("method", PUBLISHED)
def test_published_methods_score_what_was_published(shared, method):
    """Sources are ordered by the authors' label: half the relative change, half the share of seeds that
    gained (rescaled to -.1 to .1); values are scores; piqa is not among their 20 targets."""
    folder = shared / "matrices"
    score, change, gained = (
        pd.read_csv(folder / f"taskweb_t5l_finetune_{name}.csv", index_col=0)
        for name in ("score", "relchange", "fracpos")
    )
    label = 0.5 * change + 0.5 * (0.2 * gained - 0.1)
    predicted = pd.read_csv(folder / "taskweb_published_predictors.csv").pivot(
        index="source", columns="target", values=method
    )
    found = []
    for target in score.columns.drop("piqa"):
        sources = change.index.drop(target)
        guess = predicted.loc[sources, target]
        truth, order = score.loc[sources, target], label.loc[sources, target]
        found.append(
            (metrics.ndcg(order, guess, ties="first"), metrics.mean_regret(truth, guess, 5, order=order))
        )
    assert len(found) == 20
    assert tuple(np.round(np.mean(found, axis=0), 2)) == PUBLISHED[method]


ranking = st.lists(st.integers(0, 6), min_size=2, max_size=6)


@settings(deadline=None, max_examples=40)
@given(ranking, st.randoms(use_true_random=False))
def test_ties_score_the_mean_over_all_orders(guess, random):
    truth = np.array([random.uniform(1, 5) for _ in guess])
    guess = np.array(guess, dtype=float)
    orders = [
        np.array(order)
        for order in permutations(range(len(guess)))
        if all(a >= b for a, b in zip(guess[list(order)], guess[list(order)][1:], strict=False))
    ]
    for name in ("ndcg", "ndcg@3", "regret@1", "regret@3", "mean_regret@3"):
        metric = metrics.RANKING_METRICS[name]
        each = [metric(truth, -np.argsort(order).astype(float)) for order in orders]
        assert metric(truth, guess) == pytest.approx(np.mean(each)), name


@settings(deadline=None, max_examples=40)
@given(ranking, st.randoms(use_true_random=False))
def test_the_order_of_sources_never_matters(guess, random):
    truth = np.array([random.choice([1.0, 2.0, 3.5]) for _ in guess])
    guess = np.array(guess, dtype=float)
    shuffled = np.array(random.sample(range(len(guess)), len(guess)))
    for name, metric in metrics.RANKING_METRICS.items():
        a, b = metric(truth, guess), metric(truth[shuffled], guess[shuffled])
        assert a == pytest.approx(b, nan_ok=True), name


def test_a_perfect_ranking_is_perfect_and_a_reversed_one_is_not():
    truth = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    for name in ("ndcg", "ndcg@3"):
        assert metrics.RANKING_METRICS[name](truth, 10 * truth) == pytest.approx(100)
        assert metrics.RANKING_METRICS[name](truth, -truth) < 60
    assert metrics.regret(truth, truth, 1) == 0
    assert metrics.regret(truth, -truth, 1) == pytest.approx(80)
    assert metrics.regret(truth, -truth, 3) == pytest.approx(40)
    assert metrics.mean_regret(truth, -truth, 3) == pytest.approx(100 * (4 - 2) / 4)


def test_agrees_with_other_implementations():
    random = np.random.default_rng(0)
    truth, guess = random.permutation(9).astype(float), random.normal(size=9).round(1)
    relevance = 2 ** (truth + 1) - 1
    assert metrics.ndcg(truth, guess) == pytest.approx(100 * ndcg_score([relevance], [guess]))
    assert metrics.ndcg(truth, guess, k=4) == pytest.approx(100 * ndcg_score([relevance], [guess], k=4))
    assert metrics.auc(truth > 3, guess) == pytest.approx(roc_auc_score(truth > 3, guess))


def test_long_rankings_stay_finite():
    truth = np.arange(3000.0)
    assert metrics.ndcg(truth, truth) == pytest.approx(100)
    assert 0 <= metrics.ndcg(truth, -truth) < 12


def test_what_is_not_defined_is_not_a_number():
    assert np.isnan(metrics.regret(np.zeros(3), np.arange(3.0), 1))
    assert np.isnan(metrics.pearson(np.ones(3), np.arange(3.0)))
    assert metrics.spearman(np.arange(3.0), np.ones(3)) == 0
    assert np.isnan(metrics.auc([True, True], [1.0, 2.0]))
    with pytest.raises(ValueError, match="finite"):
        metrics.ndcg([1.0, np.nan], [1.0, 2.0])
