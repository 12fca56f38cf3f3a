"""A study out of a folder: what each file was taken for, and that the study passes the check."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from told import traitmap
from traitmap.data.check import check_file
from traitmap.data.folder_study import guess_of, write_study_of_folder
from traitmap.data.rows import read_file
from traitmap.data.targets import load_targets
from traitmap.errors import DataError, StudyError
from traitmap.study.settings import target_of

MANY = range(40)
REVIEWS = [{"id": n, "text": f"a fine thing, number {n}", "label": "good" if n % 2 else "bad"} for n in MANY]
PAIRS = [{"premise": f"it is {n}", "hypothesis": f"it was {n}", "label": n % 3} for n in MANY]
SUMS = [{"question": f"{n} + 1?", "answer": f"Well,\n{n} + 1 = {n + 1}", "final": str(n + 1)} for n in MANY]
GSM = [{"question": f"{n} + 1?", "answer": f"So\n#### {n + 1}"} for n in MANY]
CODE = [{"instruction": f"do {n}", "input": "", "output": f"def f():\n    return {n}"} for n in MANY]
PREFERENCE = [{"prompt": f"q{n}", "chosen": f" yes {n}", "rejected": f" no {n}"} for n in MANY]
CHAT = [{"messages": [{"role": r, "content": f"{r} {n}"} for r in ("user", "assistant")]} for n in MANY]
OWN_CHOICES = [{"question": f"q{n}", "choices": [f"a{n}", "b"], "answer": n % 2} for n in MANY]


def put(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".csv":
        cells = [",".join(json.dumps(str(value)) for value in row.values()) for row in rows]
        file.write_text("\n".join([",".join(rows[0]), *cells]) + "\n")
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())


@pytest.mark.parametrize(
    ("rows", "words", "settings", "target"),
    [
        (REVIEWS, "classes in label (bad, good) of text", {"label": "label"}, {}),
        (PAIRS, "classes in label (0, 1, 2) of premise and hypothesis", {"label": "label"}, {}),
        (SUMS, "whose last number (final) is what is asked", {}, {"answer": "final"}),
        (GSM, "that ends in ####", {}, {"answer": "answer", "extract": "#### (.+)"}),
        (CODE, "rows of the format alpaca", {}, {}),
        (PREFERENCE, "preference pairs", {"train_on": "chosen"}, {}),
        (CHAT, "rows of the format messages", {}, {}),
        ([{"text": f"words {n}"} for n in MANY], "plain text", {}, {}),
        (OWN_CHOICES, "choices of its own (choices), the right one in answer", {"choices": "choices"}, {}),
    ],
)
def test_each_kind_of_file_is_known(tmp_path, rows, words, settings, target):
    put(tmp_path / "rows.jsonl", rows)
    guess = guess_of(read_file(tmp_path / "rows.jsonl"))
    assert words in guess.words
    assert settings.items() <= guess.settings.items()
    assert target.items() <= guess.target.items()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good files in many forms, and whatever else lies in a folder."""
    data = tmp_path / "data"
    put(data / "reviews_train.csv", REVIEWS)
    put(data / "reviews-dev.csv", REVIEWS[:10])
    put(data / "reviews.test.csv", [{**row, "text": row["text"] + "!"} for row in REVIEWS[:20]])
    put(data / "nli" / "train.parquet", PAIRS)
    put(data / "nli" / "test.parquet", PAIRS[:15])
    put(data / "sums.jsonl.gz", SUMS)
    put(data / "again.jsonl", SUMS)
    put(data / "code.jsonl", CODE)
    put(data / "chat.jsonl", CHAT)
    put(data / "arc_test.jsonl", OWN_CHOICES)
    put(data / "few.jsonl", REVIEWS[:3])
    (data / "broken.jsonl").write_text('{"text": "x"}\n{"text": \n')
    (data / "empty.csv").write_text("")
    (data / "numbers.csv").write_text("x,y\n" + "".join(f"{n},{n * n}\n" for n in MANY))
    (data / "lfs.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for name in ("a.png", "b.png"):
        (data / name).write_bytes(b"\x89PNG")
    return data


def test_a_folder_becomes_a_study_that_passes_the_check(folder, tmp_path):
    file = write_study_of_folder(tmp_path / "my study", folder)
    study = check_file(file)
    text = file.read_text()
    assert study.name == "my-study"
    assert [source.name for source in study.sources] == ["again", "code", "reviews", "nli"]
    own = {source.name: source.target for source in study.sources}
    assert own["nli"].path == "../data/nli/test.parquet"
    assert own["reviews"].path == "../data/reviews.test.csv"  # not the one for development
    assert own["code"].path is None
    assert "# code.jsonl, 40 rows: rows of the format alpaca\n  # No test file: a fifth" in text
    assert [target.name for target in study.targets] == ["arc"]
    assert target_of(study.sources[0]).extract is not None
    sizes = {target.name: target.n_items for target in load_targets(study)}
    assert (sizes["nli"], sizes["reviews"], sizes["arc"]) == (15, 20, 40)
    assert 1 <= sizes["again"] < 20
    assert "# Conversations need a base with a chat template" in text
    assert "  # - name: chat\n" in text
    for words in (
        "a.png: no data file (and 1 more alike)", "broken.jsonl: line 2: not valid JSON",
        "few.jsonl: 3 rows, fewer than 8", "lfs.parquet: is a Git LFS pointer",
        "numbers.csv: its columns (x, y)",
        "sums.jsonl.gz: it holds the same rows as again", "empty.csv: 0 rows",
    ):  # fmt: skip
        assert f"# - {words}" in text, words


@pytest.mark.parametrize("kind", ["absent", "empty", "broken", "images"])
def test_a_folder_of_which_nothing_can_be_learnt_is_refused_with_the_reasons(tmp_path, kind):
    data = tmp_path / "data"
    if kind != "absent":
        data.mkdir()
    if kind == "broken":
        (data / "a.jsonl").write_text("{")
    if kind == "images":
        (data / "a.png").write_bytes(b"")
    words = {"absent": "is not a folder", "empty": "it holds no data file", "broken": "a.jsonl: line 1"}
    with pytest.raises(DataError, match=words.get(kind, "a.png: no data file")):
        write_study_of_folder(tmp_path / "new", data)
    assert not (tmp_path / "new").exists()


def test_the_command_writes_it_once(folder, tmp_path):
    done = traitmap("init", "mine", "--from", "data", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "mine" / "study.yaml").is_file()
    with pytest.raises(StudyError, match="is there already"):
        write_study_of_folder(tmp_path / "mine", folder)


@pytest.mark.shared
def test_real_data_is_known_for_what_it_is(shared, tmp_path):
    study = check_file(write_study_of_folder(tmp_path / "real", shared / "data"))
    metrics = {target.name: target.metric for target in load_targets(study)}
    assert len(study.sources) == len(metrics) == 16
    classes = {"imdb", "sst2", "mnli", "paws", "amazon_reviews", "flipkart", "flipkart_balanced"}
    classes |= {"toxicity_civil", "toxicity_davidson_balanced"}
    assert {name for name, metric in metrics.items() if metric == "acc"} == classes
    assert metrics["gsm8k"] == metrics["math_cot_llmadapters"] == "exact_match"
    assert metrics["code_alpaca"] == metrics["mbpp"] == "bits_per_byte"
