"""The task families of the embedded study: each a pure function from (split, count, seed) to rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from traitmap.mini.families import (
    arithmetic,
    inference,
    long_reviews,
    paraphrase,
    programs,
    reviews,
    stars,
    toxicity,
    word_problems,
)
from traitmap.mini.families.draw import Row

__all__ = ["FAMILIES", "Family", "Row", "common_content", "common_labels"]

Rows = Callable[..., list[Row]]


@dataclass(frozen=True)
class Family:
    """One kind of task.

    rows(split, count, seed): distinct rows; a text belongs to one split for good.
    key: the column whose text is distinct. labels, shares: class words and their planted shares,
    both empty for families whose answer is generated. content: what the family is about, planted so
    that two families share it or do not.
    """

    rows: Rows
    key: str
    labels: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    content: frozenset[str] = frozenset()


def _labelled(module: Any, rows: Rows, shares: tuple[float, ...], key: str, *content: str) -> Family:
    return Family(rows, key, module.LABELS, shares, frozenset(content))


def _generated(rows: Rows, key: str, *content: str) -> Family:
    return Family(rows, key, content=frozenset(content))


FAMILIES: dict[str, Family] = {
    "word_problems": _generated(word_problems.rows, "question", "sums", "stories"),
    "arithmetic": _generated(arithmetic.rows, "question", "sums"),
    "programs": _generated(programs.rows, "instruction", "sums", "code"),
    "inference": _labelled(inference, inference.rows, inference.SHARES, "pair", "events"),
    "paraphrase": _labelled(paraphrase, paraphrase.rows, paraphrase.SHARES, "pair", "who did what"),
    "toxicity": _labelled(toxicity, toxicity.rows, toxicity.SHARES, "text", "insults", "sentiment"),
    "reviews": _labelled(reviews, reviews.rows, reviews.SHARES, "text", "sentiment"),
    "reviews_balanced": _labelled(
        reviews, reviews.balanced_rows, reviews.BALANCED_SHARES, "text", "sentiment"
    ),
    "stars": _labelled(stars, stars.rows, stars.SHARES, "text", "sentiment"),
    "stars_mislabelled": _labelled(stars, stars.mislabelled_rows, stars.SHARES, "text", "sentiment"),
    "long_reviews": _labelled(long_reviews, long_reviews.rows, long_reviews.SHARES, "text", "sentiment"),
}


def common_labels(one: str, other: str) -> frozenset[str]:
    """Label words that two families share, whatever they mean by them."""
    return frozenset(FAMILIES[one].labels) & frozenset(FAMILIES[other].labels)


def common_content(one: str, other: str) -> frozenset[str]:
    """What two families are both about."""
    return FAMILIES[one].content & FAMILIES[other].content
