"""What the task files beside this one share: which rows are asked, and how expected an answer is."""

import math
from typing import Any

HELD_OUT = 1000  # rows that a target keeps of a dataset with a training split only; sources leave them out
ANSWERS = (
    "output",
    "code",
    "Equation",
    "answer",
)  # the column that holds the answer, the first that is there


def shuffled(docs: Any) -> Any:
    """All rows in one fixed random order: some datasets are sorted by class, and a limit takes the first."""
    return docs.shuffle(seed=0)


def balanced(docs: Any) -> Any:
    """As many rows of each label as the rarest has, in one fixed random order."""
    docs = docs.shuffle(seed=0)
    places: dict[Any, list[int]] = {}
    for place, label in enumerate(docs["label"]):
        places.setdefault(label, []).append(place)
    rarest = min(map(len, places.values()))
    kept = docs.select([place for group in places.values() for place in group[:rarest]])
    return kept.shuffle(seed=1)  # else the first rows would be as uneven as they were


def held_out(docs: Any) -> Any:
    """The last rows of a dataset that has a training split only."""
    return docs.select(range(max(0, len(docs) - HELD_OUT), len(docs)))


def of_answer(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Bits per byte of the right answer given the question, negative so that more is better.

    The byte before the answer (a space or a line break) is scored with it and counted.
    """
    [(logprob, _)] = results
    answer = next(doc[column] for column in ANSWERS if column in doc)
    return {"negative_bits_per_byte": logprob / math.log(2) / (1 + len(answer.encode()))}
