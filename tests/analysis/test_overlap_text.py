"""What of a text is its task's template: the quick search agrees with the definition, word by word."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from traitmap.analysis.overlap import Words, by_first_word, find_template, worded

WORDS = st.lists(st.sampled_from("abcd"), max_size=9).map(tuple)
PHRASES = st.frozensets(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3).map(tuple), max_size=4)


def own_words(words: Words, fixed_head: Words, fixed_tail: Words, middle: frozenset[Words]) -> list[bool]:
    """By the definition: neither in the common beginning or end nor in a phrase, wherever it stands."""
    head = tail = 0
    while head < min(len(words), len(fixed_head)) and words[head] == fixed_head[head]:
        head += 1
    while tail < min(len(words) - head, len(fixed_tail)) and words[-1 - tail] == fixed_tail[-1 - tail]:
        tail += 1
    phrases = {
        place + offset
        for phrase in middle
        for place in range(len(words))
        if words[place : place + len(phrase)] == phrase
        for offset in range(len(phrase))
    }
    return [head <= place < len(words) - tail and place not in phrases for place in range(len(words))]


@given(WORDS, WORDS, WORDS, PHRASES)
def test_fields_are_the_longest_runs_of_words_beyond_the_template(
    words: Words, head: Words, tail: Words, middle: frozenset[Words]
) -> None:
    expected = own_words(words, head, tail, middle)
    found = worded(words, (head, tail, by_first_word(middle)))
    inside = {place for start, end in found.fields for place in range(start, end)}
    assert [place in inside for place in range(len(words))] == expected
    assert all(start < end for start, end in found.fields)
    assert all(one[1] < two[0] for one, two in zip(found.fields, found.fields[1:], strict=False))
    assert found.size == sum(expected)
    assert found.content == tuple(word for word, own in zip(words, expected, strict=True) if own)


@given(st.lists(WORDS, min_size=20, max_size=24))
def test_the_phrases_of_a_template_stand_equally_often_in_nine_of_ten_texts(texts: list[Words]) -> None:
    times: dict[Words, Counter[int]] = {}
    for text in texts:
        grams = [text[at : at + size] for size in (1, 2, 3) for at in range(len(text) - size + 1)]
        for gram, count in Counter(grams).items():
            times.setdefault(gram, Counter())[count] += 1
    expected = {gram for gram, counts in times.items() if max(counts.values()) >= 0.9 * len(texts)}
    first = Counter(gram for gram in expected for text in texts[:20] if _stands(gram, text))
    phrases = {gram for grams in find_template(texts)[2].values() for gram in grams}
    assert phrases == {gram for gram in expected if first[gram] >= 14}


def _stands(gram: Words, text: Words) -> bool:
    return any(text[at : at + len(gram)] == gram for at in range(len(text)))
