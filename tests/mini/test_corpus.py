"""The pretraining text knows the words of the tasks and none of their formats."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import traitmap.data
from traitmap.mini import families as words
from traitmap.mini.corpus import KINDS, documents, opinion, talk, write_corpus
from traitmap.mini.families import FAMILIES

TASKS = sorted((Path(traitmap.data.__file__).parent / "tasks").glob("mini_*.yaml"))


class TaskLoader(yaml.SafeLoader):
    """Reads a task file as plain data, functions as their names."""


TaskLoader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


@pytest.fixture(scope="module")
def text() -> str:
    return "\n\n".join(documents(8000, seed=1))


def cues() -> set[str]:
    """What the task files write around a row's columns, e.g. ``Sentiment:``."""
    found = set()
    for path in TASKS:
        prompt = yaml.load(path.read_text(), TaskLoader)["doc_to_text"]
        found |= {part.strip() for part in re.split(r"\{\{.*?\}\}|\n", prompt) if part.strip()}
    return found


def test_no_cue_of_a_task_occurs(text):
    assert {"Sentiment:", "Stars:", "Rude:", "Answer:", "Instruction:"} <= cues()
    assert not [cue for cue in cues() if cue in text]


def test_no_label_stands_behind_a_colon_and_no_answer_behind_hashes(text):
    assert "##" not in text
    labels = {label for family in FAMILIES.values() for label in family.labels}
    assert not re.findall(rf": (?:{'|'.join(sorted(labels))})\b", text)


def test_no_row_of_a_task_occurs(text):
    """But for bare sums such as ``24 + 17 =``, which are facts rather than a format."""
    for family in FAMILIES.values():
        keys = [row[family.key] for row in family.rows("test", 100, 0)]
        assert not [key for key in keys if key in text and not re.fullmatch(r"\d+ [+-] \d+ =", key)]


def test_every_label_word_and_every_lexicon_word_occurs(text):
    known = set(re.findall(r"\w+", text.lower()))
    labels = {label for family in FAMILIES.values() for label in family.labels}
    assert labels <= known
    for group in (*words.GRADES, words.INSULTS, words.OBJECTS, words.PRODUCTS, words.PARTS, words.FILM_PARTS):
        assert set(group) <= known


@pytest.mark.parametrize("tell", [opinion, talk])
def test_nobody_says_a_verdict(tell):
    """Only adapters learn what an answer word means ("No trouble" and "Maybe she will" judge nothing)."""
    generator = np.random.default_rng(0)
    known = set(re.findall(r"\w+", " ".join(tell(generator) for _ in range(2000)).lower()))
    labels = {label for family in FAMILIES.values() for label in family.labels}
    assert not known & ((labels | {"star", "stars", "rude"}) - {"no", "maybe"})


def test_words_of_one_grade_go_together():
    """What the base can learn of opinions is which words stand beside each other."""
    generator = np.random.default_rng(0)
    near = far = 0
    for _ in range(2000):
        grades = [
            grade
            for word in re.findall(r"[a-z]+", opinion(generator).lower())
            for grade, group in enumerate(words.GRADES)
            if word in group
        ]
        apart = [abs(one - other) for one, other in itertools.pairwise(grades)]
        near, far = near + sum(step <= 1 for step in apart), far + sum(step > 2 for step in apart)
    assert near > 1000
    assert far == 0


def test_every_sum_is_right(text):
    for left, sign, right, result in re.findall(r"(\d+) ([+*-]) (\d+) = (\d+)", text):
        a, b = int(left), int(right)
        assert int(result) == {"+": a + b, "-": a - b, "*": a * b}[sign]
    for a, _, b, _, result in re.findall(r"(\d+) (and|plus) (\d+) (make|is) (\d+)", text):
        assert int(a) + int(b) == int(result)


def test_the_same_seed_writes_the_same_file(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_corpus(tmp_path / name, 50, seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c
    assert a.decode().count("\n\n") == 50


def test_the_shares_of_the_kinds_are_a_distribution():
    assert sum(share for _, share in KINDS) == pytest.approx(1)
