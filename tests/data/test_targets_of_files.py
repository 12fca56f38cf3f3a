"""Targets over plain data: what is asked, what counts as right, and which rows nobody may learn."""

import gzip
import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

from traitmap.data.check import check_file
from traitmap.data.file_targets import ANSWER_METRICS
from traitmap.data.lineage import load_sources
from traitmap.data.records import Response
from traitmap.data.targets import load_targets
from traitmap.errors import DataError, StudyError
from traitmap.metrics import metric
from traitmap.runs.cluster.portable import portable
from traitmap.study.settings import Source, Study, Target

WORDS = ("neg", "neu", "pos")
ROWS = [{"text": f"thing number {n} ", "stars": n % 3, "word": WORDS[n % 3], "id": n} for n in range(60)]
PROMPT = "Review: {{ text }}\nVerdict:"


def written(folder: Path, name: str, rows: list[dict]) -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def study(*targets: Target, sources: tuple[Source, ...] = (), **settings: object) -> Study:
    other = Source(name="other", task="mini_reviews")
    return Study(name="s", model="builtin:mini", sources=sources or (other,), targets=targets, **settings)


def asked(*targets: Target, **settings: object):
    return load_targets(study(*targets, **settings))


@pytest.mark.parametrize(
    ("label", "labels", "golds"),
    [
        ("word", None, ["neg", "neu", "pos"]),
        ("word", ["pos", "neu", "neg"], ["neg", "neu", "pos"]),
        ("stars", {0: "bad", "1": "fair", "2": "good"}, ["bad", "fair", "good"]),
        ("stars", ["bad", "fair", "good"], ["bad", "fair", "good"]),  # numbers from 0
        ("stars", None, ["0", "1", "2"]),
    ],
)
def test_labels_may_be_read_a_list_or_a_mapping(tmp_path, label, labels, golds):
    if isinstance(labels, dict):
        labels = {str(value): word for value, word in labels.items()}
    path = written(tmp_path, "t.jsonl", ROWS)
    (target,) = asked(Target(path=path, prompt=PROMPT, label=label, labels=labels))
    assert (target.name, target.kind, target.metric, target.n_items) == ("t", "multiple_choice", "acc", 60)
    assert [text.output for text in target.texts()[:3]] == golds
    words = list((labels or {}).values() if isinstance(labels, dict) else labels or sorted(set(golds)))
    assert list(target.choices) == words
    first = target.requests[: len(words)]
    assert {request.context for request in first} == {"Review: thing number 0 \nVerdict:"}
    assert [request.continuation for request in first] == [f" {word}" for word in words]
    right = [
        Response(logprob=float(r.continuation[1:] == text.output), is_greedy=False)
        for text, r in pairs(target, len(words))
    ]
    assert target.score(right).aggregates["acc,none"] == 1.0
    assert target.chance == pytest.approx(1 / 3)


def pairs(target, width):
    texts = [text for text in target.texts() for _ in range(width)]
    return zip(texts, target.requests, strict=True)


def test_numbers_from_one_are_no_list_of_words(tmp_path):
    rows = [{**row, "stars": row["stars"] + 1} for row in ROWS]
    path = written(tmp_path, "t.jsonl", rows)
    with pytest.raises(DataError, match="the column 'stars' holds '1'"):
        asked(Target(path=path, prompt=PROMPT, label="stars", labels=list(WORDS)))


def test_the_completion_says_how_a_label_is_asked_and_may_read_the_row(tmp_path):
    path = written(tmp_path, "t.jsonl", ROWS)
    (target,) = asked(
        Target(path=path, prompt="{{ text }}", completion="\n{{ id }} is {{ label }}.", label="word")
    )
    assert [r.continuation for r in target.requests[3:6]] == [f"\n1 is {word}." for word in WORDS]
    assert target.choices is None  # each item has its own
    assert target.texts()[1].output == "1 is neu."


