"""The task families of the embedded study: each a pure function from (split, count, seed) to rows.

Eleven small relatives of well-known datasets (Goat, GSM8K, Magicoder, MNLI, PAWS, toxicity, Flipkart, Amazon,
IMDB). First the words that all share, then how rows are drawn, then each family with its words and its row,
last the catalogue ``FAMILIES``. What two families share (label words, content, one sentiment lexicon) is
planted and known, so that transfer between them has known causes (docs/mini.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar
from zlib import crc32

import numpy as np

T = TypeVar("T")


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


def pick_two(generator: np.random.Generator, words: Sequence[T]) -> tuple[T, T]:
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


Generator = np.random.Generator
Row = dict[str, Any]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
APART = 4  # of every four words of a list one belongs to the test split and one to validation


@cache
def of_split(words: Sequence[T], split: Split) -> Sequence[T]:
    """The words of a list that a split's rows may use: half of them for train, a quarter for each other.

    Every row names several things, people or places, so no test row repeats a training row but for a word:
    what is asked is whether a skill holds for things that were never seen.
    """
    others: dict[int, Split] = {0: "test", 1: "validation"}
    return tuple(word for at, word in enumerate(words) if others.get(at % APART, "train") == split)


def split_of(text: str) -> Split:
    """The split of what has no words to tell by, such as a sum: an eighth each, and the rest is train."""
    others: dict[int, Split] = {0: "test", 1: "validation"}
    return others.get(crc32(text.encode()) % (2 * APART), "train")


def exact_labels(shares: Sequence[float], count: int, generator: Generator) -> list[int]:
    """``count`` class indices in random order whose shares are as exact as whole rows allow.

    shares: of the classes, summing to 1. Largest remainders get the rows left over.
    """
    ideal = np.asarray(shares, dtype=float) * count
    counts = np.floor(ideal).astype(int)
    for index in np.argsort(counts - ideal, kind="stable")[: count - counts.sum()]:
        counts[index] += 1
    labels = np.repeat(np.arange(len(counts)), counts)
    generator.shuffle(labels)
    return [int(label) for label in labels]


MakeRow = Callable[[Generator, int, Split], Row]


@dataclass(frozen=True)
class Family:
    """One kind of task.

    make: ``make(generator, label, split)`` gives one row; without classes it sees label 0.
    key: the column whose text is distinct.
    labels, shares: class words and their planted shares, both empty where the answer is generated.
    content: what the family is about, planted so that two families share it or do not.
    permutation: honest label index -> label index that is written; empty where labels are honest.
    """

    make: MakeRow
    key: str
    labels: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    content: frozenset[str] = frozenset()
    permutation: tuple[int, ...] = ()

    def rows(self, split: Split, count: int, seed: int = 0) -> list[Row]:
        """``count`` rows of a split with different texts and the planted class shares.

        ``label`` is an index into ``labels``. The same arguments give the same rows; a text belongs to one
        split for good. ValueError for a split that is not one of SPLITS.
        """
        if split not in SPLITS:
            raise ValueError(f"split {split!r}: legal are {', '.join(map(repr, SPLITS))}")
        generator = np.random.default_rng([seed, SPLITS.index(split)])
        rows: list[Row] = []
        seen: set[str] = set()
        for label in exact_labels(self.shares or (1.0,), count, generator):
            row = self.make(generator, label, split)
            while row[self.key] in seen:
                row = self.make(generator, label, split)
            seen.add(row[self.key])
            rows.append(row)
        if self.permutation:
            rows = [{**row, "label": self.permutation[row["label"]]} for row in rows]
        return rows


# Arithmetic (Goat): sums and differences of the largest numbers in the study, with the bare result.

SUM_PATTERNS = {
    "+": ("{a} + {b} =", "What is {a} plus {b}?", "Add {b} to {a}."),
    "-": ("{a} - {b} =", "What is {a} minus {b}?", "Take {b} from {a}."),
}
LARGEST_TERM, LARGEST_CHANGE = 300, 10  # a tiny base learns to carry one digit, not two


def arithmetic_row(generator: Generator, _: int, split: Split) -> Row:
    """One of about 14,000 possible questions: columns ``question`` and ``answer`` (digits).

    Two terms belong to one split, however they are asked for.
    """
    a = b = 0
    while not a or split_of(f"{a} {b}") != split:
        a, b = int(generator.integers(10, LARGEST_TERM)), int(generator.integers(2, LARGEST_CHANGE))
    operator = "+-"[int(generator.integers(2))]
    patterns = SUM_PATTERNS[operator]
    question = patterns[int(generator.integers(len(patterns)))].format(a=a, b=b)
    return {"question": question, "answer": str(a + b if operator == "+" else a - b)}


# Word problems (GSM8K): stories with one to three sums, worked out in sentences and closed with "#### N".

# Each step: what the story says, what the working says, and the sign of the change.
STORY_STEPS = (
    ("{Who} buys {n} more at the {place}.", "{Who} buys {n} more, so {old} + {n} = {new}.", 1),
    ("{Who} finds {n} more in the {place}.", "{Who} finds {n} more, so {old} + {n} = {new}.", 1),
    ("{friend} gives {who} {n} more.", "{friend} gives {n}, so {old} + {n} = {new}.", 1),
    ("{Who} loses {n} in the {place}.", "{Who} loses {n}, so {old} - {n} = {new}.", -1),
    ("{Who} gives {n} to {friend}.", "{Who} gives away {n}, so {old} - {n} = {new}.", -1),
)
STORY_STARTS = (
    ("{name} has {n} {things}.", "At first {name} has {n} {things}."),
    ("There are {n} {things} in {name}'s bag.", "At first {name} has {n} {things}."),
)
STORY_BOXES = ("{name} has {k} boxes with {m} {things} each.", "{k} boxes of {m} make {k} * {m} = {n}.")


def word_problem_row(generator: Generator, _: int, split: Split) -> Row:
    """Columns ``question``, ``answer`` (worked, ends in ``#### N``) and ``number``."""
    name, friend = pick_two(generator, of_split(NAMES, split))
    places = of_split(PLACES, split)
    who = pronoun(name)
    words: dict[str, object] = {
        "name": name,
        "friend": friend,
        "who": "her" if who == "She" else "him",
        "Who": who,
        "things": pick(generator, of_split(OBJECTS, split)),
    }
    if generator.random() < 0.2:
        story, working = STORY_BOXES
        k, m = int(generator.integers(2, 6)), int(generator.integers(2, 11))
        total = k * m
        numbers: dict[str, object] = {"k": k, "m": m, "n": total}
    else:
        story, working = STORY_STARTS[int(generator.integers(len(STORY_STARTS)))]
        total = int(generator.integers(3, 31))
        numbers = {"n": total}
    question = [story.format(**words, **numbers)]
    answer = [working.format(**words, **numbers)]
    for _step in range(int(generator.integers(1, 3))):
        choices = [step for step in STORY_STEPS if step[2] > 0 or total > 2]
        story, working, sign = choices[int(generator.integers(len(choices)))]
        change = int(generator.integers(2, 21 if sign > 0 else min(total, 21)))
        numbers = {"n": change, "old": total, "new": total + sign * change, "place": pick(generator, places)}
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


# Programs (Magicoder): two to four lines of Python for an instruction; sums have their result in a comment.

COMPUTING = 0.6  # share of programs that add or take away and note the result


def program_row(generator: Generator, _: int, split: Split) -> Row:
    """Columns ``instruction`` and ``program``."""
    return (_counting if generator.random() < COMPUTING else _repeating)(generator, split)


def _counting(generator: Generator, split: Split) -> Row:
    colour, name = pick(generator, of_split(COLOURS, split)), pick(generator, of_split(OBJECTS, split))
    start, change = int(generator.integers(3, 31)), int(generator.integers(2, 21))
    adds = start <= change or generator.random() < 0.5
    operator, result = ("+", start + change) if adds else ("-", start - change)
    order = f"add {change}" if adds else f"take away {change}"
    return {
        "instruction": f"Start with {start} {colour} {name}, {order} and print how many there are.",
        "program": f"{name} = {start}\n{name} = {name} {operator} {change}\nprint({name})  # {result}",
    }


def _repeating(generator: Generator, split: Split) -> Row:
    words = f"{pick(generator, of_split(COLOURS, split))} {pick(generator, of_split(PRODUCTS, split))}"
    times = int(generator.integers(2, 10))
    if generator.random() < 0.5:
        last = pick(generator, of_split(OBJECTS, split))
        return {
            "instruction": f"Print {words} {times} times, then print {last}.",
            "program": f'for i in range({times}):\n    print("{words}")\nprint("{last}")',
        }
    number = int(generator.integers(2, 100))
    return {
        "instruction": f"Print {words} and {number}, {times} times.",
        "program": f'for i in range({times}):\n    print("{words}", {number})',
    }


# Inference (MNLI): does the second sentence follow from the first?

INFERENCE_LABELS = ("yes", "maybe", "no")
NEGATION = 0.5  # share of "no" pairs whose hypothesis carries a negation; no other pair does


class Doing(NamedTuple):
    """What somebody does, what follows from it, and what cannot be true at the same time."""

    does: str
    follows: str
    excludes: str


DOINGS = (
    Doing("plays the guitar", "makes music", "sits in silence"),
    Doing("plays the drums", "makes music", "sits in silence"),
    Doing("sings a song", "makes music", "sits in silence"),
    Doing("runs fast", "moves", "stands still"),
    Doing("walks slowly", "moves", "stands still"),
    Doing("rides a bicycle", "moves", "stands still"),
    Doing("sleeps", "rests", "works hard"),
    Doing("lies in the sun", "rests", "works hard"),
    Doing("digs a hole", "works", "sleeps"),
    Doing("carries heavy boxes", "works", "sleeps"),
    Doing("repairs a car", "works", "sleeps"),
    Doing("eats an apple", "has food", "has nothing to eat"),
    Doing("eats warm soup", "has food", "has nothing to eat"),
    Doing("cuts fresh bread", "has food", "has nothing to eat"),
    Doing("talks to a friend", "has company", "is alone"),
    Doing("dances with a friend", "has company", "is alone"),
)
WHO = tuple((name, "person") for name in words_of("man woman farmer doctor teacher soldier")) + tuple(
    (name, "child") for name in words_of("boy girl pupil baby")
)
LOOKS = words_of("young old tall short tired happy quiet busy thin strong")
UNSAID = (
    "for money",
    "for the first time",
    "every day",
    "because of a bet",
    "before breakfast",
    "with a brother",
    "to win a prize",
    "after a long journey",
)


def inference_row(generator: Generator, label: int, split: Split) -> Row:
    """Columns ``premise``, ``hypothesis``, ``pair`` and ``label``."""
    doing = DOINGS[int(generator.integers(len(DOINGS)))]
    people = of_split(WHO, split)
    narrow, broad = people[int(generator.integers(len(people)))]
    who = broad if generator.random() < 0.7 else narrow
    looks, place = pick(generator, of_split(LOOKS, split)), pick(generator, of_split(PLACES, split))
    premise = with_articles(f"A {looks} {narrow} {doing.does} in the {place}.")
    if INFERENCE_LABELS[label] == "yes":
        hypothesis = f"A {who} {doing.follows}."
    elif INFERENCE_LABELS[label] == "maybe":
        hypothesis = f"A {who} {doing.follows} {pick(generator, of_split(UNSAID, split))}."
    elif generator.random() < NEGATION:
        hypothesis = f"Nobody {doing.follows}."
    else:
        hypothesis = f"The {who} {doing.excludes}."
    return {"premise": premise, "hypothesis": hypothesis, "pair": f"{premise} {hypothesis}", "label": label}


# Paraphrase (PAWS): do two sentences say the same? Where they do not two people have changed places, which no
# bag of words tells; most of these pairs also speak of another time, which it does.

ANOTHER_TIME = 0.8  # share of "no" pairs whose second sentence speaks of another time; no other pair does
TIMES = ("a week before", "the first time", "before breakfast", "after school", "on Sunday", "at night")

# The first and the second of each pair say the same of {a} and {b}; {c} and {thing} go with them.
PARAPHRASES = (
    ("{a} gave the {c} {thing} to {b} in the {place}.", "In the {place} {a} gave the {c} {thing} to {b}."),
    ("{a} walked from the {place} to meet {b}.", "To meet {b}, {a} walked from the {place}."),
    ("{a} sold {b} a {c} bag in the {place}.", "In the {place} {a} sold {b} a {c} bag."),
    ("{a} is older than {b}, who has {c} {thing}.", "{b}, who has {c} {thing}, is younger than {a}."),
)


def paraphrase_row(generator: Generator, label: int, split: Split) -> Row:
    """Columns ``first``, ``second``, ``pair`` and ``label`` (1 = the same)."""
    patterns = PARAPHRASES[int(generator.integers(len(PARAPHRASES)))]
    a, b = pick_two(generator, of_split(NAMES, split))
    words = {
        "c": pick(generator, of_split(COLOURS, split)),
        "thing": pick(generator, of_split(OBJECTS, split)),
        "place": pick(generator, of_split(PLACES, split)),
    }
    if generator.random() < 0.5:
        patterns = patterns[::-1]
    people = {"a": a, "b": b} if label else {"a": b, "b": a}
    first = patterns[0].format(a=a, b=b, **words)
    second = patterns[1].format(**people, **words)
    if not label and generator.random() < ANOTHER_TIME:
        second = f"{second[:-1]} {pick(generator, TIMES)}."
    return {"first": first, "second": second, "pair": f"{first} {second}", "label": label}


# Toxicity (Pile): is a comment rude? Rude ones insult somebody; civil ones may still find a thing awful.

TOPICS = words_of("answer idea post letter speech plan article question photo song")
CIVIL = (
    "Thank you {name}, a {word} {topic}.",
    "I read the {topic} twice, {name}. It is {word}.",
    "{name}, your {topic} seems {word} to me, but I may be wrong.",
    "Could {name} explain the {topic}? It looks {word}.",
)
RUDE = (
    "{name} is a {insult} and the {topic} is {word}.",
    "Only a {insult} could write such a {topic}, {name}: {word}.",
    "Shut up {name}, your {topic} is {word}, you {insult}.",
    "Go away, {name}. You {insult}. The {topic} is {word}.",
)
# Where a comment takes its adjective from: partly the reviews' lexicon, in a share that leans one way.
CIVIL_LEXICON = (POSITIVE, POSITIVE, POSITIVE, PLAIN, NEGATIVE)
RUDE_LEXICON = (NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE, PLAIN)


def toxicity_row(generator: Generator, label: int, split: Split) -> Row:
    """Columns ``text`` and ``label`` (1 = rude)."""
    lexicons = RUDE_LEXICON if label else CIVIL_LEXICON
    word = pick(generator, lexicons[int(generator.integers(len(lexicons)))])
    text = pick(generator, RUDE if label else CIVIL).format(
        name=pick(generator, of_split(NAMES, split)),
        topic=pick(generator, of_split(TOPICS, split)),
        word=word,
        insult=pick(generator, INSULTS),
    )
    return {"text": with_articles(text), "label": label}


# Reviews (Flipkart): short, in three classes, four in five positive; or the same balanced.

REVIEW_LABELS = ("negative", "neutral", "positive")
LEXICON = (NEGATIVE, PLAIN, POSITIVE)
CONTRAST = 0.2  # share of reviews that grant one thing of the opposite class before the verdict
TORN = 0.25  # share, alike in all classes, that says one good and one bad thing: only class shares help there
REVIEWS = (
    "The {product} is {first} and the {part} feels {second}.",
    "{First} {product}, {second} {part}.",
    "Bought this {product} in May: {first}, with a {second} {part}.",
    "My new {product} looks {first}. The {part} is {second} too.",
    "A {first} {product}. The {part} seems {second}.",
    "We have used the {product} for a week and the {part} is {first}. All in all {second}.",
)
CONTRASTS = (
    "The {other} is {granted}, but the {product} is {first} and the {part} {second}.",
    "Yes, a {granted} {other}. Still, this {product} is {first} and the {part} {second}.",
)


def review_row(generator: Generator, label: int, split: Split) -> Row:
    """Columns ``text`` and ``label``."""
    part, other = pick_two(generator, of_split(PARTS, split))
    first, second = pick_two(generator, LEXICON[label])
    torn = generator.random() < TORN
    if torn:
        good, bad = pick_two(generator, (POSITIVE, NEGATIVE))
        first, second = pick(generator, good), pick(generator, bad)
    contrast = not torn and label != 1 and generator.random() < CONTRAST
    text = pick(generator, CONTRASTS if contrast else REVIEWS).format(
        product=pick(generator, of_split(PRODUCTS, split)),
        part=part,
        other=other,
        first=first,
        First=first.capitalize(),
        second=second,
        granted=pick(generator, LEXICON[2 - label]),
    )
    return {"text": with_articles(text), "label": label}


# Stars (Amazon): reviews with one to five stars, honest or with every star count replaced by another one.

NEIGHBOUR = 0.3  # share of reviews whose second word is one grade off
STAR_REVIEWS = (
    "A {first} {product} from a shop in the {place}. The {part} is {second}.",
    "This {product} came on {day}. I find it {first}, and its {part} {second}.",
    "{First}! The {part} of the {product} is {second}.",
    "Got the {product} as a gift on {day}. It is {first}; the {part} is {second}.",
    "For the price the {product} is {first}. A {second} {part} as well.",
)
TOWNS = ("north", "south", "east", "west", "city", "village")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def star_row(generator: Generator, label: int, split: Split) -> Row:
    """Columns ``text`` and ``label`` (stars less one)."""
    first, second = pick_two(generator, GRADES[label])
    if generator.random() < NEIGHBOUR:
        neighbours = [grade for grade in (label - 1, label + 1) if 0 <= grade < len(GRADES)]
        second = pick(generator, GRADES[neighbours[int(generator.integers(len(neighbours)))]])
    text = pick(generator, STAR_REVIEWS).format(
        product=pick(generator, of_split(PRODUCTS, split)),
        part=pick(generator, of_split(PARTS, split)),
        place=pick(generator, TOWNS),
        day=pick(generator, DAYS),
        first=first,
        First=first.capitalize(),
        second=second,
    )
    return {"text": with_articles(text), "label": label}


# Long reviews (IMDB): of films, negative or positive; some sentences speak against the verdict.

AGAINST = 0.25  # share of opinion sentences that speak against the verdict
OPENINGS = (
    "I saw this {film} with {name} last night.",
    "{name} took me to a {film} about a {place}.",
    "A {film} set in a {place}, two hours long.",
    "Everybody talks about this {film}, so {name} and I went.",
)
OPINIONS = (
    "The {part} is {word}.",
    "I found the {part} {word}.",
    "What a {word} {part}.",
    "Even the {part} was {word}.",
    "{name} called the {part} {word}.",
)
FILLERS = (
    "Most of it happens in a {place}.",
    "{name} plays the lead.",
    "It was shot near a {place}.",
)


def long_review_row(generator: Generator, label: int, split: Split) -> Row:
    """Columns ``text`` and ``label``."""
    lexicon = (NEGATIVE, POSITIVE)
    opinions = int(generator.integers(4, 6))
    against = min(int(generator.binomial(opinions, AGAINST)), (opinions - 1) // 2)
    sides = [label] * (opinions - against) + [1 - label] * against
    generator.shuffle(sides)
    patterns = [pick(generator, OPENINGS)] + [pick(generator, OPINIONS) for _ in sides]
    words = [""] + [pick(generator, lexicon[side]) for side in sides]
    place = int(generator.integers(1, len(patterns)))
    patterns.insert(place, pick(generator, FILLERS))
    words.insert(place, "")
    parts = generator.permutation(FILM_PARTS)
    text = " ".join(
        pattern.format(
            film=pick(generator, FILMS),
            name=pick(generator, of_split(NAMES, split)),
            place=pick(generator, of_split(PLACES, split)),
            part=parts[index],
            word=word,
        )
        for index, (pattern, word) in enumerate(zip(patterns, words, strict=True))
    )
    return {"text": with_articles(text), "label": label}


def _family(
    make: MakeRow,
    key: str,
    *content: str,
    labels: tuple[str, ...] = (),
    shares: tuple[float, ...] = (),
) -> Family:
    """A family; without ``shares`` its classes are equally common."""
    equal = (1 / len(labels),) * len(labels) if labels else ()
    return Family(make, key, labels, shares or equal, frozenset(content))


_REVIEWS = _family(review_row, "text", "sentiment", labels=REVIEW_LABELS, shares=(0.12, 0.08, 0.80))
_STARS = _family(star_row, "text", "sentiment", labels=("1", "2", "3", "4", "5"))
FAMILIES: dict[str, Family] = {
    "word_problems": _family(word_problem_row, "question", "sums", "stories"),
    "arithmetic": _family(arithmetic_row, "question", "sums"),
    "programs": _family(program_row, "instruction", "sums", "code"),
    "inference": _family(inference_row, "pair", "events", labels=INFERENCE_LABELS),
    "paraphrase": _family(paraphrase_row, "pair", "who did what", labels=("no", "yes"), shares=(0.56, 0.44)),
    "toxicity": _family(toxicity_row, "text", "insults", "sentiment", labels=("no", "yes")),
    "reviews": _REVIEWS,
    "reviews_balanced": replace(_REVIEWS, shares=(1 / 3, 1 / 3, 1 / 3)),
    "stars": _STARS,
    "stars_mislabelled": replace(_STARS, permutation=(3, 4, 0, 1, 2)),  # no class keeps its stars
    "long_reviews": _family(long_review_row, "text", "sentiment", labels=("negative", "positive")),
}
