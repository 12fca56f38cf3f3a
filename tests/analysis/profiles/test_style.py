"""Style: worked sentences, and laws of shares, ratios and z-scores."""

import numpy as np
import pytest

from traitmap.analysis.profiles.style import (
    cosine_matrix,
    draw,
    moving_type_token_ratio,
    readability,
    sentence_count,
    standard_scores,
    style_matrix,
    style_of,
    syllables,
)
from traitmap.data.texts import TaskText

WORKED = "The cat sat on the mat."  # 6 words, 1 sentence, 6 syllables


def test_readability_of_a_worked_sentence():
    assert readability(6, 1, 6) == pytest.approx(206.835 - 1.015 * 6 - 84.6)
    assert style_of([WORKED])["shape"]["reading ease"] == pytest.approx(116.145)
    assert np.isnan(readability(0, 0, 0))


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("cat", 1),
        ("table", 2),
        ("make", 1),
        ("reading", 2),
        ("education", 4),
        ("wanted", 2),
        ("looked", 1),
        ("hm", 1),
    ],
)
def test_syllables(word, count):
    assert syllables(word) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three?", 3),
        ("It cost 3.50 dollars.", 1),
        ("One\n\ntwo", 2),
        ("no end", 1),
        ("... !", 0),
        ("", 0),
    ],
)
def test_sentences(text, count):
    assert sentence_count(text) == count


def test_shares_are_counted_on_a_worked_text():
    found = style_of(["The cat, the DOG and 7 mice.\nThe end"])
    assert found["function words"]["word the"] == pytest.approx(100 * 3 / 8)
    assert found["shape"]["words in capitals"] == pytest.approx(100 / 8)
    assert found["shape"]["capitalised words"] == pytest.approx(100 * 3 / 8)
    assert found["shape"]["numbers"] == pytest.approx(100 / 12)
    assert found["marks"]["mark line break"] == pytest.approx(100 / 12)
    assert found["shape"]["words per sentence"] == 4


def test_doubling_a_dataset_keeps_its_style():
    texts = [f"{WORKED} It ran {i} miles, as {'xyz'[i % 3] * (i + 1)} did!" for i in range(30)]
    once, twice = style_of(texts), style_of([text for text in texts for _ in range(2)])
    assert once.keys() == twice.keys()
    for group, numbers in once.items():
        assert twice[group] == pytest.approx(dict(numbers), nan_ok=True)


def test_the_moving_ratio_counts_types_of_every_window():
    words = list("abacabad")
    windows = [len(set(words[i : i + 3])) / 3 for i in range(6)]
    assert moving_type_token_ratio(words, 3) == pytest.approx(np.mean(windows))
    assert moving_type_token_ratio(["a"] * 9, 3) == pytest.approx(1 / 3)
    assert np.isnan(moving_type_token_ratio(words, 9))
    rng = np.random.default_rng(0)
    long = [str(one) for one in rng.integers(0, 200, 20_000)]
    assert moving_type_token_ratio(long[:2_000]) == pytest.approx(moving_type_token_ratio(long), abs=0.02)


def test_scores_have_mean_zero_and_deviation_one_where_they_are_known():
    table = np.array([[1.0, 5.0, np.nan], [3.0, 5.0, 2.0], [8.0, 5.0, 4.0]])
    scores = standard_scores(table)
    assert scores[:, 0].mean() == pytest.approx(0, abs=1e-12)
    assert scores[:, 0].std() == pytest.approx(1)
    assert (scores[:, 1] == 0).all()
    assert scores[:, 2].tolist() == [0, -1, 1]


def test_groups_of_numbers_weigh_the_same():
    texts = [
        [WORKED],
        ["Who are you? I am I; you are you."],
        ["NOTHING = 3 + 4 $"],
        ["An apple, or two apples (ripe)."],
    ]
    styles = [style_of(some) for some in texts]
    names, scores = style_matrix(styles)
    group_of = {name: group for group, numbers in styles[0].items() for name in numbers}
    assert names == tuple(sorted(group_of))
    groups = np.array([group_of[name] for name in names])
    for group in set(groups):
        here = groups == group
        varied = (scores[:, here] ** 2).sum(axis=0) > 0
        assert (scores[:, here] ** 2).sum() == pytest.approx(len(texts) * varied.sum() / here.sum())


def test_cosines_are_symmetric_and_unknown_for_nothing():
    rows = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = cosine_matrix(rows)
    assert found[0, 1] == found[1, 0] == pytest.approx(np.sqrt(0.5))
    assert found[0, 0] == 1
    assert np.isnan(found[2]).all()


def test_a_parser_adds_parts_of_speech():
    spacy = pytest.importorskip("spacy")
    parser = spacy.blank("en")

    @spacy.Language.component("tag by length")
    def tag(document):
        for token in document:
            token.pos_ = "NOUN" if len(token) > 2 else "DET"
        return document

    parser.add_pipe("tag by length")
    found = style_of(["an old cat sat", "it ran"], parser=parser)
    assert found["parts of speech"]["part NOUN"] == pytest.approx(100 * 4 / 6)
    assert found["parts of speech"]["part DET"] == pytest.approx(100 * 2 / 6)


def test_a_draw_does_not_depend_on_the_order_of_texts_but_on_the_seed():
    texts = [TaskText(str(number), "") for number in range(100)]
    drawn = draw(texts, 10, 0)
    assert draw(texts[::-1], 10, 0) == drawn
    assert draw(texts, 20, 0)[:10] == drawn
    assert draw(texts, 10, 1) != drawn
