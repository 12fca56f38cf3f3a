"""Rows of our own in the columns, types and splits of the hub datasets that packs name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
COUNT = 8
LETTERS = ["A", "B", "C", "D", "E"]


def rows(*columns: dict[str, Any]) -> Rows:
    """Eight rows; of each column either the same value, or what a function makes of the row's number."""
    joined = {key: value for part in columns for key, value in part.items()}
    return [
        {key: value(n) if callable(value) else value for key, value in joined.items()} for n in range(COUNT)
    ]


def numbered(text: str) -> Callable[[int], str]:
    return lambda n: f"{text} {n}"


def labelled_choices(count: int) -> dict[str, Any]:
    return {
        "choices": lambda n: {"label": LETTERS[:count], "text": [f"thing {n}-{at}" for at in range(count)]},
        "answerKey": lambda n: LETTERS[n % count],
    }


QUESTION = {"question": lambda n: f"Which thing has number {n}?"}
FOUR = {"choices": lambda n: [f"thing {n}-{at}" for at in range(4)], "answer": lambda n: n % 4}
STORY = {f"input_sentence_{at}": numbered(f"Part {at} of story") for at in range(1, 5)} | {
    "sentence_quiz1": lambda n: f"It ended well {n}.",
    "sentence_quiz2": lambda n: f"It ended badly {n}.",
    "answer_right_ending": lambda n: 1 + n % 2,
}
BELEBELE = {
    "flores_passage": lambda n: f"A passage of number {n}.",
    "question": lambda n: f"What number is it? {n}",
    **{f"mc_answer{at}": numbered(f"{at} or") for at in range(1, 5)},
    "correct_answer_num": lambda n: str(1 + n % 4),
}
SYCOPHANCY = {
    "question": lambda n: f"I am {n} years old. Do you agree with me? (A) Agree (B) Disagree",
    "answer_matching_behavior": lambda n: " (A)" if n % 2 else " (B)",
    "answer_not_matching_behavior": lambda n: " (B)" if n % 2 else " (A)",
}
NO_DATE = {"day": "", "month": "", "year": ""}

