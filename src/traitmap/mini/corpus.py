"""The text that the embedded base is trained on: the families' words and facts in plain sentences.

No task format occurs in it (no cue with a colon and a label, no ``####``, no instruction): the base
is to know the words, and the adapters are to learn the tasks. ``python -m traitmap.mini.corpus FILE``
writes it; documents are separated by blank lines.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from traitmap.mini.families import (
    COLOURS,
    DAYS,
    DISLIKES,
    DOINGS,
    FILM_PARTS,
    FILMS,
    GRADES,
    INSULTS,
    LIKES,
    LOOKS,
    NAMES,
    OBJECTS,
    PARTS,
    PLACES,
    PRODUCTS,
    TOPICS,
    TOWNS,
    UNSAID,
    WHO,
    Generator,
    pick,
    pick_two,
    pronoun,
    with_articles,
    words_of,
)

LARGEST_SUM = 600

# The words of the task files and their rows when the base was trained, sorted. The text has them one by one,
# in lists, and never as the cue of a task. Other words here would make another base.
VOCABULARY = words_of(
    "A Add All Amazing An Anna Answer Appalling At Average Awful Ben Bland Boring Bought Brilliant Carla "
    "Comment Common Could David Decent Disappointing Disgusting Dreadful Dull Emma Enjoyable Even Everybody "
    "Excellent Fantastic Felix Film First Flimsy Follows For Friday Go Good Got Grace Handy He Henry "
    "Hopeless Horrible How Hypothesis I In Instruction Iris It Jack Karen Leo Lovely Maria Marvellous May "
    "Middling Monday Most My Nice Nobody Nora Only Opinion Ordinary Oscar Outstanding Passable Pathetic "
    "Paula Perfect Plain Pleasant Poor Premise Print Program Question Regular Review Rude Ruth Sam Same "
    "Saturday Second Sentiment Shabby She Shut Slow Solid Splendid Standard Stars Start Still Sunday Superb "
    "Take Terrible Thank The There This Thursday Tina To Tuesday Typical Useful Useless Usual Victor We "
    "Weak Wednesday What Wonderful Worthless Yes You a about acting add after all alone amazing an and "
    "answer appalling apple apples are article as at average away awful baby bag be because before bet "
    "bicycle black bland blender blue books boring box boxes boy bread breakfast brilliant brother brown "
    "busy but button buys cable called came camera car cards carries cast chair child city clock clown "
    "clumsy coins colour comedy common company could cover coward cups cuts dances day decent dialogue digs "
    "disappointing disgusting doctor documentary does drama dreadful drums dull each east eat eats eggs "
    "ending enjoyable every excellent explain fan fantastic farmer fast feels film find finds first flimsy "
    "flowers food fool for forest found fresh friend from garden gave gift girl gives good green grey "
    "guitar handle handy happens happy harbour hard has have heater heavy her him hole hopeless horrible "
    "hours how humour i idea idiot in is it its jacket journey kettle keyboard keys kitchen knife lamp last "
    "lead lemons letter liar library lies long looks loser loses lovely make makes man many marbles market "
    "marvellous material may me meaning meet middling minus mirror money more moron moves movie museum "
    "music musical near neat negative neutral new nice night north nothing now nuts of office old older on "
    "opening oranges ordinary outstanding pace park passable pathetic pears pens perfect person phone photo "
    "pig pillow plain plan plates plays pleasant plot plus poor positive post price print printer prize "
    "pupil question quiet radio range rat read red regular repairs rests review rides runs s saw school "
    "script seems sequel series set shabby shape shells shirt shop short shot silence sings sits size "
    "sleeps slow slowly so sold soldier solid song soup south speech splendid stadium stamps standard "
    "stands station still stones story street strong such sun superb surface take talks tall teacher tent "
    "terrible than the then there thin this thriller tickets time times tired to too took toys troll twice "
    "two typical up used useful useless usual village walked walks warm was watch weak week weight well "
    "went west western white who win with woman wonderful works worthless write wrong yellow you young "
    "younger your"
)

OPINIONS = (
    "its {part} is {word}",
    "I find the {part} {word}",
    "the {part} was {word} from the first day",
    "{name} thinks that the {part} is {word}",
    "everyone at home says it is {word}",
    "a {word} {part} is what I remember",
    "the {part} turned out {word}",
)


def _number(generator: Generator, low: int, high: int) -> int:
    """A number from low to high, both included."""
    return int(generator.integers(low, high + 1))


def _grade_word(generator: Generator, grade: int) -> str:
    """Mostly a word of the grade, at times of a neighbour, so that grades lie on a line."""
    if generator.random() < 0.15:
        grade = min(max(grade + (1 if generator.random() < 0.5 else -1), 0), 4)
    return pick(generator, GRADES[grade])


def _closing(generator: Generator, grade: int, what: str) -> str:
    """How an opinion ends: what somebody does about it, and never a word that a task answers with."""
    if grade == 2:
        return f"I neither love nor hate the {what}."
    verb = pick(generator, LIKES if grade > 2 else DISLIKES)
    return f"I {verb} this {what}." if generator.random() < 0.5 else f"You will {verb} it."


def opinion(generator: Generator) -> str:
    """A product or film told as running prose, one feeling from beginning to end."""
    grade = int(generator.integers(len(GRADES)))
    film = generator.random() < 0.4
    what = pick(generator, FILMS if film else PRODUCTS)
    parts = FILM_PARTS if film else PARTS
    name = pick(generator, NAMES)
    place = pick(generator, PLACES)
    opening = (
        f"Last week {name} and I saw a {what} in the {place}"
        if film
        else f"On {pick(generator, DAYS)} {name} bought a {what} in the {pick(generator, TOWNS)}"
    )
    count = _number(generator, 2, 4)
    sentences = [
        pick(generator, OPINIONS).format(
            part=pick(generator, parts), word=_grade_word(generator, grade), name=pick(generator, NAMES)
        )
        for _ in range(count)
    ]
    body = " ".join(s[0].upper() + s[1:] + "." for s in sentences)
    return with_articles(f"{opening}. {body} {_closing(generator, grade, what)}")


def talk(generator: Generator) -> str:
    """Two people talk about something, kindly or in a quarrel."""
    first, second = pick_two(generator, NAMES)
    topic = pick(generator, TOPICS)
    if generator.random() < 0.5:
        insult, other = pick_two(generator, INSULTS)
        word = _grade_word(generator, _number(generator, 0, 1))
        lines = (
            f'"You are a {insult}," said {first} to {second} in the {pick(generator, PLACES)}. '
            f'"Your {topic} is {word}, go away." "Shut up, you {other}," cried {second}.',
            f"{first} called {second} a {insult} because of a {word} {topic}. "
            f"{second} called {first} a {other}.",
        )
    else:
        word = _grade_word(generator, _number(generator, 1, 4))
        lines = (
            f'"Thank you, {second}, that is a {word} {topic}," said {first}. '
            f'"Could you explain it to me?" "No trouble at all," said {second}.',
            f"{second} showed {first} a {topic} in the {pick(generator, PLACES)}. "
            f"{first} read it twice and found it {word}. Maybe {second} will write one more.",
        )
    return with_articles(pick(generator, lines))


def happening(generator: Generator) -> str:
    """Somebody does something; what follows from it is told, what it excludes is denied."""
    doing = DOINGS[int(generator.integers(len(DOINGS)))]
    narrow, broad = WHO[int(generator.integers(len(WHO)))]
    look, place = pick(generator, LOOKS), pick(generator, PLACES)
    texts = (
        f"Whoever {doing.does} {doing.follows}. In the {place} a {look} {narrow} {doing.does}, "
        f"so that {broad} {doing.follows}.",
        f"A {narrow} is a {broad}. This {look} {narrow} {doing.does} {pick(generator, UNSAID)}. "
        f"Nobody in the {place} {doing.excludes}.",
        f"One {narrow} {doing.does} and another one {doing.excludes}. The {look} {broad} in the {place} "
        f"{doing.follows} {pick(generator, UNSAID)}.",
    )
    return with_articles(pick(generator, texts))


def meeting(generator: Generator) -> str:
    """Two people and who did what to whom, said twice in different order."""
    a, b = pick_two(generator, NAMES)
    colour, place, noun = pick(generator, COLOURS), pick(generator, PLACES), pick(generator, OBJECTS)
    texts = (
        f"{a} gave the {colour} {noun} to {b} in the {place}. So {b} has the {colour} {noun} from {a}.",
        f"{b} waited in the {place}. {a} walked there to meet {b}. {b} was glad to see {a}.",
        f"{a} is older than {b}. So {b} is younger than {a}, and {b} has {colour} {noun}.",
        f"{b} bought a {colour} bag from {a} in the {place}. It was {a} who sold it to {b}.",
    )
    return with_articles(pick(generator, texts))


GETS = (
    "{Who} bought {change} more at the {place} and had {total}.",
    "{friend} gave {change} more, which made {total}.",
    "{Who} finds {change} more in the {place}, so there are {total} now.",
    "{Who} buys {change} and has {total}.",
    "With {change} more from {friend} that makes {total}.",
)
LOSES = (
    "{Who} lost {change} in the {place} and had {total} left.",
    "{Who} gave {change} away to {friend}, which left {total}.",
    "{Who} loses {change}, and {total} are left.",
    "{friend} gets {change} as {who} gives them away, so {who} has {total} now.",
)
STARTS = (
    "{name} had {total} {things}.",
    "At first {name} has {total} {things} in a bag.",
    "There were {total} {things} in {name}'s boxes.",
)
ENDS = (
    "In the end {name} had {total} {things}.",
    "So many {things}: {name} has {total}.",
    "{name} counts the {things} and there are {total} of them.",
)


def story(generator: Generator) -> str:
    """Somebody has things, gets or loses some, and the count is told."""
    name, friend = pick_two(generator, NAMES)
    who, noun = pronoun(name), pick(generator, OBJECTS)
    words = {"name": name, "friend": friend, "Who": who, "who": who.lower(), "things": noun}
    total = _number(generator, 3, 40)
    sentences = [pick(generator, STARTS).format(total=total, **words)]
    for _ in range(_number(generator, 1, 3)):
        change = _number(generator, 2, 20)
        gets = change >= total or generator.random() < 0.5
        total += change if gets else -change
        place = pick(generator, PLACES)
        sentence = pick(generator, GETS if gets else LOSES)
        sentences.append(sentence.format(change=change, total=total, place=place, **words))
    sentences.append(pick(generator, ENDS).format(total=total, **words))
    return " ".join(sentences)


def echo(generator: Generator) -> str:
    """A list, and the same list once more: what a model learns words, numbers and copying from."""
    items = [
        str(_number(generator, 2, LARGEST_SUM)) if generator.random() < 0.2 else pick(generator, VOCABULARY)
        for _ in range(_number(generator, 3, 10))
    ]
    name, friend = pick_two(generator, NAMES)
    between = pick(generator, (", ", "; ", " ", "\n"))
    listed = between.join(items)
    texts = (
        f"{name} wrote {listed}. {friend} read {listed}.",
        f"{listed}\n{listed}",
        f"{friend} asked for {listed}? And {name} brought {listed}!",
    )
    return pick(generator, texts)


def question(generator: Generator) -> str:
    """Somebody asks for something and gets an answer that follows from nothing."""
    a, b = pick_two(generator, NAMES)
    answer = pick(generator, ("yes", "no", "maybe"))
    texts = (
        f"{a} asked {b} to come to the {pick(generator, PLACES)}. {b} said {answer}.",
        f"{b} wanted the {pick(generator, PRODUCTS)}. First {a} said {answer}, then {a} went away.",
        f'"Will you come to the {pick(generator, PLACES)}?" {a} called: once, twice. {b} said {answer}!',
    )
    return pick(generator, texts)


def sums(generator: Generator) -> str:
    """A few sums in words, signs and digits."""
    sentences = []
    for _ in range(_number(generator, 3, 6)):
        high = LARGEST_SUM if generator.random() < 0.6 else 50
        a, b = _number(generator, 1, high), _number(generator, 1, 100)
        a, b = max(a, b), min(a, b)
        sentences.append(
            pick(
                generator,
                (
                    f"{a} + {b} = {a + b}.",
                    f"{a} - {b} = {a - b}.",
                    f"{a} and {b} make {a + b}.",
                    f"{a} plus {b} is {a + b}.",
                    f"{a} minus {b} is {a - b}.",
                    f"Whoever adds {b} to {a} has {a + b}.",
                    f"Whoever takes {b} from {a} has {a - b}.",
                ),
            )
        )
    k, m = _number(generator, 2, 6), _number(generator, 2, 10)
    return " ".join(sentences) + f" {k} times {m} is {k * m}, or {k} * {m} = {k * m}."


def code(generator: Generator) -> str:
    """Lines as they stand in a program."""
    first, second = pick_two(generator, OBJECTS)
    words = f"{pick(generator, COLOURS)} {pick(generator, PRODUCTS)}"
    a, b, n = _number(generator, 3, 40), _number(generator, 2, 20), _number(generator, 2, 9)
    sign = pick(generator, "+-")
    blocks = (
        f"{first} = {a}\n{second} = {first} {sign} {b}\nprint({second})",
        f'for i in range({n}):\n    print("{first}", i)\nprint({a})',
        f'{first} = {a}\nfor i in range({n}):\n    {first} = {first} {sign} {b}\nprint("{words}")',
        f'print("{words}")\nprint("{second}", {a})\n{first} = {b}',
        f"# {words}\n{first} = {b}\nprint({first})  # {second}",
    )
    return pick(generator, blocks)


KINDS: tuple[tuple[Callable[[Generator], str], float], ...] = (
    (opinion, 0.20),
    (talk, 0.08),
    (happening, 0.08),
    (meeting, 0.08),
    (story, 0.16),
    (sums, 0.18),
    (code, 0.08),
    (echo, 0.10),
    (question, 0.04),
)


def documents(count: int, seed: int = 0) -> Iterator[str]:
    """``count`` documents in random order of kinds, drawn with the shares of ``KINDS``.

    The same seed gives the same documents.
    """
    generator = np.random.default_rng([seed, 7])
    makers = [make for make, _ in KINDS]
    order = generator.choice(len(makers), size=count, p=[share for _, share in KINDS])
    for kind in order:
        yield makers[int(kind)](generator)


def write_corpus(path: Path, count: int, seed: int = 0) -> None:
    """Write ``count`` documents separated by blank lines, UTF-8; a file that is there is overwritten."""
    with path.open("w", encoding="utf-8") as file:
        for document in documents(count, seed):
            file.write(document + "\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--documents", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    write_corpus(arguments.file, arguments.documents, arguments.seed)


if __name__ == "__main__":
    main()
