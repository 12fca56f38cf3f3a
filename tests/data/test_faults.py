import json
from pathlib import Path

import pytest

from traitmap.data.check import check_file, data_faults
from traitmap.data.harness import reason
from traitmap.errors import StudyError, whole_reason
from traitmap.study.load import load_study, read_draft
from traitmap.study.settings import Study

ROWS = [{"text": f"fine thing {n}", "stars": n % 2} for n in range(6)]
TASK = """\
task: tiny
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}\\nStars:"
doc_to_choice: ["0", "1"]
doc_to_target: stars
metric_list: [{metric: acc}]
"""
SOUND = """\
name: sound
model: ./base
sources:
  - name: reviews
    path: rows.jsonl
    label: stars
    labels: {0: bad, 1: good}
    prompt: "{{ text }}\\nStars:"
    completion: " {{ label }}"
targets: [tiny.yaml]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study folder in which all that a study may name is there."""
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    (tmp_path / "odd.jsonl").write_text(json.dumps({"text": "x", "stars": 7}) + "\n")
    (tmp_path / "chat.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
        + "\n"
    )
    (tmp_path / "empty.csv").write_text("text\n")
    (tmp_path / "tiny.yaml").write_text(TASK)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "bare").mkdir()
    return tmp_path


def check(folder: Path, text: str) -> Study:
    (folder / "study.yaml").write_text(text)
    return check_file(folder / "study.yaml")


def faults_of(folder: Path, text: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(StudyError) as caught:
        check(folder, text)
    return [(fault.line, fault.where, fault.message) for fault in caught.value.faults]


def test_a_study_whose_data_is_in_order_passes(folder):
    study = check(folder, SOUND)
    assert study == load_study(folder / "study.yaml")
    assert data_faults(read_draft(folder / "study.yaml")) == []


EIGHT = """\
name: eight
model: ./bare
lerning_rate: 5e-5
training: {batch_size: 0}
sources:
  - name: gone
    path: gone.jsonl
  - name: stars
    path: odd.jsonl
    label: stars
    labels: {0: bad, 1: good}
    prompt: "{{ text }}\\nStars:"
    completion: " {{ label }}"
  - name: columns
    path: rows.jsonl
    completion: "{{ body }}"
  - name: gone
    path: empty.csv
targets: [tiny.yaml, mini_starz]
"""
WHAT_TO_DO = {
    (2, "model.path"): ("has no config.json", "check the path"),
    (3, "lerning_rate"): ("unknown key 'lerning_rate'", "legal here: name, model, lora, training"),
    (4, "training.batch_size"): ("0 is not legal", "give a whole number, at least 1"),
    (7, "sources[0].path"): (
        "gone.jsonl does not exist",
        "relative paths start from the study file's folder",
    ),
    (11, "sources[1].labels"): ("holds '7' (1 row)", "write these values in front of the words"),
    (16, "sources[2].completion"): ("reads 'body', which no column has", "the columns are text, stars"),
    (17, "sources[3].name"): ("'gone' is the name of sources[0] already", "choose another name"),
    (18, "sources[3].path"): ("it has no rows", "give data with at least one"),
    (19, "targets[1].task"): ("there is no task 'mini_starz'", "did you mean mini_stars"),
}


def test_a_study_with_eight_different_faults_prints_all_of_them_each_with_what_to_do(folder):
    (folder / "study.yaml").write_text(EIGHT)
    with pytest.raises(StudyError) as caught:
        check_file(folder / "study.yaml")
    listing = str(caught.value).splitlines()
    assert len(WHAT_TO_DO) >= 8
    assert listing[0].endswith(f"study.yaml: {len(WHAT_TO_DO)} faults")
    assert len(listing) == 1 + len(WHAT_TO_DO)
    for line, ((number, where), (what, advice)) in zip(listing[1:], WHAT_TO_DO.items(), strict=True):
        assert line.startswith(f"  line {number}, {where}: ")
        assert what in line
        assert advice in line


@pytest.mark.parametrize(
    ("old", "new", "line", "where", "words"),
    [
        ("./base", "./nowhere", 2, "model.path", "there is no folder"),
        ("./base", "builtin:maxi", 2, "model.path", "there is builtin:mini"),
        ("stars\n", "sta\n", 6, "sources[0].label", "there is no column 'sta'; the columns are text, stars"),
        ("{0: bad, ", "{2: bad, ", 7, "sources[0].labels", "values of 'stars' without a word: '0' (3 rows)"),
        ("path: rows.jsonl", "task: no_such_task", 5, "sources[0].task", "there is no task 'no_such_task'"),
        ("path: rows.jsonl", "adapter: bare", 5, "sources[0].adapter", "has no adapter_config.json"),
        ("[tiny.yaml]", "[else.yaml]", 10, "targets[0].task", "there is no file"),
        ("[tiny.yaml]", "[{task: tiny.yaml, metric: f1}]", 10, "targets[0].task", "its metrics: acc"),
        ("targets", "include_path: [lost]\ntargets", 10, "include_path[0]", "there is no folder"),
    ],
)
def test_each_fault_of_the_data_is_told_at_its_place(folder, old, new, line, where, words):
    text = SOUND.replace(old, new, 1)
    if "path: rows" in old:
        text = "\n".join(row for row in text.splitlines() if row.split(":")[0].strip() not in _OF_ROWS)
    ((found_line, found_where, message),) = faults_of(folder, text)
    assert (found_line, found_where) == (line, where)
    assert words in message


_OF_ROWS = ("label", "labels", "prompt", "completion")


def test_conversations_and_chat_targets_can_be_checked_without_a_base(folder):
    text = SOUND.split("sources:")[0] + "sources: [{name: chat, path: chat.jsonl}]\n"
    check(folder, f"{text}targets: [{{task: tiny.yaml, apply_chat_template: true}}]\n")


def test_with_a_base_its_own_chat_template_is_used(folder):
    def refusing_chat(messages, add_generation_prompt):
        raise ValueError("roles must alternate")

    (folder / "study.yaml").write_text(
        SOUND.split("sources:")[0] + "sources: [{name: chat, path: chat.jsonl}]\ntargets: [tiny.yaml]\n"
    )
    with pytest.raises(StudyError, match="cannot render the conversation: roles must alternate"):
        check_file(folder / "study.yaml", refusing_chat)


def test_a_target_whose_first_items_hide_their_answers_is_looked_at_whole(folder):
    hidden = [{"text": f"unknown {n}", "stars": -1} for n in range(60)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, hidden + ROWS)) + "\n")
    text = (
        SOUND.split("sources:")[0]
        + "sources: [{name: a, path: odd.jsonl, completion: x}]\ntargets: [tiny.yaml]\n"
    )
    check(folder, text)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, hidden)) + "\n")
    ((_, where, message),) = faults_of(folder, text)
    assert where == "targets[0].task"
    assert "no item's gold answer is among its choices" in message


