"""Formats that people have are read by their columns; what is not learnt or not used is told."""

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from traitmap.data.check import check_file, preview_source
from traitmap.data.conversation import plain_chat
from traitmap.data.lineage import load_sources
from traitmap.data.sources import LoadedSource
from traitmap.errors import DataError, StudyError
from traitmap.study.settings import Model, Source, Study, Target

CASES = "cases/files"


def load(folder: Path, rows, render_chat=plain_chat, **settings) -> LoadedSource:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_file(folder / "rows.jsonl", render_chat, **settings)


def load_file(file: Path, render_chat=plain_chat, **settings) -> LoadedSource:
    study = Study(
        name="test",
        model=Model(path="builtin:mini"),
        sources=(Source(name="test", path=str(file), **settings),),
        targets=(Target(name="gsm8k", task="gsm8k"),),
    )
    (loaded,) = load_sources(study, render_chat)
    return loaded


def parts(loaded: LoadedSource, at: int = 0) -> list[tuple[str, bool]]:
    return [(segment.text, segment.learn) for segment in loaded.examples[at].segments]


def problem_of(folder: Path, rows, render_chat=plain_chat, **settings) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, rows, render_chat, **settings)
    return str(caught.value)


def turns(question: str, answer: str, **marks) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **marks}]


# rows that say "do not learn me"


@pytest.mark.shared
def test_unwanted_rows_of_kto_are_not_learnt_and_told(shared):
    loaded = load_file(shared / CASES / "16_rows_that_say_do_not_learn_me/kto.jsonl")
    assert (len(loaded.examples), loaded.available) == (10, 20)
    assert {example.completion for example in loaded.examples} == {"Owl.\n"}
    (warning,) = [text for text in preview_source(loaded).warnings if "not to be learnt" in text]
    assert warning.startswith("10 of 20 rows say that they are not to be learnt (label: false)")
    assert loaded.read_as == "messages: 20 rows"


KTO = [{"prompt": f"Q{n}", "completion": f" A{n}", "label": n % 2 == 0} for n in range(6)]


def test_kto_with_a_completion_and_as_text_in_a_table(tmp_path):
    loaded = load(tmp_path, KTO)
    assert [example.text for example in loaded.examples] == ["Q0 A0", "Q2 A2", "Q4 A4"]
    (tmp_path / "a.csv").write_text("prompt,completion,label\nQ0, A0,True\nQ1, A1,False\n")
    assert [example.text for example in load_file(tmp_path / "a.csv").examples] == ["Q0 A0"]


def test_a_label_that_is_a_class_is_one(tmp_path):
    assert load(tmp_path, KTO, label="label").label_counts == {"false": 3, "true": 3}
    templates = {"prompt": "{{ prompt }}", "completion": "{{ completion }}"}
    assert len(load(tmp_path, KTO, **templates).examples) == 6
    numbers = [{**row, "label": int(row["label"])} for row in KTO]
    assert (len(load(tmp_path, numbers).examples), load(tmp_path, numbers).warnings) == (6, ())
    texts = [{"text": row["prompt"], "label": row["label"]} for row in KTO]
    assert len(load(tmp_path, texts).examples) == 6


@pytest.mark.parametrize(
    ("marks", "mark"),
    [
        ([{"weight": 0}, {"weight": 1}, {}], "weight: 0"),
        ([{"weight": 0.0}, {"weight": None}, {}], "weight: 0"),
        ([{"train": False}, {"train": True}, {}], "train: false"),
        ([{"kto_tag": False}, {"kto_tag": True}, {}], "kto_tag: false"),
    ],
)
def test_a_row_of_no_weight_is_not_learnt(tmp_path, marks, mark):
    rows = [{"prompt": f"Q{n}", "completion": " A", **more} for n, more in enumerate(marks)]
    loaded = load(tmp_path, rows)
    assert [example.text for example in loaded.examples] == ["Q1 A", "Q2 A"]
    assert any(f"1 of 3 rows say that they are not to be learnt ({mark})" in text for text in loaded.warnings)


def test_weights_that_are_no_marks_leave_all_rows(tmp_path):
    rows = [{"prompt": "Q", "completion": " A", "weight": weight} for weight in (0, 70.5)]
    assert len(load(tmp_path, rows).examples) == 2
    rows = [{"prompt": "Q", "completion": " A", "weight": weight} for weight in (0.5, 1)]
    assert load(tmp_path, rows).warnings == ("weights between 0 and 1 count as 1",)


