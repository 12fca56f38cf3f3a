"""Forms of questions and answers, on one example of each."""

import pytest

from traitmap.analysis.profiles.style import (
    answer_form,
    copied_share,
    forms_of,
    marker_shares,
    question_form,
)
from traitmap.data.texts import TaskText

CLASSES = frozenset({"positive", "neutral", "4"})
PASSAGE = "Anna left for Rome on Friday. Ben stayed at home."


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (TaskText("Is it so?", "Yes."), "polar"),
        (TaskText("Is it so?", " False", ("True", "False", "Neither")), "polar"),
        (TaskText("Which?\nA. this\nB. that", "B", ("A", "B")), "option"),
        (TaskText("Which?\nEnding 1: so\nEnding 2: thus", "Ending 2", ("Ending 1", "Ending 2")), "option"),
        (TaskText("How was it? Dull.", "4", ("1", "2", "3", "4", "5")), "class"),
        (TaskText("How many?", "-1,250.5"), "number"),
        (TaskText("How was it? Fine.", "positive"), "class"),
        (TaskText(PASSAGE + " Who left, Anna or Ben?", "Anna", ("Anna", "Ben")), "listed"),
        (TaskText(PASSAGE + " When?", "on Friday"), "span"),
        (TaskText(PASSAGE, "A quiet week"), "short"),
        (TaskText(PASSAGE, "There is nothing in the text that says so."), "long"),
        (TaskText(PASSAGE, "  "), "unknown"),
    ],
)
def test_answer_forms(text, form):
    assert answer_form(text, CLASSES) == form


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Does Anna live in Rome?", "polar"),
        (PASSAGE + "\nAnna is home. True or false?", "polar"),
        (PASSAGE + "\nWhere did Anna go?\nAnswer:", "wh"),
        (PASSAGE + " Positive, or negative?", "question"),
        ("Anna hid the key in the _ near Ben.", "blank"),
        ("Choose.\n- the red one\n- the blue one", "options"),
        (PASSAGE, "statement"),
        ("Anna left and then", "unfinished"),
        (" ", "none"),
    ],
)
def test_question_forms(text, form):
    assert question_form(text) == form


def test_shares_add_up_and_copies_are_counted():
    texts = [
        TaskText(PASSAGE + " When?", "Friday morning"),
        TaskText("Say it.", "7"),
        TaskText("Say it.", ""),
    ]
    found = forms_of(texts, frozenset())
    assert sum(found.answers.values()) == pytest.approx(1)
    assert sum(found.questions.values()) == pytest.approx(1)
    assert found.copied == pytest.approx(0.25)
    assert copied_share(texts[0]) == 0.5
    assert (found.chosen, found.texts) == (0, 3)


def test_two_like_parts_are_a_pair_and_a_repeated_part_is_contained():
    paraphrase = TaskText("Anna reached Rome late Friday.\nLate Friday Anna reached Rome.", "yes")
    inference = TaskText(f"{PASSAGE} Nobody called.\nQuestion: Ben stayed home", "yes")
    review = TaskText("Awful acting throughout. Avoid buying this again.", "no")
    pair = {
        name: forms_of([text], frozenset())
        for name, text in (("paraphrase", paraphrase), ("inference", inference), ("review", review))
    }
    assert pair["paraphrase"].pair == 1
    assert pair["inference"].contained == 1
    assert pair["review"].pair == pair["review"].contained == 0


def test_markers_of_format():
    found = marker_shares(["The sum is $x + 1$.\n#### 42", "def run(x):\n    return x", "plain words"])
    assert found["latex"] == found["steps"] == found["code"] == pytest.approx(1 / 3)
    assert found["line_breaks"] == pytest.approx(2 / 3)
    assert found["bullets"] == found["markup"] == 0
