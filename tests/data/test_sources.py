import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from traitmap.data.conversation import plain_chat
from traitmap.data.lineage import load_sources
from traitmap.data.records import Example, Segment
from traitmap.data.rows import SourceError, read_file
from traitmap.data.sources import draw
from traitmap.errors import DataError
from traitmap.study.settings import Model, Source, Study, Target

REVIEWS = [{"text": f"review {n}", "stars": 1 + n % 3} for n in range(9)]
WORDS = {"1": "bad", "2": "fair", "3": "good"}
TEMPLATES = {"prompt": "{{ text }}\nStars:", "completion": " {{ label }}"}


def study_of(folder: Path, *sources: Source, **settings) -> Study:
    return Study(
        name="test",
        model=Model(path="builtin:mini"),
        sources=sources,
        targets=(Target(name="gsm8k", task="gsm8k"),),
        path=folder / "study.yaml",
        **settings,
    )


def json_lines(folder: Path, rows, name: str = "rows.jsonl") -> str:
    (folder / name).write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return name


def load_source(study: Study, source: Source, render_chat=None):
    (loaded,) = load_sources(study, render_chat)
    assert loaded.name == source.name
    return loaded


def load(folder: Path, rows, render_chat=None, **settings):
    source = Source(name="test", path=json_lines(folder, rows), **settings)
    return load_source(study_of(folder, source), source, render_chat)


def problem_of(folder: Path, rows, render_chat=None, **settings) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, rows, render_chat, **settings)
    return str(caught.value)


def parts(example: Example) -> list[tuple[str, bool]]:
    return [(segment.text, segment.learn) for segment in example.segments]


def test_templates_and_label_words(tmp_path):
    loaded = load(tmp_path, REVIEWS, label="stars", labels=WORDS, **TEMPLATES)
    assert loaded.examples[4] == Example(
        (Segment("review 4\nStars:", False), Segment(" fair", True)), label="fair"
    )
    assert loaded.label_counts == {"bad": 3, "fair": 3, "good": 3}
    assert list(loaded.label_counts) == ["bad", "fair", "good"]
    assert loaded.available == len(loaded.examples) == 9


def test_without_words_the_label_s_characters_are_the_word(tmp_path):
    loaded = load(tmp_path, REVIEWS, label="stars", **TEMPLATES)
    assert [example.completion for example in loaded.examples[:3]] == [" 1", " 2", " 3"]


@pytest.mark.parametrize("values", [[1, "1", 1.0], [True, "true", True]])
def test_a_label_is_matched_by_its_characters_whatever_its_type(tmp_path, values):
    rows = [{"text": "x", "stars": value} for value in values]
    loaded = load(tmp_path, rows, label="stars", labels={"1": "yes", "true": "yes"}, **TEMPLATES)
    assert loaded.label_counts == {"yes": 3}


def test_a_column_named_label_is_hidden_by_the_word(tmp_path):
    rows = [{"text": "x", "label": 0, "stars": 1}]
    loaded = load(tmp_path, rows, label="stars", labels=WORDS, **TEMPLATES)
    assert loaded.examples[0].completion == " bad"
    plain = load(tmp_path, rows, **TEMPLATES)
    assert (plain.examples[0].completion, plain.examples[0].label) == (" 0", None)


def test_text_is_learnt_whole(tmp_path):
    loaded = load(tmp_path, [{"text": "all of it", "other": None}])
    assert parts(loaded.examples[0]) == [("all of it", True)]


def test_a_completion_template_alone_is_learnt_whole(tmp_path):
    loaded = load(tmp_path, [{"title": "a", "body": "b"}], completion="{{ title }}\n{{ body }}")
    assert parts(loaded.examples[0]) == [("a\nb", True)]


def test_prompt_and_completion_are_used_as_they_stand(tmp_path):
    loaded = load(tmp_path, [{"prompt": "2+2=", "completion": "4 "}, {"prompt": "", "completion": "x"}])
    assert parts(loaded.examples[0]) == [("2+2=", False), ("4 ", True)]
    assert parts(loaded.examples[1]) == [("x", True)]


TURNS = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "U2"},
    {"role": "assistant", "content": "A2"},
    {"role": "user", "content": "U3"},
]
LEARNT = [
    ("<system>\nS\n<user>\nU1\n<assistant>\n", False),
    ("A1\n", True),
    ("<user>\nU2\n<assistant>\n", False),
    ("A2\n", True),
    ("<user>\nU3\n", False),
]


