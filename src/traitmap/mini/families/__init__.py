"""The task families of the embedded study: each a pure function from (split, count, seed) to rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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

__all__ = ["FAMILIES", "Family", "Row"]


@dataclass(frozen=True)
class Family:
    """One kind of task.

    rows(split, count, seed): distinct rows; a text belongs to one split for good.
    key: the column whose text is distinct. labels, shares: class words and their planted shares,
    both empty for families whose answer is generated.
    """

    rows: Callable[..., list[Row]]
    key: str
    labels: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()


FAMILIES: dict[str, Family] = {
    "word_problems": Family(word_problems.rows, "question"),
    "arithmetic": Family(arithmetic.rows, "question"),
    "programs": Family(programs.rows, "instruction"),
    "inference": Family(inference.rows, "pair", inference.LABELS, inference.SHARES),
    "paraphrase": Family(paraphrase.rows, "pair", paraphrase.LABELS, paraphrase.SHARES),
    "toxicity": Family(toxicity.rows, "text", toxicity.LABELS, toxicity.SHARES),
    "reviews": Family(reviews.rows, "text", reviews.LABELS, reviews.SHARES),
    "reviews_balanced": Family(reviews.balanced_rows, "text", reviews.LABELS, reviews.BALANCED_SHARES),
    "stars": Family(stars.rows, "text", stars.LABELS, stars.SHARES),
    "stars_mislabelled": Family(stars.mislabelled_rows, "text", stars.LABELS, stars.SHARES),
    "long_reviews": Family(long_reviews.rows, "text", long_reviews.LABELS, long_reviews.SHARES),
}
