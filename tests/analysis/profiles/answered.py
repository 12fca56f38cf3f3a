"""Outcomes for tests: answers and lengths that are chosen, on items that all adapters share."""

import numpy as np

from traitmap.data.records import Outcome

BASE = ("__baseline__", None)


def chosen(gold, answers, *, tokens=1):
    """Multiple choice: gold and answers are words, one per item."""
    count = len(set(gold) | set(answers)) + 1
    return tuple(
        Outcome(
            item=at,
            item_digest=f"item {at}",
            score=float(own == right),
            correct=own == right,
            prediction=own,
            gold=right,
            choice_logprobs=(-1.0,) * count,
            output_tokens=tokens,
        )
        for at, (right, own) in enumerate(zip(gold, answers, strict=True))
    )


def written(lengths, *, gold="right answer", stopped=True, parsed=True):
    """Generation: outputs of so many characters, a token every four."""
    stops = np.broadcast_to(stopped, len(lengths))
    found = np.broadcast_to(parsed, len(lengths))
    return tuple(
        Outcome(
            item=at,
            item_digest=f"item {at}",
            score=0.0,
            correct=False,
            prediction=f"answer {at}",
            gold=f"{gold} {at}",
            text=" " + "x" * int(length),
            parsed=bool(found[at]),
            output_tokens=int(np.ceil(length / 4)),
            stopped=bool(stops[at]),
        )
        for at, length in enumerate(lengths)
    )


def words(shares, count, seed):
    """Words drawn by their shares."""
    return [
        str(one) for one in np.random.default_rng(seed).choice(list(shares), count, p=list(shares.values()))
    ]
