"""How long does it take to profile a hundred datasets of 5,000 texts each, and where does the time go?

    python benchmarks/profiles.py              100 datasets x 5,000 texts, one process
    python benchmarks/profiles.py 20 1000      another number of datasets and texts

Texts are generated (reviews, inference, multiple choice, word problems, free text; 20 to 200 words), so that
nothing is downloaded. Prints seconds of wall time and of processor time, and the largest memory.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Callable

from traitmap.analysis.profiles.datasets import profile_datasets
from traitmap.analysis.profiles.pairs import pair_features
from traitmap.data.texts import TaskText

SYLLABLES = (
    "ba",
    "de",
    "fi",
    "go",
    "lu",
    "ma",
    "ne",
    "pi",
    "ro",
    "su",
    "ta",
    "ve",
    "wi",
    "cha",
    "dre",
    "flo",
)
FUNCTION = ("the", "a", "of", "to", "and", "in", "is", "that", "it", "was", "for", "on", "with", "as", "not")


def sentence(rng: random.Random, lexicon: list[str]) -> str:
    """About twelve words, half of them function words, the others as unequal in frequency as real ones."""
    words = [
        rng.choice(FUNCTION) if rng.random() < 0.45 else lexicon[int(rng.paretovariate(0.7)) % len(lexicon)]
        for _ in range(rng.randint(8, 16))
    ]
    return " ".join(words).capitalize() + "."


def review(rng: random.Random, text: str, other: str) -> TaskText:
    label = rng.choice(["negative", "positive"])
    return TaskText(f"Review: {text}\nSentiment:", f" {label}", ("negative", "positive"), label)


def inference(rng: random.Random, text: str, other: str) -> TaskText:
    return TaskText(
        f"{text}\nQuestion: {other}. True, False or Neither?", rng.choice(["True", "False", "Neither"])
    )


def choice(rng: random.Random, text: str, other: str) -> TaskText:
    return TaskText(f"{text}\nWhat follows?\nA. {other}\nB. {text[:40]}", rng.choice("AB"), ("A", "B"))


def problem(rng: random.Random, text: str, other: str) -> TaskText:
    first, second = rng.randrange(1000), rng.randrange(1000)
    return TaskText(
        f"{text} {first} and {second}. How many?",
        f"{first} + {second} = {first + second}\n#### {first + second}",
    )


def free(rng: random.Random, text: str, other: str) -> TaskText:
    return TaskText("", f"{text} {other}")


KINDS: tuple[Callable[[random.Random, str, str], TaskText], ...] = (review, inference, choice, problem, free)


def datasets(count: int, texts: int) -> dict[str, list[TaskText]]:
    """Datasets of five kinds, each with its own lexicon and length."""
    made = {}
    for number in range(count):
        rng = random.Random(number)
        lexicon = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(4000)]
        sentences = [sentence(rng, lexicon) for _ in range(3000)]
        length = rng.randint(2, 18)
        kind = KINDS[number % len(KINDS)]
        made[f"{kind.__name__} {number}"] = [
            kind(
                rng,
                " ".join(rng.choices(sentences, k=max(1, round(rng.gauss(length, length / 4))))),
                rng.choice(sentences),
            )
            for _ in range(texts)
        ]
    return made


def main() -> None:
    count, texts = (int(value) for value in (sys.argv[1:] or (100, 5_000)))
    began = time.perf_counter()
    made = datasets(count, texts)
    words = sum(len(text.input.split()) + len(text.output.split()) for some in made.values() for text in some)
    print(
        f"{count} datasets x {texts} texts, {words / 1e6:.1f} M words, "
        f"made in {time.perf_counter() - began:.0f} s"
    )
    for name, work in (
        ("profile_datasets", lambda: profile_datasets(made).to_json()),
        ("pair_features", lambda: pair_features(made, made)),
    ):
        began, processor = time.perf_counter(), time.process_time()
        work()
        seconds, used = time.perf_counter() - began, time.process_time() - processor
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{name}: {seconds:.1f} s, {used:.1f} s of processor time, largest memory {memory:.1f} GiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
