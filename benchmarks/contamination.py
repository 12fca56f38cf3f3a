"""How many planted copies are found, how many findings are wrong, and how long does it take?

    python benchmarks/contamination.py              20 sources x 10,000 texts x 20 targets x 1,000 items
    python benchmarks/contamination.py 5 2000       5 sources and targets, 2,000 texts a source

Texts are drawn from a vocabulary with word frequencies as in language (Zipf), under a template of each task;
half of the sources share their template with a target. One copy in every hundred texts is planted, in one of
six disguises. A finding that was not planted is wrong. Beside it stands MinHash with banding (datasketch),
as it is mostly used, on the same copies: five-word shingles, Jaccard 0.5.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from datasketch import MinHash, MinHashLSH

from traitmap.analysis.contamination import find_contamination
from traitmap.analysis.overlap import words_of
from traitmap.data.texts import TaskText

VOCABULARY, ITEMS = 30_000, 1000
TEMPLATES = [
    f"Task {number}. Read what somebody wrote and decide.\nText: {{}}\nWhich is it, {number} or not? Say:"
    for number in range(1000)
]


def language(draw: np.random.Generator, count: int, shortest: int = 8, longest: int = 80) -> list[list[str]]:
    """Texts of words whose frequency falls with their rank."""
    weights = 1 / np.arange(3, VOCABULARY + 3)
    lengths = draw.integers(shortest, longest, count)
    words = draw.choice(VOCABULARY, lengths.sum(), p=weights / weights.sum())
    return [[f"w{word}" for word in part] for part in np.split(words, np.cumsum(lengths)[:-1])]


def _replaced(words: Sequence[str], draw: np.random.Generator) -> list[str]:
    changed = list(words)
    for place in range(int(draw.integers(9)), len(changed), 13):
        changed[place] = "other"
    return changed


DISGUISES: dict[str, Callable[[Sequence[str], np.random.Generator], list[str]]] = {
    "equal": lambda words, draw: list(words),
    "other case and commas": lambda words, draw: [word.upper() + "," for word in words],
    "within a longer text": lambda words, draw: [*language(draw, 1)[0], *words, *language(draw, 1, 40)[0]],
    "every 13th word replaced": _replaced,
    "first tenth cut": lambda words, draw: list(words[max(1, len(words) // 10) :]),
    "two words put in": lambda words, draw: [*words[:5], "put", *words[5:9], "in", *words[9:]],
}


def planted(
    count: int, texts: int
) -> tuple[dict[str, list[TaskText]], dict[str, list[TaskText]], list[tuple]]:
    """Sources, targets, and what was planted: (source, target, item, disguise)."""
    draw = np.random.default_rng(1)
    items = [language(draw, ITEMS) for _ in range(count)]
    targets = {
        f"target{t}": [TaskText(TEMPLATES[t].format(" ".join(words)), " yes") for words in own]
        for t, own in enumerate(items)
    }
    sources, truth = {}, []
    names = list(DISGUISES)
    for s in range(count):
        training = language(draw, texts)
        for place in range(0, texts, 100):
            t, item, disguise = (
                int(draw.integers(count)),
                int(draw.integers(ITEMS)),
                names[(place // 100) % 6],
            )
            training[place] = DISGUISES[disguise](items[t][item], draw)
            truth.append((f"source{s}", f"target{t}", item, disguise, len(items[t][item])))
        template = TEMPLATES[s if s % 2 else 500 + s]
        sources[f"source{s}"] = [TaskText(template.format(" ".join(words)), " no") for words in training]
    return sources, targets, truth


def minhash_pairs(
    sources: dict[str, list[TaskText]], targets: dict[str, list[TaskText]]
) -> set[tuple[str, str, int]]:
    """Touched items by MinHash and banding, without verification."""

    def shingles(text: str) -> list[bytes]:
        words = words_of(text)
        return [" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))]

    index = MinHashLSH(threshold=0.5, num_perm=128)
    for target, own in targets.items():
        for item, made in enumerate(
            MinHash.bulk([shingles(text.input) for text in own], num_perm=128, seed=1)
        ):
            index.insert((target, item), made)
    found = set()
    for source, own in sources.items():
        for made in MinHash.bulk([shingles(text.input) for text in own], num_perm=128, seed=1):
            found |= {(source, target, item) for target, item in index.query(made)}
    return found


def told(name: str, found: set[tuple[str, str, int]], truth: list[tuple], seconds: float) -> None:
    """Recall by disguise, precision and time of one method."""
    places = {row[:3] for row in truth}
    every, hit = Counter(row[3] for row in truth), Counter(row[3] for row in truth if row[:3] in found)
    print(f"{name}: {seconds:.0f} s, {len(found):,} touched, {len(found - places)} of them not planted")
    for disguise in every:
        missed = [row[4] for row in truth if row[3] == disguise and row[:3] not in found]
        lengths = f" (missed: {min(missed)} to {max(missed)} words)" if missed else ""
        print(f"  {disguise}: {100 * hit[disguise] / every[disguise]:.1f} % of {every[disguise]}{lengths}")


def main() -> None:
    asked = [int(word) for word in sys.argv[1:]] or [20, 10_000]
    count, texts = asked
    sources, targets, truth = planted(count, texts)
    print(
        f"{count} sources x {texts:,} texts, {count} targets x {ITEMS:,} items, {len(truth):,} copies planted"
    )
    started = time.perf_counter()
    result = find_contamination(sources, targets)
    seconds = time.perf_counter() - started
    found = {(one.source, one.target, item) for one in result.overlaps for item in one.touched}
    told("traitmap", found, truth, seconds)
    started = time.perf_counter()
    found = minhash_pairs(sources, targets)
    told("MinHash LSH", found, truth, time.perf_counter() - started)


if __name__ == "__main__":
    main()