def test_a_turn_of_no_weight_is_not_learnt(tmp_path):
    rows = [
        {"messages": [*turns("Q1", "A1", weight=0), *turns("Q2", "A2", weight=1)]},
        {"messages": turns("Q", "A", train=False)},
        {"messages": turns("Q", "A")},
    ]
    loaded = load(tmp_path, rows)
    assert parts(loaded) == [
        ("<user>\nQ1\n<assistant>\nA1\n<user>\nQ2\n<assistant>\n", False),
        ("A2\n", True),
    ]
    assert len(loaded.examples) == 2
    assert loaded.warnings == (
        "1 of 3 rows hold turns of weight 0 or train: false, which are not learnt",
        "1 of 3 rows say of all their turns that they are not to be learnt, and are left out",
    )


def test_a_source_that_leaves_nothing_to_learn_is_refused(tmp_path):
    said = problem_of(tmp_path, [{**row, "label": False} for row in KTO])
    assert "no row is to be learnt: 6 of 6 rows say that they are not to be learnt (label: false)" in said
    assert "nothing is to be learnt" in problem_of(tmp_path, [{"messages": turns("Q", "A", weight=0)}])


def test_a_limit_counts_rows_that_are_learnt(tmp_path):
    rows = [{"prompt": f"Q{n}", "completion": " A", "label": n % 2 == 0} for n in range(40)]
    drawn = load(tmp_path, rows, limit=15).examples
    assert len(drawn) == 15
    assert {int(example.prompt[1:]) % 2 for example in drawn} == {0}


# columns that carry meaning and are not used


@pytest.mark.shared
def test_images_that_are_not_seen_are_told(shared):
    loaded = load_file(shared / CASES / "18_columns_that_matter_are_dropped/images.jsonl")
    count = len(loaded.examples)
    (warning,) = loaded.warnings
    assert warning.startswith(f"the column 'images', filled in {count} of {count} rows, is not used")
    assert f"{count} texts ask about what is not in them (such as <image>)" in warning


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"videos": ["a.mp4"]}, "the column 'videos', filled in 1 of 1 rows, is not used"),
        ({"audio": "a.wav"}, "the column 'audio'"),
        ({"tools": '[{"name": "f"}]'}, "the column 'tools'"),
        ({"chosen": "a", "rejected": "b"}, "train_on: chosen (or rejected)"),
        ({"system": "Be brief."}, "the column 'system'"),
    ],
)
def test_each_column_that_carries_meaning_is_told(tmp_path, more, words):
    assert any(words in text for text in load(tmp_path, [{"text": "x", **more}]).warnings)
    templates = {"completion": "{{ text }}"}
    assert any(words in text for text in load(tmp_path, [{"text": "x", **more}], **templates).warnings)
    blank = dict.fromkeys(more, "")
    assert load(tmp_path, [{"text": "x", **blank}]).warnings == ()
    read = "{{ text }}" + "".join(f"{{{{ {column} | default('') }}}}" for column in more)
    assert load(tmp_path, [{"text": "x", **more}], completion=read).warnings == ()


# formats


def test_alpaca_is_read_as_stanford_wrote_it(tmp_path):
    rows = [
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        {"instruction": "Sing.", "input": "", "output": "La."},
        {"instruction": "Sing.", "output": "La.", "system": "You are a bird."},
        {"instruction": "Again.", "input": None, "output": "Lo.", "history": [["Sing.", "La."]]},
    ]
    loaded = load(tmp_path, rows, None)
    assert loaded.read_as == "alpaca: 4 rows"
    assert parts(loaded)[0][0].startswith(
        "Below is an instruction that describes a task, paired with an input"
    )
    assert parts(loaded)[0][0].endswith("\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n")
    assert parts(loaded)[1] == ("3", True)
    assert loaded.examples[1].prompt.endswith("the request.\n\n### Instruction:\nSing.\n\n### Response:\n")
    assert loaded.examples[2].prompt == "You are a bird.\n\n### Instruction:\nSing.\n\n### Response:\n"
    assert parts(loaded, 3)[1:] == [
        ("La.", True),
        ("\n\n### Instruction:\nAgain.\n\n### Response:\n", False),
        ("Lo.", True),
    ]
    assert loaded.warnings == ()


def test_faults_of_alpaca_name_row_and_column(tmp_path):
    assert "row 1: the column 'output' is int, not text" in problem_of(
        tmp_path, [{"instruction": "a", "output": 3}]
    )
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b", "history": ["x"]}]
    assert "row 2: the column 'history' must hold pairs" in problem_of(tmp_path, rows)