def test_assistant_turns_of_a_conversation_are_learnt(tmp_path):
    loaded = load(tmp_path, [{"messages": TURNS}], plain_chat)
    assert parts(loaded.examples[0]) == LEARNT
    assert loaded.examples[0].text == plain_chat(TURNS, False)


def test_of_a_conversational_prompt_nothing_is_learnt(tmp_path):
    loaded = load(tmp_path, [{"prompt": TURNS[:4], "completion": TURNS[4:]}], plain_chat)
    assert parts(loaded.examples[0]) == [("".join(text for text, _ in LEARNT[:3]), False), *LEARNT[3:]]


def test_a_generation_prompt_may_hold_more_than_the_head_of_a_turn(tmp_path):
    def thinking_chat(messages, add_generation_prompt):
        return plain_chat(messages, add_generation_prompt) + (
            "<think></think>" if add_generation_prompt else ""
        )

    loaded = load(tmp_path, [{"messages": TURNS}], thinking_chat)
    assert parts(loaded.examples[0]) == LEARNT


def test_a_chat_template_that_rewrites_the_past_is_refused(tmp_path):
    def forgetful_chat(messages, add_generation_prompt):
        return plain_chat(messages[-2:], add_generation_prompt)

    assert "rewrites earlier turns" in problem_of(tmp_path, [{"messages": TURNS}], forgetful_chat)
    assert load(tmp_path, [{"messages": TURNS[:3]}], forgetful_chat).examples


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (TURNS[:2], "no turn of the role 'assistant'"),
        ([], "a list of turns"),
        ("hello", "a list of turns"),
        ([{"role": "user"}], "turn 1: role and content must be text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "turn 1: role and content must be text"),
    ],
)
def test_what_is_no_conversation_is_told(tmp_path, messages, words):
    said = problem_of(tmp_path, [{"messages": messages}], plain_chat)
    assert "source 'test'" in said
    assert "row 1" in said
    assert words in said


def test_conversations_need_a_chat_template(tmp_path):
    assert "needs the chat template of the base" in problem_of(tmp_path, [{"messages": TURNS}])


def test_rows_that_break_a_template_are_told_with_row_column_and_remedy(tmp_path):
    rows = [{"text": "a"}, {"text": None}, {"text": "b"}, {"other": 1}]
    said = problem_of(tmp_path, rows, completion="{{ text }}")
    assert said == (
        "source 'test', completion: row 2 (and 1 row more): the column 'text' is null or absent, and the "
        "template writes it; fill or remove such rows, or write {{ text or '' }}"
    )
    assert load(tmp_path, rows, completion="{{ text or '' }}").examples[1].completion == ""


def test_any_failure_inside_a_template_is_told(tmp_path):
    said = problem_of(tmp_path, [{"text": "a"}], completion="{{ 1 // 0 }}{{ text }}")
    assert "row 1: the template fails: ZeroDivisionError" in said


def test_many_different_failures_are_not_all_listed(tmp_path):
    rows = [{"text": "a", "n": f"x{n}"} for n in range(20)]
    said = problem_of(tmp_path, rows, completion="{{ text[n] }}").splitlines()
    assert len(said) == 6
    assert "15 rows more fail for other reasons" in said[-1]


@pytest.mark.parametrize(
    ("rows", "settings", "words"),
    [
        ([{"a": 1}], {}, "the columns are a, which is none of the shapes"),
        ([{"text": 3}], {}, "row 1: the column 'text' is int, not text"),
        ([{"prompt": "a", "completion": None}], {}, "row 1: the column 'completion' is null or absent"),
        ([{"text": "\ud800"}], {}, "row 1: its text holds half of a surrogate pair"),
        ([{"text": "a", "stars": 1}], {"label": "stars"}, "nothing writes it"),
        (
            [{"text": "a"}],
            {"label": "stars", **TEMPLATES},
            "there is no column 'stars'; the columns are text",
        ),
        ([{"a": "a", "stars": 1}], {"label": "stars", **TEMPLATES}, "reads 'text', which no column has"),
        (
            [*REVIEWS, {"text": "x", "stars": 7}, {"text": "y", "stars": 7}],
            {"label": "stars", "labels": WORDS, **TEMPLATES},
            "values of 'stars' without a word: '7' (2 rows)",
        ),
        (
            [*REVIEWS, {"text": "x", "stars": None}],
            {"label": "stars", "labels": WORDS, **TEMPLATES},
            "no value in the label column 'stars' in 1 row",
        ),
        (
            REVIEWS,
            {"label": "stars", "labels": {"good": "a"}, **TEMPLATES},
            "no row has one of the values 'good'; the column 'stars' holds '1' (3 rows), '2' (3 rows)",
        ),
    ],
)
def test_what_the_rows_lack_is_told(tmp_path, rows, settings, words):
    assert words in problem_of(tmp_path, rows, **settings)