# (dataset, subset) -> (rows, splits)
LAYOUTS: dict[tuple[str, str | None], tuple[Rows, list[str]]] = {
    ("allenai/ai2_arc", "ARC-Easy"): (rows(QUESTION, labelled_choices(4)), ["train", "validation", "test"]),
    ("allenai/sciq", None): (
        rows(
            QUESTION,
            {f"distractor{at}": numbered(f"wrong {at}") for at in (1, 2, 3)},
            {"correct_answer": lambda n: f"right {n}", "support": lambda n: f"Thing {n} is right."},
        ),
        ["train", "validation", "test"],
    ),
    ("cais/mmlu", "miscellaneous"): (rows(QUESTION, FOUR), ["test", "validation", "dev"]),
    ("tau/commonsense_qa", None): (rows(QUESTION, labelled_choices(5)), ["train", "validation", "test"]),
    ("Rowan/hellaswag", None): (
        rows(
            {
                "ctx_a": lambda n: f"A man lifts {n} stones.",
                "ctx_b": "then he",
                "activity_label": "Lifting",
                "endings": lambda n: [f"rests {n}-{at}." for at in range(4)],
                "label": lambda n: str(n % 4),
            }
        ),
        ["train", "validation", "test"],
    ),
    ("allenai/winogrande", "winogrande_xl"): (
        rows(
            {
                "sentence": lambda n: f"Anna told Ben that _ had {n} keys.",
                "option1": "Anna",
                "option2": "Ben",
                "answer": lambda n: str(1 + n % 2),
            }
        ),
        ["train", "validation"],
    ),
    ("baber/piqa", None): (
        rows(
            {
                "goal": lambda n: f"open jar {n}",
                "sol1": "turn the lid",
                "sol2": "turn the jar's bottom",
                "label": lambda n: n % 2,
            }
        ),
        ["train", "validation"],
    ),
    ("aps/super_glue", "boolq"): (
        rows({"passage": numbered("A red door:"), "question": "is it red", "label": lambda n: n % 2}),
        ["train", "validation"],
    ),
    ("EleutherAI/lambada_openai", "default"): (
        rows({"text": lambda n: f"She gave {n} keys to Ben"}),
        ["test"],
    ),
    ("openai/gsm8k", "main"): (
        rows({"question": lambda n: f"What are 1 and {n}?", "answer": lambda n: f"They are.\n#### {n + 1}"}),
        ["train", "test"],
    ),
    ("EleutherAI/asdiv", None): (
        rows(
            {
                "body": lambda n: f"Ben has {n} pens and gets one.",
                "question": "How many has he?",
                "answer": lambda n: f"{n + 1} (pens)",
            }
        ),
        ["validation"],
    ),
    ("google-research-datasets/mbpp", "full"): (
        rows(
            {
                "text": lambda n: f"Write a function to add {n}.",
                "code": lambda n: f"def add(x):\n  return x + {n}",
                "test_list": lambda n: [f"assert add(1) == {n + 1}"],
                "test_setup_code": "",
            }
        ),
        ["train", "test"],
    ),
    **{
        ("EleutherAI/sycophancy", f"sycophancy_on_{name}"): (rows(SYCOPHANCY), ["validation"])
        for name in ("nlp_survey", "political_typology_quiz")
    },
    ("skg/toxigen-data", "annotated"): (
        rows(
            {
                "text": lambda n: f"People {n} are fine.",
                "toxicity_ai": lambda n: 1.0 + 4 * (n % 2),
                "toxicity_human": lambda n: 1.0 + 4 * (n % 2),
            }
        ),
        ["train", "test"],
    ),
    ("oskarvanderwal/bbq", "All"): (
        rows(
            {
                "example_id": lambda n: n,
                "question_index": "1",
                "question_polarity": lambda n: "neg" if n % 2 else "nonneg",
                "context_condition": lambda n: "ambig" if n < 4 else "disambig",
                "category": "Age",
                "answer_info": {"ans0": ["a", "old"], "ans1": ["b", "nonOld"], "ans2": ["c", "unknown"]},
                "additional_metadata": {"subcategory": "None", "stereotyped_groups": ["old"], "version": "a"},
                "context": lambda n: f"Two men met at {n}.",
                "question": "Who forgot the keys?",
                "ans0": "The grandfather",
                "ans1": "The grandson",
                "ans2": "Cannot be determined",
                "label": lambda n: 2 if n < 4 else n % 2,
            }
        ),
        ["test"],
    ),
    ("jannalu/crows_pairs_multilingual", "english"): (
        rows(
            {
                "id": lambda n: n,
                "sent_more": lambda n: f"The woman was late {n} times.",
                "sent_less": lambda n: f"The man was late {n} times.",
                "stereo_antistereo": "stereo",
                "bias_type": "gender",
            }
        ),
        ["test"],
    ),
    ("oskarvanderwal/winogender", "all"): (
        rows(
            {
                "sentence": lambda n: f"The nurse told the patient {n} that she was early.",
                "pronoun": "she",
                "occupation": "nurse",
                "participant": "patient",
                "label": lambda n: n % 2,
                "gender": "female",
                "gotcha": False,
            }
        ),
        ["test"],
    ),
    **{("cais/wmdp", name): (rows(QUESTION, FOUR), ["test"]) for name in ("wmdp-bio", "wmdp-cyber")},
    ("truthfulqa/truthful_qa", "multiple_choice"): (
        rows(
            QUESTION,
            {
                "mc1_targets": lambda n: {"choices": [f"true {n}", f"false {n}", "no"], "labels": [1, 0, 0]},
                "mc2_targets": lambda n: {"choices": [f"true {n}", f"false {n}", "no"], "labels": [1, 0, 0]},
            },
        ),
        ["validation"],
    ),
    ("EleutherAI/hendrycks_ethics", "commonsense"): (
        rows({"input": numbered("I took keys:"), "label": lambda n: n % 2, "is_short": True}),
        ["train", "test"],
    ),
    ("mandarjoshi/trivia_qa", "rc.nocontext"): (
        rows(QUESTION, {"answer": lambda n: {"aliases": [f"Thing {n}", f"thing {n}"]}}),
        ["train", "validation"],
    ),
    ("google-research-datasets/nq_open", None): (
        rows({"question": lambda n: f"which thing is {n}", "answer": lambda n: [f"thing {n}"]}),
        ["train", "validation"],
    ),
    ("Muennighoff/babi", None): (
        rows(
            {
                "passage": lambda n: f"Mary went to room {n}.\n",
                "question": "Where is Mary?",
                "answer": lambda n: f"room {n}",
                "task": 1,
            }
        ),
        ["train", "valid", "test"],
    ),
    ("EleutherAI/drop", None): (
        rows(
            {
                "section_id": "s",
                "query_id": lambda n: f"q{n}",
                "passage": lambda n: f"They scored {n + 1} goals.",
                "question": "How many goals?",
                "answer": lambda n: {"number": str(n + 1), "date": NO_DATE, "spans": []},
                "validated_answers": lambda n: {"number": [str(n + 1)], "date": [NO_DATE], "spans": [[]]},
            }
        ),
        ["train", "validation"],
    ),
    **{
        ("facebook/belebele", name): (rows(BELEBELE), ["test"])
        for name in ("deu_Latn", "zho_Hans", "arb_Arab", "swh_Latn")
    },
    **{("juletxara/xstory_cloze", name): (rows(STORY), ["train", "eval"]) for name in ("es", "hi")},
    ("cambridgeltl/xcopa", "th"): (
        rows(
            {
                "premise": lambda n: f"It rained {n} days.",
                "choice1": "The street was wet.",
                "choice2": "The street was dry.",
                "question": lambda n: "cause" if n % 2 else "effect",
                "label": lambda n: n % 2,
            }
        ),
        ["validation", "test"],
    ),
    ("facebook/xnli", "fr"): (
        rows({"premise": lambda n: f"Il a {n} livres", "hypothesis": "il lit", "label": lambda n: n % 3}),
        ["train", "validation", "test"],
    ),
    ("google/IFEval", None): (
        rows(
            {
                "key": lambda n: 1000 + n,
                "prompt": lambda n: f"Say what {n} is. Use no comma, and write in English.",
                "instruction_id_list": lambda n: ["punctuation:no_comma", "language:response_language"],
                "kwargs": lambda n: [{}, {"language": "en"}],
            }
        ),
        ["train"],
    ),
    ("juletxara/mgsm", "ja"): (
        rows(
            {
                "question": lambda n: f"1 + {n}?",
                "answer": None,
                "answer_number": lambda n: n + 1,
                "equation_solution": None,
            }
        ),
        ["train", "test"],
    ),
}


def write_pack_copies(folder: Path) -> Path:
    """A folder of copies, as ``--data`` takes it, of every dataset that a pack of the package names."""
    for (name, subset), (content, splits) in LAYOUTS.items():
        place = folder / name.replace("/", "__") / (subset or "")
        place.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in content)
        for split in splits:
            (place / f"{split}.jsonl").write_text(text)
    return folder