CHOICES = [
    ({"choices": ["red", "green", "blue"], "answer": 2}, "blue", "counts from 0"),
    ({"choices": ["red", "green", "blue"], "answer": "C"}, "blue", "letter"),
    ({"choices": ["red", "green", "blue"], "answer": "blue"}, "blue", "text"),
    ({"choices": '["red", "green", "blue"]', "answer": "2"}, "blue", "counts from 0"),  # as CSV has it
    ({"choices": {"text": ["red", "green"], "label": ["1", "2"]}, "answer": "2"}, "green", "letter"),
    ({"choices": ["3", "4", "5"], "answer": "4"}, "4", "text"),
    ({"choices": ["3", "4", "5"], "answer": 1}, "4", "counts from 0"),
]


@pytest.mark.parametrize(("row", "gold", "phrase"), CHOICES)
def test_each_row_may_have_choices_of_its_own(tmp_path, row, gold, phrase):
    zero = {"question": "first?", **row}
    if row["answer"] in (1, 2, "2") and not isinstance(row["choices"], dict):
        rows = [zero, {**zero, "answer": type(row["answer"])(0)}]  # a row that tells 0 from 1
    else:
        rows = [zero, zero]
    path = written(tmp_path, "t.jsonl", rows)
    (target,) = asked(Target(path=path, prompt="{{ question }}", choices="choices", answer="answer"))
    assert target.texts()[0].output == gold
    assert phrase in target.read_as
    assert target.requests[0].continuation.startswith(" ")


def test_choices_may_be_columns_and_answers_count_from_one(tmp_path):
    rows = [{"q": "x", "a": "red", "b": "green", "gold": n} for n in (1, 2, 1)]
    path = written(tmp_path, "t.jsonl", rows)
    (target,) = asked(Target(path=path, prompt="{{ q }}", choices=["a", "b"], answer="gold"))
    assert [text.output for text in target.texts()] == ["red", "green", "red"]
    assert "counts from 1" in target.read_as


def test_choices_of_two_readings_are_refused(tmp_path):
    rows = [{"q": "x", "c": ["red", "green"], "gold": n} for n in ("red", 0)]
    path = written(tmp_path, "t.jsonl", rows)
    with pytest.raises(DataError, match="neither texts of choices nor all their letters or numbers: row 2 "):
        asked(Target(path=path, prompt="{{ q }}", choices="c", answer="gold"))


def test_a_written_answer_is_judged_whole_or_by_its_last_match(tmp_path):
    rows = [{"q": f"{n} + 1?", "a": f"{n} + 1 = {n + 1}\n#### {n + 1}", "final": n + 1} for n in range(5)]
    path = written(tmp_path, "t.jsonl", rows)
    plain = Target(name="plain", path=path, prompt="{{ q }}", answer="final")
    cut = Target(name="cut", path=path, prompt="{{ q }}", answer="a", extract=r"#### (\S+)")
    plain, cut = asked(plain, cut)
    assert plain.requests[0].generation == {"until": ["\n"], "do_sample": False, "max_gen_toks": 16}
    assert [text.output for text in plain.texts()] == [text.output for text in cut.texts()]
    answers = [Response(text=f"  {n + 1}  ") for n in range(5)]
    assert plain.score(answers).aggregates["exact_match,whole"] == 1.0
    answers = [Response(text=f" I say #### 0 or #### {n + 1}") for n in range(4)] + [Response(text="5")]
    scored = cut.score(answers)
    assert scored.aggregates["exact_match,extract"] == 0.8
    assert [outcome.parsed for outcome in scored.outcomes] == [True] * 4 + [False]


def test_examples_show_the_reasoning_and_a_model_that_reasons_may_write_it(tmp_path):
    rows = [{"q": f"{n} + 1?", "a": f"so\n#### {n + 1}", "final": str(n + 1)} for n in range(9)]
    path = written(tmp_path, "t.jsonl", rows)
    settings = {"path": path, "prompt": "{{ q }}", "extract": "#### (.+)"}
    shown, bare = asked(
        Target(name="shown", answer="a", num_fewshot=1, **settings),
        Target(name="bare", answer="final", **settings),
    )
    assert "so\n#### " in shown.requests[0].context
    assert {text.output for text in shown.texts()} == {str(n + 1) for n in range(9)}
    for target in (shown, bare):
        assert target.requests[0].generation["until"] == ["\n\n"]
    assert bare.requests[0].generation["max_gen_toks"] == 256
    with pytest.raises(DataError, match="9 examples are asked for, and there are 8 rows to show"):
        asked(Target(name="many", answer="a", num_fewshot=9, **settings))