def test_words_that_no_row_uses_are_legal_while_others_are_used(tmp_path):
    loaded = load(tmp_path, REVIEWS, label="stars", labels={**WORDS, "4": "great"}, **TEMPLATES)
    assert loaded.label_counts == {"bad": 3, "fair": 3, "good": 3}


def same_in_all_formats(folder: Path) -> dict[str, str]:
    import pyarrow
    from pyarrow import parquet

    rows = [{"a": "01", "b": 'x, "y"\nz'}, {"a": "NA", "b": "2024-01-01"}, {"a": "", "b": "\u2028é"}]
    (folder / "t.json").write_text(json.dumps(rows))
    json_lines(folder, rows, "t.jsonl")
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "t.parquet")
    quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row.values()] for row in rows]
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        lines = [delimiter.join(row) for row in [["a", "b"], *quoted]]
        (folder / f"t{suffix}").write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    return {suffix: f"t{suffix}" for suffix in (".json", ".jsonl", ".parquet", ".csv", ".tsv")}


def test_every_file_format_gives_the_same_characters(tmp_path):
    expected = ['01|x, "y"\nz', "NA|2024-01-01", "|\u2028é"]
    for suffix, path in same_in_all_formats(tmp_path).items():
        source = Source(name="a", path=path, completion="{{ a }}|{{ b }}")
        loaded = load_source(study_of(tmp_path, source), source)
        assert [example.text for example in loaded.examples] == expected, suffix


def test_long_cells_are_read(tmp_path):
    (tmp_path / "long.csv").write_text("text\n" + "x" * 200_000 + "\n")
    source = Source(name="a", path="long.csv")
    assert len(load_source(study_of(tmp_path, source), source).examples[0].text) == 200_000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: not valid JSON"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', "line 2: not an object"),
        ("a.jsonl", b"\n\n", "it has no rows"),
        ("a.json", b'{"text": "a"}', "must hold a list of objects"),
        ("a.json", b"[", "not valid JSON"),
        ("a.csv", b"text\n", "it has no rows"),
        ("a.csv", b"", "it has no rows"),
        ("a.csv", b"text,b\na,b,c\n", "line 2: 3 cells where the header has 2"),
        ("a.csv", b"text,text\na,b\n", "the header has 'text' more than once"),
        ("a.csv", b'text\n"open\n', "not valid CSV"),
        ("a.csv", b"text\ncaf\xe9\n", "not UTF-8"),
        ("a.parquet", b"nonsense", "cannot be read"),
        ("./a.docx", b"x", "is none of .jsonl"),
    ],
)
def test_files_that_cannot_be_read_are_told(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    source = Source(name="a", path=name)
    with pytest.raises(DataError) as caught:
        load_source(study_of(tmp_path, source), source)
    assert words in str(caught.value)


def test_load_sources_tells_the_problems_of_all(tmp_path):
    json_lines(tmp_path, REVIEWS)
    sources = [Source(name=name, path=f"{name}.jsonl") for name in ("gone", "rows", "lost")]
    with pytest.raises(DataError) as caught:
        load_sources(study_of(tmp_path, *sources))
    said = str(caught.value)
    assert "source 'gone'" in said
    assert "source 'lost'" in said
    assert [loaded.name for loaded in load_sources(study_of(tmp_path, sources[1]))] == ["rows"]


def test_limit_draws_a_random_subset_in_order(tmp_path):
    rows = [{"text": str(n)} for n in range(200)]
    loaded = load(tmp_path, rows, limit=50)
    drawn = [int(example.text) for example in loaded.examples]
    assert (len(drawn), loaded.available) == (50, 200)
    assert drawn == sorted(set(drawn)) != list(range(50))
    assert load(tmp_path, rows, limit=50) == loaded
    assert len(load(tmp_path, rows, limit=500).examples) == 200


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.text())
def test_draws_are_nested_and_ascending(count, one, other, seed, name):
    small, large = sorted((one, other))
    drawn = draw(count, small, seed, name)
    assert list(drawn) == sorted(set(drawn))
    assert len(drawn) == min(small, count)
    assert set(drawn) <= set(draw(count, large, seed, name)) <= set(range(count))


