"""Meaning: MMD against its definition and on known clouds, and the embedding that needs no download."""

import numpy as np
import pytest

from traitmap.analysis.profiles.semantics import (
    centroid_cosine,
    discrepancy,
    embed_together,
    mmd_squared,
    nearest_cosine,
)
from traitmap.errors import DataError

FRUIT = [
    f"ripe {one} and sweet {two} on the tree" for one in ("apple", "pear", "plum") for two in ("fig", "peach")
]
METAL = [
    f"molten {one} with hard {two} in a furnace"
    for one in ("iron", "tin", "zinc")
    for two in ("lead", "steel")
]


def test_mmd_is_its_definition():
    rng = np.random.default_rng(0)
    x, y, bandwidth = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 1, 1.3

    def kernel(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * bandwidth**2))

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(some) for j, b in enumerate(some) if i != j])
        for some in (x, y)
    ]
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert mmd_squared(x, y, bandwidth) == pytest.approx(sum(within) - 2 * across)
    assert mmd_squared(y, x, bandwidth) == pytest.approx(mmd_squared(x, y, bandwidth))
    assert np.isnan(mmd_squared(x[:1], y, bandwidth))


def test_the_null_rejects_about_as_often_as_it_says_and_finds_a_shift():
    rng = np.random.default_rng(1)
    same = [discrepancy([rng.normal(size=(20, 4)), rng.normal(size=(25, 4))], seed=i) for i in range(120)]
    p = np.array([p[0, 1] for _, p, _, _ in same])
    assert 0.01 <= (p <= 0.1).mean() <= 0.2
    assert abs(np.mean([squared[0, 1] for squared, _, _, _ in same])) < 0.005
    squared, p, null_p95, _ = discrepancy([rng.normal(size=(40, 4)), rng.normal(size=(40, 4)) + 1])
    assert p[0, 1] == 0.01
    assert squared[0, 1] > null_p95[0, 1]
    assert (np.diag(squared) == 0).all()


def test_texts_of_like_words_are_near_and_the_default_says_what_it_is():
    kind, clouds = embed_together([FRUIT[:3], FRUIT[3:], METAL])
    assert "TF-IDF" in kind
    cosine = centroid_cosine(clouds)
    assert np.allclose(np.diag(cosine), 1)
    assert cosine[0, 1] > cosine[0, 2] + 0.3
    nearest = nearest_cosine(clouds)
    assert np.allclose(np.diag(nearest), 1)
    assert nearest[0, 1] > nearest[0, 2]


def test_a_given_embedding_is_used_and_its_mistakes_are_told():
    def lengths(texts):
        return np.array([[len(text), 1.0] for text in texts])

    kind, clouds = embed_together([["a", "bb"], ["cccc"]], lengths)
    assert kind == "the embedding given"
    assert clouds[1][0] == pytest.approx(np.array([4, 1]) / np.sqrt(17))
    with pytest.raises(DataError, match=r"shape \(3,\) for 3 texts"):
        embed_together([["a", "bb"], ["cccc"]], lambda texts: np.ones(len(texts)))
    with pytest.raises(DataError, match="not finite"):
        embed_together([["a"]], lambda texts: np.full((len(texts), 2), np.nan))


@pytest.mark.parametrize("texts", [[""], ["…", "🙂"], ["\ud800"], ["a"], ["日本語", "日本語"]])
def test_texts_without_words_are_unknown_or_alike(texts):
    _, clouds = embed_together([texts, texts])
    assert len(clouds[0]) <= len(texts)
    for found in (centroid_cosine(clouds), nearest_cosine(clouds)):
        assert np.isnan(found).all() or np.allclose(found, 1)
