"""Overlap of vocabularies, on words that can be counted by hand."""

from collections import Counter

import numpy as np
import pytest

from traitmap.analysis.profiles.classes import vocabulary_overlap
from traitmap.analysis.profiles.style import TOKEN, vocabulary


def read(texts: list[str]) -> Counter[str]:
    return vocabulary([TOKEN.findall(text) for text in texts])


def test_overlap_counted_by_hand():
    first, second, none = read(["A cat. A dog"]), read(["the CAT, the cat, a mouse"]), Counter()
    assert first == {"a": 2, "cat": 1, "dog": 1}
    jaccard, coverage = vocabulary_overlap([first, second, none], [first, second])
    assert jaccard[0, 1] == pytest.approx(2 / 5)
    assert coverage[0, 1] == pytest.approx(3 / 6)
    assert coverage[1, 0] == pytest.approx(3 / 4)
    assert jaccard[0, 0] == coverage[1, 1] == 1
    assert np.isnan(jaccard[2]).all()
    assert np.isnan(coverage[2]).all()


def test_words_of_any_script_are_words():
    assert read(["Ærø, l'été don’t 3,5 ٣"]) == Counter(["ærø", "l'été", "don’t", "3,5", "٣"])
