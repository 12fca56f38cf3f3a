"""Is a comment rude? Rude ones insult somebody; civil ones may still find a thing awful (Pile toxicity)."""

from __future__ import annotations

import numpy as np

from traitmap.mini.families.draw import Row, Split, distinct_rows
from traitmap.mini.words import INSULTS, NAMES, NEGATIVE, PLAIN, POSITIVE, pick, with_articles, words_of

LABELS = ("no", "yes")
SHARES = (0.5, 0.5)

THINGS = words_of("answer idea post letter speech plan article question photo song")
CIVIL = (
    "Thank you {name}, a {word} {thing}.",
    "I read the {thing} twice, {name}. It is {word}.",
    "{name}, your {thing} seems {word} to me, but I may be wrong.",
    "Could {name} explain the {thing}? It looks {word}.",
)
RUDE = (
    "{name} is a {insult} and the {thing} is {word}.",
    "Only a {insult} could write such a {word} {thing}, {name}.",
    "Shut up {name}, your {thing} is {word}, you {insult}.",
    "Go away, {name}. You {insult}. The {thing} is {word}.",
)
# Where a comment takes its adjective from: partly the reviews' lexicon, in a share that leans one way.
CIVIL_LEXICON = (POSITIVE, POSITIVE, POSITIVE, PLAIN, NEGATIVE)
RUDE_LEXICON = (NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE, PLAIN)


def _row(generator: np.random.Generator, label: int) -> Row:
    lexicons = RUDE_LEXICON if label else CIVIL_LEXICON
    word = pick(generator, lexicons[int(generator.integers(len(lexicons)))])
    text = pick(generator, RUDE if label else CIVIL).format(
        name=pick(generator, NAMES),
        thing=pick(generator, THINGS),
        word=word,
        insult=pick(generator, INSULTS),
    )
    return {"text": with_articles(text), "label": label}


def rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """Comments: columns ``text`` and ``label`` (index into LABELS; 1 = rude)."""
    return distinct_rows(_row, "text", SHARES, split, count, seed)
