"""Lay the plain files of ``shared/data`` out as the hub datasets that the study names.

    python examples/real/lay_out.py ../shared/data ../shared/model/build copies

writes ``copies/org__name/SPLIT.jsonl`` for each dataset and a link to each base, the folder that
``traitmap run --data copies`` reads in place of the hub. With a network none of this is needed: the names in
the study are those of the hub, but for Flipkart, which Kaggle has
(``niraliivaghani/flipkart-product-customer-reviews-dataset``).

Rows keep their order and their text. Only columns are renamed, and label words become the hub's numbers.
Amazon, CodeAlpaca, Civil Comments and Davidson are smaller than on the hub and differently drawn, MNLI and
PAWS take training rows out of the published development sets, and Goat is generated anew: results on the
hub's own rows will differ.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Layout(NamedTuple):
    """How one folder of plain files becomes one dataset of the hub."""

    folder: str
    name: str
    columns: Callable[[Row], dict[str, Any]]
    splits: Mapping[str, tuple[str, ...]]  # split of the hub -> files here, one after the other
    subset: str | None = None


def number_of(*words: str) -> Callable[[Row], int]:
    """The hub's number of a row's label word."""
    return lambda row: words.index(row["label"])


MNLI = number_of("entailment", "neutral", "contradiction")
YES = number_of("no", "yes")
POSITIVE = number_of("negative", "positive")
TOXIC = number_of("not toxic", "toxic")
BOTH = {"train": ("train",), "test": ("test",)}
ONE_SPLIT = {"train": ("train", "test")}

LAYOUTS = (
    Layout("gsm8k", "openai/gsm8k", lambda row: {k: row[k] for k in ("question", "answer")}, BOTH, "main"),
    Layout(
        "goat_style",
        "tiedong/goat",
        lambda row: {"instruction": row["question"], "output": row["answer"], "answer": row["final"]},
        ONE_SPLIT,
    ),
    Layout(
        "code_alpaca",
        "sahil2801/CodeAlpaca-20k",
        lambda row: {"instruction": row["question"], "input": "", "output": row["answer"]},
        ONE_SPLIT,
    ),
    Layout(
        "mnli",
        "nyu-mll/multi_nli",
        lambda row: {"premise": row["text1"], "hypothesis": row["text2"], "label": MNLI(row)},
        {"train": ("train",), "validation_matched": ("test",)},
    ),
    Layout(
        "paws",
        "google-research-datasets/paws",
        lambda row: {"sentence1": row["text1"], "sentence2": row["text2"], "label": YES(row)},
        BOTH,
        "labeled_final",
    ),
    Layout(
        "toxicity_civil",
        "SetFit/toxic_conversations",
        lambda row: {"text": row["text"], "label": TOXIC(row), "label_text": row["label"]},
        BOTH,
    ),
    Layout(
        "toxicity_davidson_balanced",
        "tdavidson/hate_speech_offensive",
        lambda row: {"tweet": row["text"], "class": 2 if row["label"] == "not toxic" else 1},
        ONE_SPLIT,
    ),
    Layout(
        "flipkart",
        "niraliivaghani/flipkart-product-customer-reviews-dataset",
        lambda row: {"text": row["text"], "label": row["label"]},
        BOTH,
    ),
    Layout(
        "amazon_reviews",
        "SetFit/amazon_reviews_multi_en",
        lambda row: {"text": row["text"], "label": int(row["label"]) - 1, "label_text": row["label"]},
        BOTH,
    ),
    Layout("imdb", "stanfordnlp/imdb", lambda row: {"text": row["text"], "label": POSITIVE(row)}, BOTH),
    Layout(
        "sst2",
        "stanfordnlp/sst2",
        lambda row: {"sentence": row["text"], "label": POSITIVE(row)},
        {"train": ("train",), "validation": ("test",)},
    ),
    Layout(
        "svamp",
        "ChilleD/SVAMP",
        lambda row: {"question_concat": row["question"], "Equation": row["answer"], "Answer": row["final"]},
        BOTH,
    ),
    Layout(
        "mbpp",
        "google-research-datasets/mbpp",
        lambda row: {
            "text": row["question"].split("\n")[0],
            "code": row["answer"],
            "test_list": row["tests"],
        },
        BOTH,
        "full",
    ),
)
# The balanced target takes its test rows from here too: neither file's test rows occur in a training file.
MORE_TEST_ROWS = {"flipkart": ("flipkart_balanced",)}


def rows_of(data: Path, folder: str, split: str) -> Iterable[Row]:
    """The rows of one plain file."""
    with (data / folder / f"{split}.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def write(layout: Layout, data: Path, copies: Path) -> int:
    """One dataset in the hub's columns and splits; the number of rows written."""
    folder = copies / layout.name.replace("/", "__") / (layout.subset or "")
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for split, parts in layout.splits.items():
        rows = [layout.columns(row) for part in parts for row in rows_of(data, layout.folder, part)]
        if split == "test":
            more = MORE_TEST_ROWS.get(layout.folder, ())
            rows += [
                layout.columns(row) for folder_name in more for row in rows_of(data, folder_name, "test")
            ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
        written += len(rows)
    return written


def main(data: Path, bases: Path, copies: Path) -> None:
    """Write every dataset and link every base; says what it wrote."""
    for layout in LAYOUTS:
        print(f"{layout.name}: {write(layout, data, copies):,} rows")
    for base in sorted(bases.glob("*__*")):
        place = copies / base.name
        if not place.exists():
            place.symlink_to(base.resolve(), target_is_directory=True)
        print(f"{base.name.replace('__', '/')}: linked")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(
            "usage: python lay_out.py DATA BASES COPIES, such as ../shared/data ../shared/model/build copies"
        )
    main(*map(Path, sys.argv[1:]))
