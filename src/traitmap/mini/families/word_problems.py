"""Little stories with one to three sums, worked out in sentences and closed with ``#### N`` (GSM8K)."""

from __future__ import annotations

import numpy as np

from traitmap.mini.families.draw import Row, Split, distinct_rows
from traitmap.mini.words import NAMES, OBJECTS, PLACES, pick, pick_two, pronoun

# Each step: what the story says, what the working says, and the sign of the change.
STEPS = (
    ("{Who} buys {n} more at the {place}.", "{Who} buys {n} more, so {old} + {n} = {new}.", 1),
    ("{Who} finds {n} more in the {place}.", "{Who} finds {n} more, so {old} + {n} = {new}.", 1),
    ("{friend} gives {who} {n} more.", "{friend} gives {n}, so {old} + {n} = {new}.", 1),
    ("{Who} loses {n} in the {place}.", "{Who} loses {n}, so {old} - {n} = {new}.", -1),
    ("{Who} gives {n} to {friend}.", "{Who} gives away {n}, so {old} - {n} = {new}.", -1),
)
STARTS = (
    ("{name} has {n} {things}.", "At first {name} has {n} {things}."),
    ("There are {n} {things} in {name}'s bag.", "At first {name} has {n} {things}."),
)
BOXES = ("{name} has {k} boxes with {m} {things} each.", "{k} boxes of {m} make {k} * {m} = {n}.")


def _start(generator: np.random.Generator) -> tuple[str, str, dict[str, object]]:
    if generator.random() < 0.2:
        k, m = int(generator.integers(2, 6)), int(generator.integers(2, 11))
        return *BOXES, {"k": k, "m": m, "n": k * m}
    start = STARTS[int(generator.integers(len(STARTS)))]
    return *start, {"n": int(generator.integers(3, 31))}


def _row(generator: np.random.Generator, _: int) -> Row:
    name, friend = pick_two(generator, NAMES)
    who = pronoun(name)
    words: dict[str, object] = {
        "name": name,
        "friend": friend,
        "who": "her" if who == "She" else "him",
        "Who": who,
        "things": pick(generator, OBJECTS),
    }
    story, working, numbers = _start(generator)
    total = int(str(numbers["n"]))
    question = [story.format(**words, **numbers)]
    answer = [working.format(**words, **numbers)]
    for _step in range(int(generator.integers(1, 3))):
        choices = [step for step in STEPS if step[2] > 0 or total > 2]
        story, working, sign = choices[int(generator.integers(len(choices)))]
        change = int(generator.integers(2, 21 if sign > 0 else min(total, 21)))
        numbers = {"n": change, "old": total, "new": total + sign * change, "place": pick(generator, PLACES)}
        question.append(story.format(**words, **numbers))
        answer.append(working.format(**words, **numbers))
        total += sign * change
    question.append("How many {things} does {name} have now?".format(**words))
    answer.append(f"{name} has {total} {words['things']}.")
    return {
        "question": " ".join(question),
        "answer": " ".join(answer) + f" #### {total}",
        "number": str(total),
    }


def rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """Word problems: columns ``question``, ``answer`` (worked, ends in ``#### N``) and ``number``."""
    return distinct_rows(_row, "question", (1.0,), split, count, seed)