def test_any_of_several_answers_is_right(tmp_path):
    rows = [{"q": "x", "a": ["one", "1"]}, {"q": "y", "a": "two"}]
    path = written(tmp_path, "t.jsonl", rows)
    exact = Target(name="exact", path=path, prompt="{{ q }}", answer="a")
    f1 = Target(name="f1", path=path, prompt="{{ q }}", answer="a", metric="f1")
    for target in asked(exact, f1):
        scores = [o.score for o in target.score([Response(text=" 1"), Response(text="one two")]).outcomes]
        assert scores == ([1.0, 0.0] if target.name == "exact" else [1.0, pytest.approx(2 / 3)])


@pytest.mark.parametrize("name", ANSWER_METRICS)
def test_every_metric_of_answers_is_of_the_catalogue_and_knows_best_and_worst(tmp_path, name):
    rows = [{"q": "x", "a": "the quick brown fox jumps"}, {"q": "y", "a": "over the lazy dog again"}]
    path = written(tmp_path, "t.jsonl", rows)
    (target,) = asked(Target(path=path, prompt="{{ q }}", answer="a", metric=name))
    assert target.higher_is_better is metric(name).higher_is_better
    if name == "bits_per_byte":
        answers = [Response(logprob=-10.0, is_greedy=False), Response(logprob=-20.0, is_greedy=False)]
        scores = [outcome.score for outcome in target.score(answers).outcomes]
        bits = [10 / 0.6931471805599453, 20 / 0.6931471805599453]
        lengths = [len(r.continuation) for r in target.requests]
        assert scores == pytest.approx([bit / n for bit, n in zip(bits, lengths, strict=True)])
        return
    best = [outcome.score for outcome in target.score([Response(text=row["a"]) for row in rows]).outcomes]
    worst = [outcome.score for outcome in target.score([Response(text="000")] * 2).outcomes]
    assert best == ([0.0, 0.0] if name == "ter" else [1.0, 1.0])
    assert worst == ([1.0, 1.0] if name == "ter" else [0.0, 0.0])


def test_texts_and_long_answers_are_weighed_unless_the_study_says_otherwise(tmp_path):
    chats = [{"prompt": f"say {n}", "completion": f" well,\nthen {n}"} for n in range(3)]
    short = [{"prompt": f"say {n}", "completion": f" {n}"} for n in range(3)]
    plain = [{"text": f"line {n}"} for n in range(3)]
    names = {"chats": chats, "short": short, "plain": plain}
    targets = asked(*(Target(path=written(tmp_path, f"{n}.jsonl", rows)) for n, rows in names.items()))
    assert [(t.kind, t.metric, t.higher_is_better) for t in targets] == [
        ("loglikelihood", "bits_per_byte", False),
        ("generate_until", "exact_match", True),
        ("loglikelihood_rolling", "bits_per_byte", False),
    ]
    assert targets[0].requests[0].continuation == " well,\nthen 0"
    assert targets[2].requests[0].context == "line 0"


def test_a_source_s_own_target_asks_what_the_source_teaches(tmp_path):
    train = written(tmp_path, "train.jsonl", ROWS[:40])
    test = written(tmp_path, "test.jsonl", ROWS[40:])
    source = Source(
        name="reviews", path=train, prompt=PROMPT, completion=" {{ label }}", label="stars",
        labels=list(WORDS), target={"path": test, "num_fewshot": 2}, tags=["mood"],
    )  # fmt: skip
    both = study(sources=(source,))
    (loaded,), (target,) = load_sources(both), load_targets(both)
    assert (target.name, target.tags, target.n_items, len(loaded.examples)) == ("reviews", ("mood",), 20, 40)
    taught = {example.text for example in loaded.examples}
    shown = target.requests[0].context.split("\n\n")
    assert len(shown) == 3
    assert set(shown[:2]) <= taught  # examples are rows that are learnt, written as they are learnt
    assert not {text.input.split("\n\n")[-1] + f" {text.output}" for text in target.texts()} & taught