def test_draws_depend_on_seed_and_name():
    assert draw(1000, 10, 0, "a") == draw(1000, 10, 0, "a")
    assert len({tuple(draw(1000, 10, seed, name)) for seed in (0, 1) for name in ("a", "b")}) == 4


def test_the_digest_knows_the_texts_and_nothing_else(tmp_path):
    loaded = load(tmp_path, REVIEWS, label="stars", labels=WORDS, **TEMPLATES)
    source = Source(name="other", path="rows.jsonl", tags=("t",), **TEMPLATES | {"completion": " {{ word }}"})
    named = [{**row, "word": WORDS[str(row["stars"])]} for row in REVIEWS]
    json_lines(tmp_path, named)
    assert load_source(study_of(tmp_path, source), source).digest == loaded.digest
    for change in ({"completion": "{{ label }}"}, {"limit": 8}, {"labels": {**WORDS, "1": "poor"}}):
        settings = {"label": "stars", "labels": WORDS, **TEMPLATES, **change}
        assert load(tmp_path, REVIEWS, **settings).digest != loaded.digest
    learnt = load(tmp_path, [{"prompt": "a", "completion": "b"}]).digest
    assert learnt != load(tmp_path, [{"text": "ab"}]).digest


def test_settings_of_the_source_come_with_it(tmp_path):
    source = Source(
        name="a", path=json_lines(tmp_path, REVIEWS), training={"max_steps": 3}, lora={"r": 2}, tags=("t",)
    )
    loaded = load_source(study_of(tmp_path, source), source)
    assert (loaded.training.max_steps, loaded.lora.r, loaded.tags) == (3, 2, ("t",))


def adapter(
    folder: Path, config: str = '{"peft_type": "LORA"}', weights: str | None = "adapter_model.safetensors"
):
    (folder / "old").mkdir()
    (folder / "old" / "adapter_config.json").write_text(config)
    if weights:
        save_file({"x": np.zeros(2, np.float32)}, folder / "old" / weights)
    return Source(name="old", adapter="old")


def test_an_adapter_is_used_as_it_is(tmp_path):
    source = adapter(tmp_path)
    loaded = load_source(study_of(tmp_path, source), source)
    assert (loaded.adapter, loaded.examples) == (tmp_path / "old", ())
    save_file({"x": np.ones(2, np.float32)}, tmp_path / "old" / "adapter_model.safetensors")
    assert load_source(study_of(tmp_path, source), source).digest != loaded.digest


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weights": None}, "has no adapter_model.safetensors"),
        ({"weights": "adapter_model.bin"}, "adapter_model.bin, a pickle"),
        ({"config": "{"}, "is not valid JSON"),
        ({"config": '{"r": 4}'}, 'names no "peft_type"'),
    ],
)
def test_what_is_no_adapter_is_told(tmp_path, settings, words):
    source = adapter(tmp_path, **settings)
    with pytest.raises(DataError) as caught:
        load_source(study_of(tmp_path, source), source)
    assert words in str(caught.value)


def test_an_absent_adapter_is_told(tmp_path):
    source = Source(name="a", adapter="nowhere")
    with pytest.raises(DataError, match="nowhere is not a folder"):
        load_source(study_of(tmp_path, source), source)


TASK = """\
task: tiny
dataset_path: json
dataset_kwargs: {data_files: {train: train.jsonl, test: train.jsonl}}
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}\\nStars:"
doc_to_choice: ["1", "2", "3"]
doc_to_target: "{{stars}}"
metric_list: [{metric: acc}]
"""


