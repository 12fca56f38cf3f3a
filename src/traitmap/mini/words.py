"""The words that the task families and the pretraining text share: who, what, where, and how it felt.

One sentiment lexicon serves every review family, and in part the toxicity family. That sharing is
planted: it is why one kind of review teaches something about another (docs/mini.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, in order."""
    return tuple(text.split())


NAMES = words_of(
    "Anna Ben Carla David Emma Felix Grace Henry Iris Jack Karen Leo "
    "Maria Nora Oscar Paula Ruth Sam Tina Victor"
)
FEMALE = frozenset(words_of("Anna Carla Emma Grace Iris Karen Maria Nora Paula Ruth Tina"))
OBJECTS = words_of(
    "apples books cards coins cups eggs flowers keys lemons marbles nuts oranges pears pens plates "
    "shells stamps stones tickets toys"
)
PLACES = words_of(
    "park garden kitchen market school station library forest museum harbour street village office stadium"
)
COLOURS = words_of("red blue green white black brown yellow grey")

# The sentiment lexicon, from worst to best. Index = stars - 1.
AWFUL = words_of("awful terrible horrible dreadful useless disgusting pathetic hopeless appalling worthless")
POOR = words_of("weak poor dull flimsy clumsy slow bland shabby boring disappointing")
PLAIN = words_of("plain ordinary average usual common standard typical middling regular passable")
GOOD = words_of("good nice pleasant solid decent useful neat handy lovely enjoyable")
SUPERB = words_of(
    "wonderful excellent amazing superb perfect fantastic brilliant outstanding marvellous splendid"
)
GRADES = (AWFUL, POOR, PLAIN, GOOD, SUPERB)
NEGATIVE = AWFUL + POOR
POSITIVE = GOOD + SUPERB

LIKES = words_of("like love enjoy recommend adore treasure")
DISLIKES = words_of("hate dislike regret return avoid despise")

PRODUCTS = words_of(
    "kettle phone lamp chair camera radio bag watch jacket knife mirror printer blender heater clock "
    "keyboard tent pillow fan shirt"
)
PARTS = words_of("handle colour size cover button cable shape box surface material price weight")
FILMS = words_of("film movie drama comedy thriller western musical sequel series documentary")
FILM_PARTS = words_of("plot acting ending music script dialogue camera cast story pace humour opening")

# "a" before a vowel, but for words that begin as "you" does.
ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])(?!us(?:eful|ual|eless))")

INSULTS = words_of("fool idiot liar clown moron coward loser pig rat troll")


def pick(generator: np.random.Generator, words: Sequence[str]) -> str:
    """One of the words, all equally likely.

    One draw of the generator: the number and order of draws decide all rows that follow.
    """
    return words[int(generator.integers(len(words)))]


def pick_two(generator: np.random.Generator, words: Sequence[str]) -> tuple[str, str]:
    """Two different words, in random order.

    Two draws of the generator, whatever the words are.
    """
    first = int(generator.integers(len(words)))
    second = int(generator.integers(len(words) - 1))
    return words[first], words[second + (second >= first)]


def pronoun(name: str) -> str:
    """``She`` or ``He`` for a name in NAMES."""
    return "She" if name in FEMALE else "He"


def with_articles(text: str) -> str:
    """The text with ``a`` turned into ``an`` where the next word wants it."""
    return ARTICLE.sub(r"\1n ", text)