def split_of(tmp_path: Path, rows: list[dict], **settings: object) -> tuple[set[str], set[str]]:
    """Texts that are learnt and texts that are asked of one file."""
    path = written(tmp_path, "all.jsonl", rows)
    source = Source(
        name="s", path=path, prompt="{{ text }}", completion=" {{ label }}", label="word", target=True
    )
    both = study(sources=(source,), **settings)
    (loaded,), (target,) = load_sources(both), load_targets(both)
    assert "held out for 's'" in loaded.read_as
    assert f"{target.n_items} of {len(rows)} rows held out" in target.read_as
    assert loaded.available == len(loaded.examples) == len(rows) - target.n_items
    return {e.prompt for e in loaded.examples}, {text.input for text in target.texts()}


def test_one_file_is_split_by_the_hash_of_its_texts(tmp_path):
    rows = [*ROWS, *({**row, "id": row["id"] + 100, "text": row["text"].upper()} for row in ROWS[:20])]
    learnt, held_out = split_of(tmp_path, rows)
    assert 6 <= len(held_out) <= 26
    folded = [{text.strip().lower() for text in side} for side in (learnt, held_out)]
    assert not folded[0] & folded[1]  # equal texts fall on one side
    more = [{"text": f"another {n}", "word": "neg", "id": n} for n in range(50)]
    wider_learnt, wider_held_out = split_of(tmp_path, [*more, *reversed(rows)])
    assert learnt <= wider_learnt  # further rows, and another order, move no row
    assert held_out <= wider_held_out
    assert split_of(tmp_path, rows, sample_seed=1)[1] != held_out


def test_a_target_over_a_source_s_file_splits_it_whatever_its_prompt(tmp_path):
    path = written(tmp_path, "all.jsonl", ROWS)
    first = Source(name="a", path=path, prompt="{{ text }}", completion=" {{ label }}", label="word")
    second = Source(name="b", path="all.jsonl", prompt="{{ id }}", completion=" {{ text }}")
    target = Target(name="t", path=path, prompt=PROMPT, label="word", held_out=0.5)
    twin = Target(name="u", path=path, prompt="{{ id }}:", label="word")
    (tmp_path / "study.yaml").write_text("")
    both = study(target, twin, sources=(first, second), path=tmp_path / "study.yaml")
    a, b = load_sources(both)
    t, u = load_targets(both)
    assert len(a.examples) == len(b.examples) == 60 - t.n_items
    assert t.n_items == u.n_items
    assert 20 <= t.n_items <= 40
    asked_ids = {text.input.rstrip(":") for text in u.texts()}
    assert not asked_ids & {example.prompt for example in b.examples}


def test_a_file_that_nobody_learns_from_is_asked_whole(tmp_path):
    path = written(tmp_path, "t.jsonl", ROWS)
    (target,) = asked(Target(path=path, prompt=PROMPT, label="word"))
    assert target.n_items == 60
    (some,) = asked(Target(path=path, prompt=PROMPT, label="word", limit=10))
    assert some.n_items == 10


def test_the_content_of_a_file_is_in_the_key_and_its_place_is_not(tmp_path):
    def key(name: str, rows: list[dict], **changes: object) -> str:
        settings = {"prompt": PROMPT, "label": "word", **changes}
        return asked(Target(name=name.split(".")[0], path=written(tmp_path, name, rows), **settings))[
            0
        ].digest

    assert key("a.jsonl", ROWS) == key("b.jsonl", ROWS)
    changed = [{**ROWS[0], "word": "pos"}, *ROWS[1:]]
    keys = {key("a.jsonl", ROWS), key("a.jsonl", changed), key("a.jsonl", ROWS[:-1])}
    keys |= {key("a.jsonl", ROWS, metric="acc_norm"), key("a.jsonl", ROWS, num_fewshot=1)}
    assert len(keys) == 5