def test_sharegpt_is_the_conversation_that_it_writes(tmp_path):
    rows = [
        {
            "conversations": [
                {"from": "human", "value": "Q1"},
                {"from": "gpt", "value": "A1"},
                {"from": "observation", "value": "T"},
                {"from": "gpt", "value": "A2", "weight": 0},
                {"from": "user", "value": "Q2"},
                {"from": "assistant", "value": "A3"},
            ],
            "system": "S",
        },
        {"conversations": turns("Q", "A")},
    ]
    loaded = load(tmp_path, rows)
    assert loaded.read_as == "sharegpt: 2 rows"
    assert parts(loaded) == [
        ("<system>\nS\n<user>\nQ1\n<assistant>\n", False),
        ("A1\n", True),
        ("<tool>\nT\n<assistant>\nA2\n<user>\nQ2\n<assistant>\n", False),
        ("A3\n", True),
    ]
    assert parts(loaded, 1) == [("<user>\nQ\n<assistant>\n", False), ("A\n", True)]


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ({"from": "narrator", "value": "x"}, "turn 1: the role 'narrator' is not known; give one of human"),
        ({"from": "human", "value": None}, "turn 1: from and value must be text"),
        ({"from": "function_call", "value": "f()"}, "turn 1: a function_call must be JSON"),
    ],
)
def test_turns_of_sharegpt_that_are_none_are_told(tmp_path, turn, words):
    rows = [{"conversations": [{"from": "gpt", "value": "x"}]}, {"conversations": [turn]}]
    said = problem_of(tmp_path, rows)
    assert "row 2" in said
    assert words in said


def test_parts_of_a_content_are_joined_and_others_told(tmp_path):
    picture = {"type": "image_url", "image_url": {"url": "a.png"}}
    parts_of_text = [{"type": "text", "text": "What"}, picture, {"type": "text", "text": "is it?"}]
    loaded = load(tmp_path, [{"messages": turns(parts_of_text, [{"type": "text", "text": "An owl."}])}])
    assert parts(loaded) == [("<user>\nWhat\nis it?\n<assistant>\n", False), ("An owl.\n", True)]
    assert loaded.warnings == (
        "1 of 1 rows hold parts of the kind 'image_url', which are not used: only text is learnt",
    )


CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLING = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "dry"},
    {"role": "assistant", "content": "No."},
]


def calling_chat(messages, add_generation_prompt, tools=()):
    """A template as instruct models have it: arguments as a mapping, null contents never seen."""
    text = "".join(f"[tool {tool['function']['name']}]" for tool in tools)
    for message in messages:
        calls = [call["function"] for call in message.get("tool_calls", ())]
        text += f"<{message['role']}>" + message["content"]
        text += "".join(f"{call['name']}({sorted(call['arguments'].items())})" for call in calls) + "\n"
    return text + ("<assistant>" if add_generation_prompt else "")


CALLED = [
    ("[tool weather]<user>Rain?\n<assistant>", False),
    ("weather([('city', 'Bonn')])\n", True),
    ("<tool>dry\n<assistant>", False),
    ("No.\n", True),
]


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [json.dumps(TOOL)], [TOOL["function"]]])
def test_calls_of_tools_go_through_the_chat_template(tmp_path, tools):
    assert parts(load(tmp_path, [{"messages": CALLING, "tools": tools}], calling_chat)) == CALLED


def test_calls_are_the_same_in_other_spellings(tmp_path):
    old = {"role": "assistant", "content": None, "function_call": CALL["function"]}
    rows = [{"messages": [CALLING[0], old, *CALLING[2:]], "functions": [TOOL["function"]]}]
    assert parts(load(tmp_path, rows, calling_chat)) == CALLED
    spoken = [("human", "Rain?"), ("function_call", json.dumps(CALL["function"])), ("observation", "dry")]
    shared = [{"from": speaker, "value": text} for speaker, text in [*spoken, ("gpt", "No.")]]
    assert parts(load(tmp_path, [{"conversations": shared, "tools": [TOOL]}], calling_chat)) == CALLED
    table = pyarrow.Table.from_pylist([{"messages": CALLING, "tools": [TOOL]}])
    parquet.write_table(table, tmp_path / "a.parquet")
    assert parts(load_file(tmp_path / "a.parquet", calling_chat)) == CALLED


