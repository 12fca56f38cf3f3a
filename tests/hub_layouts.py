"""Generated rows in the columns, types and splits of the hub datasets that bundled studies name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
HELD_OUT = 1000  # rows that a target keeps from its source where a dataset has one split only


def labelled(columns: dict[str, str], labels: int) -> Rows:
    return [
        {"id": f"r{n}", **{key: f"{word} {n}" for key, word in columns.items()}, "label": n % labels}
        for n in range(12)
    ]


def math_answer(n: int) -> str:
    return f"One and {n} make <<1+{n}={n + 1}>>{n + 1}.\n#### {n + 1}"


# name -> (rows, subset, splits)
LAYOUTS: dict[str, tuple[Rows, str | None, Sequence[str]]] = {
    "SetFit/amazon_reviews_multi_en": (
        [{**row, "label_text": str(row["label"])} for row in labelled({"text": "thing"}, 5)],
        None,
        ["train", "validation", "test"],
    ),
    "stanfordnlp/imdb": (
        [{"text": row["text"], "label": row["label"]} for row in labelled({"text": "film"}, 2)],
        None,
        ["train", "test"],
    ),
    "SetFit/toxic_conversations": (
        [{**row, "label_text": ["not toxic", "toxic"][row["label"]]} for row in labelled({"text": "you"}, 2)],
        None,
        ["train", "test"],
    ),
    "google-research-datasets/paws": (
        labelled({"sentence1": "one", "sentence2": "two"}, 2),
        "labeled_final",
        ["train", "validation", "test"],
    ),
    "nyu-mll/multi_nli": (
        [
            {"promptID": n, "pairID": f"{n}n", "genre": "fiction", **row}
            for n, row in enumerate(labelled({"premise": "one", "hypothesis": "two"}, 3))
        ],
        None,
        ["train", "validation_matched", "validation_mismatched"],
    ),
    "meta-math/MetaMathQA": (
        [
            {
                "type": "GSM_Rephrased",
                "query": f"What are {n} and 2?",
                "original_question": f"What is {n} + 2?",
                "response": f"They are {n + 2}.\n#### {n + 2}\nThe answer is: {n + 2}",
            }
            for n in range(12)
        ],
        None,
        ["train"],
    ),
    "openai/gsm8k": (
        [{"question": f"What are 1 and {n}?", "answer": math_answer(n)} for n in range(12)],
        "main",
        ["train", "test"],
    ),
    "tiedong/goat": (
        [
            {
                "instruction": f"What is {n} + 1?",
                "input": f"{n} + 1",
                "output": f"{n} + 1 = {n + 1}",
                "answer": str(n + 1),
            }
            for n in range(HELD_OUT + 12)
        ],
        None,
        ["train"],
    ),
    "ise-uiuc/Magicoder-OSS-Instruct-75K": (
        [
            {
                "lang": "python",
                "raw_index": n,
                "index": n,
                "seed": f"print({n})",
                "openai_fingerprint": "fp_eeff13170a",
                "problem": f"Write {n}.",
                "solution": f"```python\nprint({n})\n```",
            }
            for n in range(HELD_OUT + 12)
        ],
        None,
        ["train"],
    ),
    "google-research-datasets/mbpp": (
        [
            {
                "task_id": n,
                "text": f"Write a function to add {n}.",
                "code": f"def add(x):\r\n  return x + {n}",
                "test_list": [f"assert add(1) == {n + 1}", f"assert add(0) == {n}"],
                "test_setup_code": "",
                "challenge_test_list": [],
            }
            for n in range(12)
        ],
        "full",
        ["train", "test", "validation", "prompt"],
    ),
}


def write_copies(folder: Path) -> Path:
    """A folder of copies as `traitmap check --data` takes it, one file for each split."""
    for name, (rows, subset, splits) in LAYOUTS.items():
        place = folder / name.replace("/", "__") / (subset or "")
        place.mkdir(parents=True)
        text = "\n".join(map(json.dumps, rows))
        for split in splits:
            (place / f"{split}.jsonl").write_text(text)
    return folder


def write_flipkart(folder: Path) -> None:
    """The reviews that the paper's study wants beside its file."""
    folder.mkdir()
    words = ["negative", "neutral", "positive"]
    rows = "".join(f"nice {n},it is,{words[min(n % 5, 2)]}\n" for n in range(12))
    for name in ("train", "test"):
        (folder / f"{name}.csv").write_text(f"Review,Summary,Sentiment\n{rows}")