def test_rows_may_be_grouped_by_a_column_and_sent_to_another_machine(tmp_path):
    path = written(tmp_path, "t.jsonl", [{**row, "gold": 1} for row in ROWS])
    settings = {"path": path, "prompt": PROMPT, "label": "word"}
    (target,) = asked(Target(**settings, groups="stars"))
    assert [text.group for text in target.texts()[:4]] == ["0", "1", "2", "0"]
    with pytest.raises(DataError, match="rename the column"):
        asked(Target(**settings, groups="gold"))
    far = pickle.loads(pickle.dumps(portable(target)))
    answers = [Response(logprob=-float(n % 5), is_greedy=False) for n in range(len(target.requests))]
    assert far.score(answers).outcomes == target.score(answers).outcomes
    f1 = asked(Target(path=path, prompt="{{ text }}", answer="word", metric="f1"))[0]
    assert pickle.loads(pickle.dumps(portable(f1))).score([Response(text="neg")] * 60)


def write_forms(folder: Path) -> list[Path]:
    """One table in every form that is read."""
    rows = [{"text": row["text"], "word": row["word"]} for row in ROWS]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    table = pa.Table.from_pylist(rows)
    for name, text in {
        "a.jsonl": lines, "b.ndjson": lines, "c.json": json.dumps(rows), "d.json": json.dumps({"data": rows}),
        "e.csv": "text,word\n" + "".join(f"{row['text']},{row['word']}\n" for row in rows),
        "f.tsv": "text\tword\n" + "".join(f"{row['text']}\t{row['word']}\n" for row in rows),
    }.items():  # fmt: skip
        (folder / name).write_text(text)
        (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    parquet.write_table(table, folder / "g.parquet")
    feather.write_feather(table, folder / "h.feather")
    with ipc.new_stream(folder / "i.arrow", table.schema) as stream:
        stream.write_table(table)
    return sorted(folder.iterdir())


def test_every_form_that_sources_read_is_asked_alike(tmp_path):
    files = write_forms(tmp_path)
    assert len(files) == 15
    targets = asked(
        *(Target(name=f"t{n}", path=str(f), prompt=PROMPT, label="word") for n, f in enumerate(files))
    )
    assert len({target.digest for target in targets}) == 1


FAULTS = """\
name: s
model: builtin:mini
sources:
  - {name: a, path: t.jsonl, prompt: "{{ text }}", completion: "{{ label }}", label: word, target: u.jsonl}
targets:
  - {name: b, path: t.jsonl, prompt: "{{ txt }}", label: wrd, metric: macro_f1}
  - {name: c, path: t.jsonl, prompt: "{{ text }}", answer: anser, choices: [chioces], metric: acc_nrm}
  - {name: d, path: t.jsonl, prompt: "{{ text }}", label: text}
  - {name: e, path: gone.jsonl, prompt: "{{ text }}", label: word}
  - {name: f, path: t.jsonl, prompt: "{{ text }}", label: word, answer: id, labels: {}, unti: x}
"""


def test_all_faults_of_new_entries_at_once_with_near_misses_and_columns(tmp_path):
    written(tmp_path, "t.jsonl", ROWS)
    written(tmp_path, "u.jsonl", [{"text": "x", "lable": "neg"}])
    (tmp_path / "study.yaml").write_text(FAULTS)
    with pytest.raises(StudyError) as caught:
        check_file(tmp_path / "study.yaml")
    found = {(fault.line, fault.where): fault.message for fault in caught.value.faults}
    columns = "the columns are text, stars, word, id; did you mean"
    expected = {
        (
            4,
            "sources[0].target",
        ): "u.jsonl: label: there is no column 'word'; the columns are text, lable",
        (6, "targets[0].prompt"): "reads 'txt', which no column has; the columns are text, stars, word, id",
        (6, "targets[0].label"): f"there is no column 'wrd'; {columns} 'word'?",
        (6, "targets[0].metric"): "'macro_f1' is no metric of such rows; legal here: acc, acc_norm",
        (7, "targets[1].answer"): "there is no column 'anser'",
        (7, "targets[1].choices"): "there is no column 'chioces'",
        (7, "targets[1].metric"): "did you mean acc_norm?",
        (8, "targets[2].label"): "60 values in 60 rows, as free text has; give answer: text",
        (9, "targets[3].path"): "gone.jsonl does not exist",
        (10, "targets[4].unti"): "unknown key 'unti'; did you mean until?",
        (10, "targets[4].labels"): "no words are given",
        (10, "targets[4].answer"): "label and answer are given together",
    }
    assert set(found) == set(expected)
    for place, words in expected.items():
        assert words in found[place], (place, found[place])