def test_a_template_that_leaves_out_calls_or_tools_is_found_out(tmp_path):
    def deaf_chat(messages, add_generation_prompt, tools=()):
        plain = [{"role": turn["role"], "content": turn["content"]} for turn in messages]
        return plain_chat(plain, add_generation_prompt)

    rows = [{"messages": turns("Q", "A")}, {"messages": CALLING}]
    said = problem_of(tmp_path, rows, deaf_chat)
    assert "row 2: the base's chat template leaves out the call of the tool 'weather' in turn 2" in said
    said = problem_of(tmp_path, [{"messages": turns("Q", "A"), "tools": [TOOL]}], deaf_chat)
    assert "row 1: the base's chat template leaves the tools out ('weather' is not in its text)" in said

    def refusing_chat(messages, add_generation_prompt, tools=()):
        raise ValueError("roles must alternate")

    assert "cannot render the conversation: roles must alternate" in problem_of(tmp_path, rows, refusing_chat)


def test_what_is_no_call_and_no_tool_is_told(tmp_path):
    silent = {"role": "assistant", "content": None}
    assert "turn 1: role and content must be text" in problem_of(tmp_path, [{"messages": [silent]}])
    nameless = {**silent, "tool_calls": [{"function": {}}]}
    assert "turn 1: a call of a tool has no name" in problem_of(tmp_path, [{"messages": [nameless]}])
    rows = [{"messages": turns("Q", "A"), "tools": "weather"}]
    assert "row 1: the column 'tools' holds no tools" in problem_of(tmp_path, rows)


HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye\n\nAssistant:"
PAIRS = {
    "text": ({"prompt": "Q:", "chosen": " yes", "rejected": " no"}, [("Q:", False), (" yes", True)]),
    "whole texts": (
        {"chosen": f"{HH} See you.", "rejected": f"{HH} Say."},
        [(HH, False), (" See you.", True)],
    ),
    "beginnings": (
        {"chosen": "The owl sees", "rejected": "The owl sings"},
        [("The owl", False), (" sees", True)],
    ),
    "conversations": (
        {"chosen": turns("Q", "yes"), "rejected": turns("Q", "no"), "prompt": "Q"},
        [("<user>\nQ\n<assistant>\n", False), ("yes\n", True)],
    ),
    "answers": (
        {"prompt": [turns("Q", "")[0]], "chosen": [turns("", "yes")[1]], "rejected": [turns("", "no")[1]]},
        [("<user>\nQ\n<assistant>\n", False), ("yes\n", True)],
    ),
    "ultrafeedback": (
        {
            "prompt": "Q",
            "messages": turns("Q", "yes"),
            "chosen": turns("Q", "yes"),
            "rejected": turns("Q", "no"),
        },
        [("<user>\nQ\n<assistant>\n", False), ("yes\n", True)],
    ),
    "sharegpt": (
        {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "yes"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        [("<user>\nQ\n<assistant>\n", False), ("yes\n", True)],
    ),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_of_preference_pairs_the_one_that_is_named_is_learnt(tmp_path, kind):
    row, expected = PAIRS[kind]
    loaded = load(tmp_path, [row], train_on="chosen")
    assert parts(loaded) == expected
    assert loaded.read_as == "preference pairs, of which chosen is learnt: 1 row"
    other = load(
        tmp_path, [{**row, "chosen": row["rejected"], "rejected": row["chosen"]}], train_on="rejected"
    )
    assert parts(other) == expected


def test_pairs_without_a_word_on_what_is_learnt_are_refused(tmp_path):
    said = problem_of(tmp_path, [PAIRS["text"][0]])
    assert "source 'test', train_on: " in said
    assert "write train_on: chosen (or rejected)" in said
    said = problem_of(tmp_path, [{"text": "x"}], train_on="chosen")
    assert "there is no column 'chosen'; the columns are text" in said
    same = {"chosen": turns("Q", "A"), "rejected": turns("Q", "A")}
    assert "chosen and rejected are the same" in problem_of(tmp_path, [same], train_on="chosen")


def test_train_on_beside_templates_is_a_fault_of_the_file(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "name: a\nmodel: builtin:mini\nsources: [{name: a, path: a.jsonl, train_on: chosen, "
        "completion: x}]\ntargets: [mini_stars]\n"
    )
    with pytest.raises(StudyError, match="train_on has no effect where templates say what is learnt"):
        check_file(tmp_path / "study.yaml")


# templates


def test_an_error_in_a_template_lists_the_columns(tmp_path):
    rows = [{"text": "a", "n": 0}]
    for template in ("{{ body }}", "{{ 1 // n }}{{ text }}", "{{ text.body }}", "{{ [none][0] }}{{ text }}"):
        assert "the columns are text, n" in problem_of(tmp_path, rows, completion=template), template