def test_a_file_that_is_no_study_has_only_its_own_faults(folder):
    assert len(faults_of(folder, "name: [\n")) == 1
    assert len(faults_of(folder, "")) == 1


@pytest.mark.parametrize("old", ["{{text}}", "stars\nmetric"])
def test_a_task_whose_template_reads_no_column_is_told_the_columns(folder, old):
    (folder / "tiny.yaml").write_text(
        TASK.replace(old, old.replace("text", "body").replace("stars", '"{{star}}"'))
    )
    ((_, where, message),) = faults_of(folder, SOUND)
    assert where == "targets[0].task"
    assert "is undefined; the columns are text, stars" in message


def test_a_source_of_a_task_is_told_the_columns_too(folder):
    text = TASK.replace("{{text}}", "{{body}}").replace("test:", "train: rows.jsonl, test:")
    (folder / "own.yaml").write_text(text + "training_split: train\n")
    study = SOUND.split("sources:")[0] + "sources: [{name: a, task: own.yaml}]\ntargets: [tiny.yaml]\n"
    ((_, where, message),) = faults_of(folder, study)
    assert where == "sources[0].task"
    assert "UndefinedError: 'body' is undefined; the columns are text, stars" in message


def test_a_name_that_is_nearly_a_column_is_guessed(folder):
    (folder / "tiny.yaml").write_text(TASK.replace("{{text}}", "{{txt}}"))
    ((_, _, message),) = faults_of(folder, SOUND)
    assert message.endswith("'txt' is undefined; the columns are text, stars; did you mean 'text'?")
    (folder / "tiny.yaml").write_text(TASK)
    for key, template in (("prompt", "{{ texts }}"), ("completion", "{{ star }}")):
        given = {"prompt": "{{ text }}", "completion": "{{ stars }}", key: template}
        source = f"name: a, path: odd.jsonl, prompt: '{given['prompt']}', completion: '{given['completion']}'"
        text = SOUND.split("sources:")[0] + f"sources: [{{{source}}}]\ntargets: [tiny.yaml]\n"
        ((_, where, message),) = faults_of(folder, text)
        assert where == f"sources[0].{key}"
        assert message.endswith(f"did you mean '{'text' if key == 'prompt' else 'stars'}'?")


def test_a_cause_of_another_library_is_told_whole():
    """What is wrong often stands last, as in torch's list of shapes that do not fit."""
    listing = [
        "Error(s) in loading state_dict:",
        *(f"\tsize mismatch for layer {n}" for n in range(8)),
        "the end",
    ]
    told = whole_reason(RuntimeError("\n".join(listing)))
    assert told.startswith("Error(s) in loading state_dict: size mismatch for layer 0 ")
    assert told.endswith("the end")
    assert whole_reason(RuntimeError("\n".join(map(str, range(500))))).endswith("(and 488 lines more)")
    assert whole_reason(RuntimeError("x" * 2500)).endswith("x (and 500 characters more)")
    assert whole_reason(KeyError()) == "KeyError"
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = ValueError("word " * 100 + "the cause")
    assert reason(wrapped).endswith("the cause")
