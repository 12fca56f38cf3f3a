"""What the task files beside this one share: which rows are asked, and how expected an answer is."""

import math
from typing import Any

HELD_OUT = 1000  # rows that a target keeps of a dataset with a training split only; sources leave them out
VALIDATION = 200  # rows at each end of a training split that sources leave out; the sweep asks them
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


def validation(docs: Any) -> Any:
    """The rows at both ends of a training split, so that a split sorted by class gives both of its ends."""
    ends = [*range(VALIDATION), *range(len(docs) - VALIDATION, len(docs))]
    return docs.select(ends).shuffle(seed=0)


def balanced_validation(docs: Any) -> Any:
    """The same rows of a dataset, as many of each label as the rarest has."""
    return balanced(validation(docs))


def balanced_training(docs: Any) -> Any:
    """The other rows, as many of each label as the rarest has."""
    return balanced(docs.select(range(VALIDATION, len(docs) - VALIDATION)))


def validation_before_held_out(docs: Any) -> Any:
    """The same of a dataset whose last rows are its target's."""
    return validation(docs.select(range(len(docs) - HELD_OUT)))


def of_answer(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Bits per byte of the right answer given the question, negative so that more is better.

    The byte before the answer (a space or a line break) is scored with it and counted.
    """
    [(logprob, _)] = results
    answer = next(doc[column] for column in ANSWERS if column in doc)
    return {"negative_bits_per_byte": logprob / math.log(2) / (1 + len(answer.encode()))}