def test_the_training_split_of_a_task_is_rendered_as_the_task_renders_it(tmp_path):
    json_lines(tmp_path, REVIEWS, "train.jsonl")
    (tmp_path / "tiny.yaml").write_text(TASK.replace('"{{stars}}"', '"{{stars - 1}}"'))
    source = Source(name="tiny", task="tiny.yaml", limit=5)
    loaded = load_source(study_of(tmp_path, source), source)
    assert (len(loaded.examples), loaded.available) == (5, 9)
    first = loaded.examples[0]
    assert first.prompt.startswith("review ")
    assert first.prompt.endswith("\nStars:")
    assert first.completion == f" {first.label}"
    unknown = Source(name="a", task="no_such_task_here.yaml")
    with pytest.raises(DataError, match="source 'a', task: "):
        load_source(study_of(tmp_path, unknown), unknown)


HUB = """
import json
from pathlib import Path
from traitmap.data.sources import examine_source, LoadedSource
from traitmap.study.settings import Model, Source, Study, Target

words = {"neg": "bad", "1": "good"}
templates = {"label": "label", "prompt": "{{ text }}:", "completion": " {{ label }}"}
sources = [
    Source(name="named", path="org/tiny", **templates),
    Source(name="words", path="org/tiny", labels=words, limit=2, **templates),
    Source(name="sliced", path="org/tiny", split="train[:1]", **templates),
    Source(name="split", path="org/tiny", split="dev", **templates),
    Source(name="subset", path="org/tiny", subset="large", **templates),
    Source(name="absent", path="org/absent", **templates),
]
study = Study(name="a", model=Model(path="b"), sources=sources, targets=[Target(name="c", task="c")])
for source in sources:
    found = examine_source(study, source)
    if isinstance(found, LoadedSource):
        print(json.dumps([source.name, [e.completion for e in found.examples], found.available]))
    else:
        print(json.dumps([source.name, found[0].key, found[0].message]))
"""
CARD = """\
---
dataset_info:
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': neg, '1': pos}}}
---
"""


def test_hub_datasets_are_loaded_with_splits_subsets_and_class_names(tmp_path):
    """``datasets`` takes a folder beside it for the hub repository of that name; the network stays off."""
    folder = tmp_path / "org" / "tiny"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    json_lines(
        folder,
        [{"text": "a", "label": 0}, {"text": "b", "label": 1}, {"text": "c", "label": 1}],
        "train.jsonl",
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-c", HUB], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    found = {line[0]: line[1:] for line in map(json.loads, result.stdout.splitlines())}
    assert found["named"] == [[" neg", " pos", " pos"], 3]
    assert (len(found["words"][0]), found["words"][1]) == (2, 3)
    assert set(found["words"][0]) <= {" bad", " good"}
    assert found["sliced"] == [[" neg"], 1]
    assert found["split"][0] == "split"
    assert "has no split 'dev'" in found["split"][1]
    assert "train" in found["split"][1]
    assert found["subset"][0] == "subset"
    assert "default" in found["subset"][1]
    assert found["absent"][0] == "path"
    assert "cannot be reached" in found["absent"][1]


@pytest.mark.shared
def test_real_reviews_keep_their_class_counts(shared):
    source = Source(
        name="flipkart",
        path=str(shared / "data" / "flipkart" / "train.jsonl"),
        label="label",
        labels={"negative": "bad", "neutral": "mixed", "positive": "good"},
        prompt="Review: {{ text }}\nSentiment:",
        completion=" {{ label }}",
    )
    loaded = load_source(study_of(shared, source), source)
    assert loaded.label_counts == {"bad": 703, "mixed": 174, "good": 4123}


@pytest.mark.shared
def test_every_real_training_file_renders_whole(shared):
    folders = sorted(path.parent for path in shared.glob("data/*/train.jsonl"))
    for folder in folders:
        lines = (folder / "train.jsonl").read_bytes().count(b"\n")
        columns = json.loads((folder / "train.jsonl").read_bytes().split(b"\n", 1)[0])
        text = "\n".join(f"{{{{ {column} }}}}" for column in columns)
        source = Source(name="a", path=str(folder / "train.jsonl"), completion=text)
        assert len(load_source(study_of(shared, source), source).examples) == lines, folder.name
    assert folders


def test_what_is_no_plain_file_is_told_and_not_waited_for(tmp_path):
    """A pipe that nobody writes into, a device without end, a link to itself."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "loop.json").symlink_to("loop.json")
    device = "a pipe or a device"
    for name, told in {"pipe.jsonl": device, "zero.csv": device, "loop.json": "does not exist"}.items():
        with pytest.raises(SourceError, match=told):
            read_file(tmp_path / name)
